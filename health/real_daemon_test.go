// SPDX-License-Identifier: Apache-2.0

//go:build linux

package health_test

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/health"
)

// A daemon is a real server, in a process group of its own.
type daemon struct {
	t    *testing.T
	addr string
	port string
	dir  string // belongs to who runs it
	cmd  *exec.Cmd
	done chan struct{}
	as   *syscall.Credential
}

// real prepares a daemon that runs as account, or skips the test.
func real(t *testing.T, account, program string) *daemon {
	if os.Getenv("PENSTOCK_REAL_SERVERS") == "" {
		t.Skip("PENSTOCK_REAL_SERVERS is not set")
	}
	if _, err := exec.LookPath(program); err != nil {
		t.Skip(err)
	}
	d := &daemon{t: t, addr: refusedAddr(t)}
	_, d.port, _ = net.SplitHostPort(d.addr)
	var err error
	d.dir, err = os.MkdirTemp("/tmp", "penstock-real-")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(d.dir) })
	if os.Getuid() == 0 && account != "root" {
		u, err := user.Lookup(account)
		if err != nil {
			t.Skip(err)
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		d.as = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		require.NoError(t, os.Chown(d.dir, uid, gid))
	}
	return d
}

// file writes a file into the daemon's folder and returns its path.
func (d *daemon) file(name, text string) string {
	path := filepath.Join(d.dir, name)
	require.NoError(d.t, os.WriteFile(path, []byte(text), 0o644))
	return path
}

// certificate writes a certificate for localhost and its key.
func (d *daemon) certificate() (cert, key string) {
	cert, key = certificate(d.t, d.dir)
	require.NoError(d.t, os.Chmod(key, 0o600))
	if d.as != nil {
		require.NoError(d.t, os.Chown(key, int(d.as.Uid), int(d.as.Gid)))
	}
	return cert, key
}

// run runs a program to its end, as the daemon's account.
func (d *daemon) run(program string, args ...string) {
	cmd := exec.Command(program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: d.as}
	cmd.Dir = d.dir
	out, err := cmd.CombinedOutput()
	require.NoError(d.t, err, "%s %v: %s", program, args, out)
}

// start starts the daemon.
func (d *daemon) start(program string, args ...string) {
	d.cmd = exec.Command(program, args...)
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: d.as, Setpgid: true, Pdeathsig: syscall.SIGKILL}
	d.cmd.Dir = d.dir
	log, err := os.Create(filepath.Join(d.dir, "log"))
	require.NoError(d.t, err)
	defer log.Close()
	d.cmd.Stdout, d.cmd.Stderr = log, log
	require.NoError(d.t, d.cmd.Start())
	done := make(chan struct{})
	d.done = done
	cmd := d.cmd
	go func() {
		cmd.Wait()
		close(done)
	}()
	d.t.Cleanup(func() { d.kill(syscall.SIGKILL) })
}

// signal sends a signal to all processes of the daemon.
func (d *daemon) signal(s syscall.Signal) { syscall.Kill(-d.cmd.Process.Pid, s) }

// stopped reports whether all threads of the daemon are.
func (d *daemon) stopped() bool {
	threads, err := filepath.Glob("/proc/[0-9]*/task/[0-9]*/stat")
	require.NoError(d.t, err)
	for _, name := range threads {
		stat, _ := os.ReadFile(name) // it may be gone
		// "pid (comm) state ppid pgrp ...", and comm may have anything in it.
		f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(f) > 2 && f[2] == strconv.Itoa(d.cmd.Process.Pid) && f[0] != "T" && f[0] != "Z" {
			return false
		}
	}
	return true
}

// kill ends the daemon.
func (d *daemon) kill(s syscall.Signal) {
	d.signal(s)
	select {
	case <-d.done:
	case <-time.After(10 * time.Second):
		d.signal(syscall.SIGKILL)
		<-d.done
	}
	d.signal(syscall.SIGKILL) // what is left of the group
}

// says probes the daemon once, and expects a verdict that begins with want.
func (d *daemon) says(situation string, p health.Probe, want string) {
	d.t.Helper()
	patience := 30 * time.Second // a busy machine is slow too
	if strings.HasSuffix(want, "no answer within 1s") {
		patience = time.Second
	}
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	got := verdict(p.Probe(ctx, balance.Endpoint{Addr: d.addr}))
	d.t.Logf("%-28s %s", situation, got)
	require.True(d.t, strings.HasPrefix(got, want), "%s: got %q; want %q", situation, got, want)
}

// becomes probes the daemon until the verdict begins with want, and returns
// the others that there were on the way.
func (d *daemon) becomes(situation string, p health.Probe, want string) (before []string) {
	d.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(d.t.Context(), time.Second)
		got := verdict(p.Probe(ctx, balance.Endpoint{Addr: d.addr}))
		cancel()
		if strings.HasPrefix(got, want) {
			d.t.Logf("%-28s %s", situation, got)
			return before
		}
		if len(before) == 0 || before[len(before)-1] != got {
			before = append(before, got)
		}
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(filepath.Join(d.dir, "log"))
			log = log[max(0, len(log)-2000):]
			d.t.Fatalf("%s: %q; want %q\n%s", situation, before, want, log)
		}
	}
}

// common goes through what every server can do: stop answering, go on, and end.
func (d *daemon) common(p health.Probe, silent string) {
	d.t.Helper()
	d.signal(syscall.SIGSTOP)
	for !d.stopped() { // one thread may still answer while another one stops
		time.Sleep(time.Millisecond)
	}
	d.says("silent (SIGSTOP)", p, "timeout / "+silent)
	d.says("the same, by TCP{}", health.TCP{}, "ok")
	d.signal(syscall.SIGCONT)
	d.becomes("again (SIGCONT)", p, "ok")
	d.kill(syscall.SIGTERM)
	d.says("stopped", p, "connect refused / connect: connection refused")
}
