// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A gate is a gateway as its parent sees it: a process, or one after another.
type gate struct {
	l      *ledger
	name   string
	host   string
	config config

	notified *net.UnixConn // takes the place of systemd
	output   *os.File      // the processes write there
	said     sync.WaitGroup
	operator http.Client
	pid      int          // of the process that accepts; used by one goroutine
	crashed  atomic.Int64 // time of the end of the last crash, or math.MaxInt64 during one, in nanoseconds since the start of the run
	renewed  atomic.Int64 // likewise, of a hot restart
}

// newGate makes a gate whose sockets and files are in dir.
func newGate(l *ledger, dir, name string, config config) (*gate, error) {
	config.Log = filepath.Join(dir, name+".log")
	g := &gate{l: l, name: name, host: config.Host, config: config}
	var err error
	if g.notified, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, name+".notify"), Net: "unixgram"}); err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	g.output = w
	g.said.Go(func() {
		defer r.Close()
		for lines := bufio.NewScanner(r); lines.Scan(); {
			line := lines.Text()
			l.said(name, line)
			what, is := strings.CutPrefix(line, "fault: ")
			if is || strings.Contains(line, "panic") || strings.Contains(line, "DATA RACE") {
				l.wrong("gateway %s: %s", name, what)
			}
		}
	})
	return g, nil
}

// start starts a process and waits until it serves.
func (g *gate) start() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	text, err := json.Marshal(g.config)
	if err != nil {
		return err
	}
	cmd := exec.Command(self, "gateway", string(text))
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+g.notified.LocalAddr().String())
	cmd.Stdout, cmd.Stderr = g.output, g.output
	if err := cmd.Start(); err != nil {
		return err
	}
	if g.pid, err = g.ready(); err == nil && g.pid != cmd.Process.Pid {
		err = fmt.Errorf("process %d is ready, not %d", g.pid, cmd.Process.Pid)
	}
	return err
}

// ready waits until a process says that it serves.
func (g *gate) ready() (pid int, err error) {
	b := make([]byte, 200)
	_ = g.notified.SetReadDeadline(time.Now().Add(patience))
	for {
		n, err := g.notified.Read(b)
		if err != nil {
			return 0, fmt.Errorf("gateway %s is not ready: %w", g.name, err)
		}
		if _, err := fmt.Sscanf(string(b[:n]), "READY=1\nMAINPID=%d", &pid); err == nil {
			return pid, nil
		}
	}
}

// restart has a new process take over, and waits for the end of the old one.
func (g *gate) restart() error {
	old := g.pid
	g.renewed.Store(1 << 62)
	defer func() { g.renewed.Store(int64(time.Since(g.l.start))) }()
	if err := syscall.Kill(old, syscall.SIGHUP); err != nil {
		return err
	}
	var err error
	if g.pid, err = g.ready(); err != nil {
		return err
	}
	if err := g.reap(old, lameDuck+drainTime+patience); err != nil {
		return err
	}
	g.l.event("gateway %s: process %d follows %d", g.name, g.pid, old)
	g.l.mu.Lock()
	g.l.restarts++
	g.l.mu.Unlock()
	return nil
}

// crash kills the process and starts another.
func (g *gate) crash() error {
	g.crashed.Store(1 << 62)
	defer func() { g.crashed.Store(int64(time.Since(g.l.start))) }()
	defer g.l.crash()()
	if err := syscall.Kill(g.pid, syscall.SIGKILL); err != nil {
		return err
	}
	if err := g.reap(g.pid, patience); err != nil && !errors.Is(err, errKilled) {
		return err
	}
	return g.start()
}

// stop ends the process, which looks whether anything is left, and waits for what it says.
func (g *gate) stop() error {
	if err := syscall.Kill(g.pid, syscall.SIGTERM); err != nil {
		return err
	}
	err := g.reap(g.pid, lameDuck+drainTime+patience)
	_ = g.output.Close()
	g.said.Wait()
	return err
}

var errKilled = errors.New("killed")

// reap waits for the end of a process. Those that gateways start become children of this
// one when their parents end, see adopt.
func (g *gate) reap(pid int, most time.Duration) error {
	var status syscall.WaitStatus
	for end := time.Now().Add(most); ; time.Sleep(20 * time.Millisecond) {
		switch got, err := syscall.Wait4(pid, &status, syscall.WNOHANG, nil); {
		case err != nil && err != syscall.EINTR:
			return fmt.Errorf("gateway %s, process %d: %w", g.name, pid, err)
		case got == pid && status.Signaled() && status.Signal() == syscall.SIGKILL:
			return errKilled
		case got == pid && status.ExitStatus() != 0:
			return fmt.Errorf("gateway %s, process %d, ended with status %d, signal %v", g.name, pid, status.ExitStatus(), status.Signal())
		case got == pid:
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("gateway %s, process %d, does not end", g.name, pid)
		}
	}
}

