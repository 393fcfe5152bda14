// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// take takes what was passed to this process, once; r.mu is held.
func (r *Restart) take() {
	if r.taken {
		return
	}
	r.taken = true
	p := passedBy(os.Getenv, os.Getpid(), os.Getppid())
	for _, name := range []string{envParent, envPID, envFDs, envFDNames} {
		_ = os.Unsetenv(name) // they are not for programs that this one starts
	}
	for i := range p.n {
		f := passedFile(firstFD + i)
		in := inherited{file: f, unit: !p.parent}
		ln, err := net.FileListener(f)
		if err == nil {
			in.addr = ln.Addr()
		} else if pc, perr := net.FilePacketConn(f); perr == nil {
			in.addr, in.packet = pc.LocalAddr(), true
			_ = pc.Close()
		} else { // nothing that serves
			_ = f.Close()
			continue
		}
		if i < len(p.names) {
			in.name = p.names[i]
		}
		if u, ok := ln.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false)
		}
		if ln != nil {
			_ = ln.Close()
		}
		r.inherited = append(r.inherited, in)
	}
	if p.parent {
		r.parent = passedFile(firstFD + p.n)
	}
}

func passedFile(fd int) *os.File {
	syscall.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), "passed "+strconv.Itoa(fd))
}

// HandOver starts the next program, passes it all open sockets that Listen and
// ListenPacket have returned, and waits until it announces that it serves
// ([Restart.Ready]). From then on the next program accepts the connections: Accept of the
// listeners here returns no more of them and waits until they are closed, so a Server
// that serves them is not disturbed until it is shut down. If the next program ends
// before it is ready, or ctx ends, in which case it is killed, HandOver returns an error,
// and this program still serves. HandOver may then be tried again.
//
// The next program gets our environment, working directory and standard streams. For
// systemd it is the main process from then on (MAINPID).
//
// Listeners that Listen has not returned cannot be passed.
func (r *Restart) HandOver(ctx context.Context) error {
	r.mu.Lock()
	busy := r.busy
	r.busy = true
	listeners, packets := slices.Clone(r.listeners), slices.Clone(r.packets)
	r.mu.Unlock()
	if busy {
		return ErrHandedOver
	}
	pid, err := r.start(ctx, listeners, packets)
	if err != nil {
		r.mu.Lock()
		r.busy = false
		r.mu.Unlock()
		return fmt.Errorf("l4: hand over: %w", err)
	}
	for _, ln := range listeners {
		ln.(*listener).handOff()
	}
	for _, c := range packets {
		c.handOff()
	}
	_ = r.Notify("MAINPID=" + strconv.Itoa(pid)) // which it has said itself, but may not be allowed to
	return nil
}

// start starts the next program and waits until it serves.
func (r *Restart) start(ctx context.Context, listeners []net.Listener, packets []*sharedPacketConn) (pid int, err error) {
	args := r.Args
	if len(args) == 0 {
		args = os.Args
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	defer func() {
		for _, f := range cmd.ExtraFiles {
			_ = f.Close()
		}
	}()
	if cmd.ExtraFiles, err = filesOf(listeners, packets); err != nil {
		return 0, err
	}
	heard, tell, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer heard.Close()
	cmd.Env = append(nextEnv(os.Environ()), fmt.Sprintf("%s=%d,%d", envParent, os.Getpid(), len(cmd.ExtraFiles)))
	cmd.ExtraFiles = append(cmd.ExtraFiles, tell)
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	_ = tell.Close() // so that its end is seen
	stop := context.AfterFunc(ctx, func() { _ = heard.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err = heard.Read(make([]byte, 1)); err == nil {
		return cmd.Process.Pid, cmd.Process.Release()
	}
	late := context.Cause(ctx)
	if late != nil {
		_ = cmd.Process.Kill()
	}
	err = cmd.Wait()
	if late != nil {
		return 0, late
	}
	return 0, fmt.Errorf("the next program has ended before it was ready: %v", err)
}

// filesOf returns copies of the sockets that are not closed.
func filesOf(listeners []net.Listener, packets []*sharedPacketConn) (files []*os.File, err error) {
	add := func(f *os.File, ferr error) {
		switch {
		case ferr == nil:
			files = append(files, f)
		case !errors.Is(ferr, net.ErrClosed):
			err = ferr
		}
	}
	for _, ln := range listeners {
		add(ln.(*listener).File())
	}
	for _, c := range packets {
		add(c.file())
	}
	return files, err
}

// file returns a copy of the socket's descriptor. That of [net.UDPConn.File] would make
// the socket block as soon as it is passed on, here too: no deadline ends a read then.
func (c *sharedPacketConn) file() (f *os.File, err error) {
	raw, err := c.udp.SyscallConn()
	if err != nil {
		return nil, err
	}
	cerr := raw.Control(func(fd uintptr) {
		var n int
		if n, err = dupCloseOnExec(int(fd)); err == nil {
			f = os.NewFile(uintptr(n), c.udp.LocalAddr().String())
		}
	})
	return f, cmp.Or(cerr, err)
}

// nextEnv is env without what was meant for this process.
func nextEnv(env []string) []string {
	var next []string
	for _, e := range env {
		switch name, _, _ := strings.Cut(e, "="); name {
		case envParent, envPID, envFDs, envFDNames, "WATCHDOG_PID":
		default:
			next = append(next, e)
		}
	}
	return next
}

// keepPath leaves the path of a Unix socket in place when ln is closed.
func keepPath(ln net.Listener) {
	if l, ok := ln.(*listener); ok {
		l.shared.Store(true)
	}
}

// handOff has Accept return nothing more: another process accepts from now on.
func (l *listener) handOff() {
	l.shared.Store(true)
	l.handed.Store(true)
	_ = l.file.SetReadDeadline(time.Unix(1, 0))
}
