// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A Restart replaces a running program by a new one without losing a connection: both
// have the same listening sockets for a while, so that the kernel refuses no client. The
// code is the same whether a socket comes from the previous program, from systemd (socket
// activation, sd_listen_fds(3)), or is made now:
//
//	restart := new(l4.Restart)
//	ln, err := restart.Listen(ctx, &l4.ListenConfig{}, "tcp", ":443")
//	go server.Serve(ln)
//	err = restart.Ready() // the program before this one may go
//	...
//	err = restart.HandOver(ctx) // starts the next one; after it:
//	err = server.Shutdown(ctx)
//
// A program takes its share of new connections from Serve on, and not from Ready. Where
// its pools have no server before the first health checks (Unproven of a balance.Pool), it
// calls Serve after them (balance.Pool.Watch, Usable); until then all connections go to the
// previous one.
//
// Connections stay with the program that accepted them; LameDuck of [Server] and of
// l7.Server lets them end without a loss.
//
// The zero value is ready to use, and must not be copied after first use. A program has
// one Restart. It takes the sockets that were passed to the program, and removes the
// variables that describe them from the environment. All methods may be called at once.
// Sockets are passed on Linux only: elsewhere Listen is [ListenConfig.Listen], and
// HandOver returns [errors.ErrUnsupported].
type Restart struct {
	Args []string // of the next program, the first is what to run; empty means os.Args

	mu        sync.Mutex
	taken     bool
	inherited []inherited // not yet used by Listen
	parent    *os.File    // waits for a byte; nil if there is no parent, or it has been told
	listeners []net.Listener
	packets   []*sharedPacketConn
	busy      bool // HandOver is under way, or has succeeded
}

// inherited is a socket that was passed to this process.
type inherited struct {
	file   *os.File
	addr   net.Addr
	packet bool   // of datagrams; else it listens
	name   string // FileDescriptorName of systemd
	unit   bool   // of systemd, which keeps it: the path of a Unix socket stays
}

// ErrHandedOver is returned by HandOver if another call has succeeded, or is in progress.
var ErrHandedOver = errors.New("l4: handed over already")

// Environment variables. Those of systemd name the process they are for; ours
// names the parent, since a program cannot know the id of one that it will start.
const (
	envParent  = "PENSTOCK_PARENT" // pid of the parent, and how many sockets it passes; the descriptor behind them is to be told
	envPID     = "LISTEN_PID"
	envFDs     = "LISTEN_FDS"
	envFDNames = "LISTEN_FDNAMES"
	envNotify  = "NOTIFY_SOCKET"
)

// firstFD is the first descriptor that is passed, SD_LISTEN_FDS_START.
const firstFD = 3

// passed says which descriptors the environment says were passed to this process.
type passed struct {
	n      int
	names  []string
	parent bool // passed by a Restart, with one more descriptor after them
}

// passedBy reads the environment of process pid, whose parent is ppid.
func passedBy(getenv func(string) string, pid, ppid int) (p passed) {
	if who, n, ok := strings.Cut(getenv(envParent), ","); ok && who == strconv.Itoa(ppid) {
		p.n, _ = strconv.Atoi(n)
		p.parent = true
	} else if getenv(envPID) == strconv.Itoa(pid) {
		p.n, _ = strconv.Atoi(getenv(envFDs))
		p.names = strings.Split(getenv(envFDNames), ":")
	}
	p.n = max(p.n, 0)
	return p
}

// Listen returns a listener on the socket that was passed to this process for network and
// addr, or else makes one as [ListenConfig.Listen] does; a nil lc means the zero
// ListenConfig. A passed socket is found by its address, where port 0 matches any, or by
// the FileDescriptorName that systemd gave it. Its options stay as they are. Each is
// found only once.
func (r *Restart) Listen(ctx context.Context, lc *ListenConfig, network, addr string) (net.Listener, error) {
	lc = cmp.Or(lc, new(ListenConfig))
	ln, err := r.inherit(lc, network, addr)
	if ln == nil && err == nil {
		ln, err = lc.Listen(ctx, network, addr)
	}
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.listeners = append(r.listeners, ln)
	return ln, nil
}

// inherit returns nil if no such socket was passed.
func (r *Restart) inherit(lc *ListenConfig, network, addr string) (net.Listener, error) {
	if err := lc.Check(); err != nil {
		return nil, err
	}
	in, ok := r.claim(network, addr)
	if !ok {
		return nil, nil
	}
	defer in.file.Close()
	ln, err := lc.FileListener(in.file)
	if err == nil && in.unit {
		keepPath(ln)
	}
	return ln, err
}

// claim takes the socket that was passed for network and addr, if there is one.
func (r *Restart) claim(network, addr string) (in inherited, ok bool) {
	want, _ := resolve(network, addr) // nil if it is a name
	packet := strings.HasPrefix(network, "udp")
	r.mu.Lock()
	defer r.mu.Unlock()
	r.take()
	i := slices.IndexFunc(r.inherited, func(in inherited) bool {
		return in.packet == packet && (in.name != "" && in.name == addr || want != nil && sameAddress(network, want, in.addr))
	})
	if i < 0 {
		return in, false
	}
	in = r.inherited[i]
	r.inherited = slices.Delete(r.inherited, i, i+1)
	return in, true
}

