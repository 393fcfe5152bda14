// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Tools are the programs that make load. Without one its work is done by this program,
// which asks more slowly.
type Tools struct {
	WRK, H2Load string // empty means none
	Self        string // this program
	Cores       []int  // where they run
	Dir         string // for their files
}

func findTools(own bool, dir string, cores []int) (*Tools, error) {
	t := &Tools{Cores: cores, Dir: dir}
	if !own {
		t.WRK, _ = exec.LookPath("wrk")
		t.H2Load, _ = exec.LookPath("h2load")
	}
	script, err := files.ReadFile("peers/wrk.lua")
	if err != nil {
		return nil, err
	}
	if t.Self, err = os.Executable(); err != nil {
		return nil, err
	}
	return t, os.WriteFile(filepath.Join(dir, "wrk.lua"), script, 0o644)
}

// String names the programs, with versions.
func (t *Tools) String() string {
	name := func(path, arg, none string) string {
		if path == "" {
			return none
		}
		out, _ := exec.Command(path, arg).CombinedOutput() // wrk ends with 1
		return filepath.Base(path) + " " + number.FindString(string(out))
	}
	if t.WRK == "" && t.H2Load == "" {
		return "the load generator of bench"
	}
	return name(t.WRK, "-v", "bench's own for HTTP/1.1") + ", " + name(t.H2Load, "--version", "bench's own for HTTP/2")
}

// run does a job on a front of a peer.
func (t *Tools) run(ctx context.Context, front Front, j Job) (*Answer, error) {
	tool, parse := []string{t.Self, "load"}, parseAnswer
	switch {
	case j.HTTP2 && t.H2Load != "":
		log := filepath.Join(t.Dir, "h2load.log")
		_ = os.Remove(log) // it appends
		tool, parse = t.h2load(j, log), func(out string) (*Answer, error) { return parseH2Load(out, log) }
	case !j.HTTP2 && t.WRK != "":
		tool, parse = t.wrk(front, j), parseWRK
	default:
		text, err := json.Marshal(j)
		if err != nil {
			return nil, err
		}
		tool = append(tool, string(text))
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, tool[0], tool[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := startOn(cmd, t.Cores)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", filepath.Base(tool[0]), err, firstLine(out.Bytes()))
	}
	return parse(out.String())
}

// whole returns the seconds of a job as wrk and h2load take them.
func (j *Job) whole() string { return strconv.Itoa(int(math.Ceil(j.Seconds))) }

func (j *Job) url(scheme string) string { return scheme + "://" + j.Addr + j.path(0) }

func (t *Tools) wrk(front Front, j Job) []string {
	threads := min(len(t.Cores), j.Conns)
	a := []string{t.WRK, "-t" + strconv.Itoa(threads), "-c" + strconv.Itoa(j.Conns), "-d" + j.whole() + "s", "--timeout", "10s", "--latency"}
	if j.Close {
		a = append(a, "-H", "Connection: close")
	}
	a = append(a, j.fields()...)
	scheme := "http"
	if front == TLS {
		scheme = "https"
	}
	if j.Routes > 0 {
		return append(a, "-s", filepath.Join(t.Dir, "wrk.lua"), j.url(scheme), "--", strconv.Itoa(j.Routes))
	}
	return append(a, j.url(scheme))
}

func (t *Tools) h2load(j Job, log string) []string {
	threads := min(len(t.Cores), j.Conns)
	a := []string{t.H2Load, "-t" + strconv.Itoa(threads), "-c" + strconv.Itoa(j.Conns), "-m" + strconv.Itoa(j.Streams), "-D" + j.whole(), "--log-file=" + log}
	return append(append(a, j.fields()...), j.url("https"))
}

func (j *Job) fields() (args []string) {
	if j.Browser {
		for _, f := range browser {
			args = append(args, "-H", f[0]+": "+f[1])
		}
	}
	return args
}

var (
	wrkDone   = regexp.MustCompile(`(\d+) requests in ([\d.]+)(us|ms|s|m)`)
	wrkP99    = regexp.MustCompile(`(?m)^\s+99%\s+([\d.]+)(us|ms|s|m)`)
	wrkErrors = regexp.MustCompile(`Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)`)
	wrkStatus = regexp.MustCompile(`Non-2xx or 3xx responses: (\d+)`)
	h2Done    = regexp.MustCompile(`finished in ([\d.]+)(us|ms|s|m),`)
	h2Number  = regexp.MustCompile(`requests: \d+ total, \d+ started, \d+ done, (\d+) succeeded, (\d+) failed`)
)

// parseWRK reads what wrk --latency prints.
func parseWRK(out string) (*Answer, error) {
	done := wrkDone.FindStringSubmatch(out)
	if done == nil {
		return nil, errors.New("wrk: cannot read its output: " + firstLine([]byte(out)))
	}
	a := &Answer{Done: atoi(done[1]), Seconds: span(done[2], done[3]).Seconds()}
	if m := wrkP99.FindStringSubmatch(out); m != nil {
		a.P99 = span(m[1], m[2]).Seconds() * 1e3
	}
	if m := wrkErrors.FindStringSubmatch(out); m != nil {
		a.Failed += atoi(m[1]) + atoi(m[2]) + atoi(m[3]) + atoi(m[4])
	}
	if m := wrkStatus.FindStringSubmatch(out); m != nil {
		a.Failed += atoi(m[1])
		a.Done -= atoi(m[1])
	}
	return a, nil
}

// parseH2Load reads what h2load prints, and the log of requests that it has written.
func parseH2Load(out, log string) (*Answer, error) {
	done, n := h2Done.FindStringSubmatch(out), h2Number.FindStringSubmatch(out)
	if done == nil || n == nil {
		return nil, errors.New("h2load: cannot read its output: " + firstLine([]byte(out)))
	}
	a := &Answer{Done: atoi(n[1]), Failed: atoi(n[2]), Seconds: span(done[1], done[2]).Seconds()}
	f, err := os.Open(log)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	a.P99 = p99(parseH2Log(f))
	return a, nil
}

// parseH2Log reads lines of start, status and duration in microseconds.
func parseH2Log(r io.Reader) (took []time.Duration) {
	for s := bufio.NewScanner(r); s.Scan(); {
		if f := strings.Fields(s.Text()); len(f) == 3 && f[1] == "200" {
			took = append(took, time.Duration(atoi(f[2]))*time.Microsecond)
		}
	}
	return took
}

// parseAnswer reads what the load generator of this program prints.
func parseAnswer(out string) (*Answer, error) {
	a := new(Answer)
	if err := json.Unmarshal([]byte(out), a); err != nil {
		return nil, fmt.Errorf("bench load: %w", err)
	}
	return a, nil
}

func atoi(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}

// span reads a number with its unit, as wrk and h2load write them.
func span(n, unit string) time.Duration {
	f, _ := strconv.ParseFloat(n, 64)
	return time.Duration(f * float64(map[string]time.Duration{"us": time.Microsecond, "ms": time.Millisecond, "s": time.Second, "m": time.Minute}[unit]))
}
