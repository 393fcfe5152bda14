// SPDX-License-Identifier: Apache-2.0

package health

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/balance"
)

// Exec runs a command and passes if its exit status is 0. It is for what only a program
// can find out; where there is a probe in Go, that costs far less.
//
// The command is run without a shell. In Args, and in its environment, it is told of
// whom it is asked:
//
//	{name}  PENSTOCK_SERVER_NAME   name
//	{addr}  PENSTOCK_SERVER_ADDR   "host:port" or "unix:/path"
//	{host}  PENSTOCK_SERVER_HOST   host of the address; empty for a unix socket
//	{port}  PENSTOCK_SERVER_PORT   port of the address; empty for a unix socket
//
// The reason of a failure is the first line that the command has written, to its
// output or as an error. At the end of the time it is killed, on Unix with all processes
// that it has begun.
//
// Source: HAProxy, external-check.
type Exec struct {
	Path string   // of the program, or its name if it is in PATH
	Args []string // without the name of the program
	Dir  string   // to run in; empty means that of this process
	Env  []string // NAME=value; nil means that of this process

	Timeout time.Duration // beside that of the context; 0 means 10s, negative means none
	Stop    int           // exit status that means CodeStopping; 0, that of a pass, stands for none
}

// maxOutput bounds what is kept of the output of a command.
const maxOutput = 4 << 10

// leftovers is how long a command that has ended, or was killed, may keep its output open
// by processes that it has left behind.
const leftovers = 100 * time.Millisecond

// Check returns what is wrong with x. It looks for the program.
func (x Exec) Check() error {
	var m penstock.Mistakes
	if m.If(x.Path == "", "Exec.Path", x.Path, "must be the program to run"); x.Path != "" {
		_, err := exec.LookPath(x.Path)
		m.If(err != nil, "Exec.Path", x.Path, fmt.Sprint("must be a program: ", err))
	}
	if x.Dir != "" {
		info, err := os.Stat(x.Dir)
		m.If(err != nil || !info.IsDir(), "Exec.Dir", x.Dir, "must be a directory that is there")
	}
	for i, arg := range x.Args {
		m.If(strings.Contains(arg, "\x00"), fmt.Sprintf("Exec.Args[%d]", i), arg, "must have no NUL: arguments of programs cannot")
	}
	for i, env := range x.Env {
		name, _, ok := strings.Cut(env, "=")
		m.If(!ok || name == "" || strings.Contains(env, "\x00"), fmt.Sprintf("Exec.Env[%d]", i), env, "must be NAME=value")
	}
	m.If(x.Stop < 0 || x.Stop > 255, "Exec.Stop", x.Stop, "must be an exit status, or 0 for none")
	return m.Err()
}

// Probe runs the command.
func (x Exec) Probe(ctx context.Context, e balance.Endpoint) error {
	if t := or(x.Timeout, 10*time.Second); t > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t)
		defer cancel()
	}
	s := sessionOf(ctx)
	s.step = x.Path[strings.LastIndexByte(x.Path, '/')+1:]
	cmd := x.command(ctx, e)
	out := &firstBytes{left: maxOutput}
	cmd.Stdout, cmd.Stderr = out, out // one writer: the command gets one pipe for both
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) { // it succeeded, but left a process running
		_ = killAll(cmd)
		err = nil
	}
	exit, ended := errors.AsType[*exec.ExitError](err)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return s.fail(err)
	case !ended: // it could not be run
		return &Error{Code: CodeInternal, Step: s.step, Text: printable(err.Error()), Err: err}
	}
	code, text := CodeStatus, exit.String()
	if x.Stop != 0 && exit.ExitCode() == x.Stop {
		code = CodeStopping
	}
	if line, _, _ := bytes.Cut(bytes.TrimSpace(out.b), []byte("\n")); len(line) > 0 {
		text = printable(string(line))
	}
	return &Error{Code: code, Step: s.step, Text: text, Err: err}
}

// command makes the command for e.
func (x *Exec) command(ctx context.Context, e balance.Endpoint) *exec.Cmd {
	host, port, _ := net.SplitHostPort(e.Addr)
	name := e.Name
	if name == "" {
		name = e.Addr
	}
	words := strings.NewReplacer("{name}", name, "{addr}", e.Addr, "{host}", host, "{port}", port)
	args := make([]string, len(x.Args))
	for i, a := range x.Args {
		args[i] = words.Replace(a)
	}
	cmd := exec.CommandContext(ctx, x.Path, args...)
	cmd.Dir, cmd.Env = x.Dir, x.Env
	if x.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env[:len(cmd.Env):len(cmd.Env)], "PENSTOCK_SERVER_NAME="+name, "PENSTOCK_SERVER_ADDR="+e.Addr,
		"PENSTOCK_SERVER_HOST="+host, "PENSTOCK_SERVER_PORT="+port)
	cmd.WaitDelay = leftovers
	group(cmd)
	cmd.Cancel = func() error { return killAll(cmd) }
	return cmd
}

// firstBytes keeps the beginning of what is written.
type firstBytes struct {
	b    []byte
	left int
}

func (f *firstBytes) Write(p []byte) (int, error) {
	kept := p[:min(len(p), f.left)]
	f.b, f.left = append(f.b, kept...), f.left-len(kept)
	return len(p), nil
}