// ListenPacket is Listen for datagrams: it returns the socket that was passed to this
// process for network ("udp", "udp4" or "udp6") and addr, or else makes one. After
// HandOver the next program reads the datagrams: reads of the socket returned here wait
// until it is closed, and writes still work. So a [UDPProxy] that is shut down then still
// relays the replies to what it has forwarded, until its flows have ended; what their
// clients send meanwhile begins flows in the next program.
func (r *Restart) ListenPacket(ctx context.Context, network, addr string) (net.PacketConn, error) {
	if !strings.HasPrefix(network, "udp") {
		return nil, net.UnknownNetworkError(network)
	}
	pc, err := r.listenPacket(ctx, network, addr)
	if err != nil {
		return nil, fmt.Errorf("l4: listen: %w", err)
	}
	c := newSharedPacketConn(pc.(*net.UDPConn))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.packets = append(r.packets, c)
	return c, nil
}

func (r *Restart) listenPacket(ctx context.Context, network, addr string) (net.PacketConn, error) {
	if in, ok := r.claim(network, addr); ok {
		defer in.file.Close()
		return net.FilePacketConn(in.file)
	}
	return new(net.ListenConfig).ListenPacket(ctx, network, addr)
}

func resolve(network, addr string) (net.Addr, error) {
	switch {
	case network == "unix":
		return net.ResolveUnixAddr(network, addr)
	case strings.HasPrefix(network, "udp"):
		return net.ResolveUDPAddr(network, addr)
	}
	return net.ResolveTCPAddr(network, addr)
}

// sameAddress reports whether a socket that listens at has is what a listener
// on want would be.
func sameAddress(network string, want, has net.Addr) bool {
	if w, ok := want.(*net.UDPAddr); ok {
		h, ok := has.(*net.UDPAddr)
		return ok && sameAddress("tcp"+network[len("udp"):], (*net.TCPAddr)(w), (*net.TCPAddr)(h))
	}
	if w, ok := want.(*net.TCPAddr); ok {
		h, ok := has.(*net.TCPAddr)
		if !ok || w.Port != 0 && w.Port != h.Port {
			return false
		}
		if any := h.IP.IsUnspecified() || h.IP == nil; any || w.IP == nil || w.IP.IsUnspecified() {
			four := h.IP.To4() != nil
			return any && (w.IP == nil || w.IP.IsUnspecified()) && (network != "tcp4" || four) && (network != "tcp6" || !four)
		}
		return w.IP.Equal(h.IP) && w.Zone == h.Zone
	}
	w, ok := want.(*net.UnixAddr)
	h, is := has.(*net.UnixAddr)
	return ok && is && w.Name == h.Name
}

// Ready announces that this program serves: to the previous one, whose HandOver then
// returns, and to systemd (Type=notify). It closes passed sockets that no Listen has
// used. Without a previous program and without systemd it does nothing.
func (r *Restart) Ready() error {
	r.mu.Lock()
	r.take()
	parent, unclaimed := r.parent, r.inherited
	r.parent, r.inherited = nil, nil
	r.mu.Unlock()
	for _, in := range unclaimed {
		_ = in.file.Close()
	}
	if parent != nil {
		_, _ = parent.Write([]byte{1}) // if it is gone already, that is as well
		_ = parent.Close()
	}
	return r.Notify("READY=1\nMAINPID=" + strconv.Itoa(os.Getpid()))
}

// Notify tells systemd the state of this program, lines of NAME=value as
// sd_notify(3) has them. Without systemd it does nothing.
func (r *Restart) Notify(state string) error {
	name := os.Getenv(envNotify)
	if name == "" {
		return nil
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("l4: notify: %w", err)
	}
	defer c.Close()
	_, err = c.Write([]byte(state))
	return err
}

// Watchdog tells systemd twice per WatchdogSec that this program is alive, while alive
// returns nil, until ctx ends. The context of alive ends when the next call is due. A nil
// alive always counts as alive. Watchdog returns the error of ctx, or nil at once if
// systemd does not watch this program.
func (r *Restart) Watchdog(ctx context.Context, alive func(context.Context) error) error {
	every := watchdogEvery(os.Getenv, os.Getpid())
	if every <= 0 {
		return nil
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if r.alive(ctx, every, alive) {
			_ = r.Notify("WATCHDOG=1") // if it is lost, the next one is in time
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (r *Restart) alive(ctx context.Context, within time.Duration, alive func(context.Context) error) bool {
	if alive == nil {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	err := errors.New("l4: panic")
	guard(nil, "alive", func() { err = alive(ctx) })
	return err == nil
}

// watchdogEvery is half of what sd_watchdog_enabled(3) says; 0 means never.
func watchdogEvery(getenv func(string) string, pid int) time.Duration {
	if id := getenv("WATCHDOG_PID"); id != "" && id != strconv.Itoa(pid) {
		return 0
	}
	us, _ := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64)
	if us <= 0 || us > int64(24*time.Hour/time.Microsecond) {
		return 0
	}
	return time.Duration(us) * time.Microsecond / 2
}