// adopt makes this process the parent of orphans below it (prctl(2), PR_SET_CHILD_SUBREAPER).
func adopt() error {
	const setChildSubreaper = 36
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, setChildSubreaper, 1, 0); errno != 0 {
		return fmt.Errorf("prctl: %w", errno)
	}
	return nil
}

// crashedSince reports whether the gateway was down at or after t.
func (g *gate) crashedSince(t time.Time) bool {
	at := g.crashed.Load()
	return at > 0 && at >= int64(t.Sub(g.l.start))
}

func (g *gate) restartedSince(t time.Time) bool {
	at := g.renewed.Load()
	return at > 0 && at >= int64(t.Sub(g.l.start))
}

// A state is the part of the admin page's JSON that is of interest here.
type state struct {
	Pools []struct {
		Name                      string
		InFlight, Queued, Retries int
		Retried                   int64
		Servers                   []struct {
			Name  string
			Conns struct{ Open int }
		}
	}
	Fronts []struct {
		Name string
		Open int
	}
}

// fetch reads JSON from the admin address into v, or all there is if v is nil.
func (g *gate) fetch(ctx context.Context, by http.RoundTripper, path string, v any) error {
	req, err := http.NewRequestWithContext(ctx, "GET", "http://"+g.host+":9090"+path, nil)
	if err != nil {
		return err
	}
	res, err := by.RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if v == nil {
		_, err = io.Copy(io.Discard, res.Body)
		return err
	}
	if res.StatusCode != http.StatusOK {
		return errors.New(res.Status)
	}
	return json.NewDecoder(res.Body).Decode(v)
}

// act posts a form to the admin address, and reports the status.
func (g *gate) act(path string, form url.Values) (int, error) {
	res, err := g.operator.PostForm("http://"+g.host+":9090"+path, form)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	return res.StatusCode, nil
}

// dump writes what descriptors there are, and the stacks of all goroutines.
func (g *gate) dump(out io.Writer) error {
	fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", g.pid))
	for _, fd := range fds {
		to, _ := os.Readlink(fd)
		fmt.Fprintln(out, fd, to)
	}
	res, err := g.operator.Get("http://" + g.host + ":9090/stacks")
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, err = io.Copy(out, res.Body)
	return err
}

// A measure is what a process takes when there is nothing to do.
type measure struct {
	Figures
	PSS         int64 // bytes
	Descriptors int
	Retried     int64
}

// calm waits until the gateway has nothing to do and nothing left of what it did, and
// measures it.
func (g *gate) calm() (m measure, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var why string
	for {
		var st state
		if err := g.fetch(ctx, http.DefaultTransport, "/state", &st); err != nil {
			return m, fmt.Errorf("gateway %s, in the calm: %w; %s", g.name, err, why)
		}
		if why, m.Retried = busy(st); why == "" {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err := g.fetch(ctx, http.DefaultTransport, "/figures", &m.Figures); err != nil {
		return m, err
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", m.PID))
	m.Descriptors, m.PSS = len(fds), pss(m.PID)
	return m, err
}

// busy says what there still is, and how often other servers were asked for.
func busy(st state) (why string, retried int64) {
	for _, p := range st.Pools {
		retried += p.Retried
		if p.InFlight+p.Queued+p.Retries > 0 {
			why = fmt.Sprintf("pool %s has %d in flight, %d waiting, %d retries", p.Name, p.InFlight, p.Queued, p.Retries)
		}
		if len(p.Servers) != servers {
			why = fmt.Sprintf("pool %s has %d servers", p.Name, len(p.Servers))
		}
		for _, srv := range p.Servers {
			if srv.Conns.Open > 0 {
				why = fmt.Sprintf("pool %s has %d connections to %s", p.Name, srv.Conns.Open, srv.Name)
			}
		}
	}
	for _, f := range st.Fronts {
		if f.Open > 0 {
			why = fmt.Sprintf("front %s has %d connections", f.Name, f.Open)
		}
	}
	return why, retried
}

// pss returns the proportional set size of a process in bytes.
func pss(pid int) int64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			kib, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib << 10
		}
	}
	return 0
}
