// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"time"
)

// A Bench measures. Peers run on the last processors, load and origin on the others.
type Bench struct {
	Peers   []*Installed
	Modes   []string // names
	Works   []string // names of scenarios; empty means those of the mode
	Short   bool     // of sizes the first only
	Rounds  int
	Sized   int     // rounds of modes with sizes
	Seconds float64 // of a round
	Idle    int     // connections of mode "idle"
	Tools   *Tools
	Origin  string // path of nginx; empty means this program
	Dir     string // for configurations
	CPUs    []int  // all that there are
	Record  *Record
	Folder  string    // the report is written here after each mode, so that what is done is not lost
	Out     io.Writer // gets a line for each result

	cert, key, both string
}

// Run does all modes.
func (b *Bench) Run(ctx context.Context) error {
	var err error
	if b.cert, b.key, b.both, err = writeCert(b.Dir); err != nil {
		return err
	}
	for _, m := range modes {
		if !slices.Contains(b.Modes, m.Name) {
			continue
		}
		fmt.Fprintf(b.Out, "%s\n", m.Title)
		switch {
		case m.Name == "idle":
			err = b.idle(ctx)
		case m.Of == "":
			works := b.Works
			if len(works) == 0 {
				for _, s := range scenarios {
					works = append(works, s.Name)
				}
			}
			err = b.stage(ctx, m, 0, works)
		default:
			for i, size := range m.Sizes {
				if b.Short && i > 0 {
					break
				}
				if err = b.stage(ctx, m, size, m.Works); err != nil {
					break
				}
			}
		}
		if err != nil {
			return fmt.Errorf("%s: %w", m.Name, err)
		}
		if err := b.Record.draw(b.Folder); err != nil {
			return err
		}
	}
	return nil
}

// split says which processors the peers have, and which load and origin. Where none is
// left for load, it shares those of the peers.
func split(cpus []int, cores int) (peers, load []int) {
	cores = min(cores, len(cpus))
	if load = cpus[:len(cpus)-cores]; len(load) == 0 {
		load = cpus
	}
	return cpus[len(cpus)-cores:], load
}

// stage starts origin and peers as the mode wants them, does the scenarios, and stops
// them again.
func (b *Bench) stage(ctx context.Context, m Mode, size int, works []string) error {
	s := Setup{Cores: 1, Conns: 2000, Idle: 512, Cert: b.cert, Key: b.key, Both: b.both}
	servers, need := 2, 0
	seconds := b.Seconds
	load := func(l *Load) {}
	switch m.Name {
	case "connections":
		s.Conns, s.Idle, need = max(s.Conns, size+100), max(s.Idle, size), 2*size+500
		seconds *= float64(1 + size/4500) // to connect is to be a small part of it
		load = func(l *Load) { l.Conns = size }
	case "servers":
		servers, s.Idle, need = size, max(s.Idle, size), size+500
		seconds *= float64(1 + size/5000)
	case "routes":
		s.Routes = size
		seconds *= float64(1 + size/5000)
		load = func(l *Load) { l.Routes = size }
	case "cores":
		if s.Cores = size; size > len(b.CPUs) {
			b.skip("%d processors: there are %d", size, len(b.CPUs))
			return nil
		}
	}
	if have := descriptors(); need > have {
		b.skip("%d %s: needs %d descriptors, ulimit -n says %d", size, m.Of, need, have)
		return nil
	}
	on, off := split(b.CPUs, s.Cores)
	b.Tools.Cores = off
	origin, err := b.origin(ctx, &s, servers, off)
	if err != nil {
		return err
	}
	defer origin.stop()
	var running []*Process
	defer func() {
		for _, p := range running {
			p.stop()
		}
	}()
	for _, in := range b.Peers {
		p, err := in.start(ctx, s, b.Dir, on)
		if err != nil {
			b.skip("%s with %d %s: %v", in.Name, size, m.Of, err)
			continue
		}
		running = append(running, p)
	}
	for _, name := range works {
		w, ok := scenario(name)
		if !ok {
			return fmt.Errorf("no scenario %q", name)
		}
		load(&w.Load)
		if err := b.measure(ctx, m.Name, size, w, running, seconds); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// skip notes what is not measured. A run of many minutes goes on without it.
func (b *Bench) skip(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	fmt.Fprintln(b.Out, "  not measured: "+text)
	b.Record.Skipped = append(b.Record.Skipped, text)
}

// origin starts what answers at n servers, and sets their addresses.
func (b *Bench) origin(ctx context.Context, s *Setup, n int, cpus []int) (*Process, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.Servers = serverAddrs(n, ln.Addr().(*net.TCPAddr).Port)
	if err := ln.Close(); err != nil {
		return nil, err
	}
	return startOrigin(ctx, *s, b.Dir, b.Origin, b.Tools.Self, n > 2, cpus)
}

// A round is what a peer did in one.
type round struct{ cpu, rate, p99 float64 }

// measure lets the peers do the scenario by turns. The first round is to warm up.
func (b *Bench) measure(ctx context.Context, mode string, size int, w Scenario, all []*Process, seconds float64) error {
	all = slices.DeleteFunc(slices.Clone(all), func(p *Process) bool { return p.addr(w.Front) == "" })
	rounds, failed, out := make([][]round, len(all)), make([]int, len(all)), make([]bool, len(all))
	times := b.Rounds
	if size > 0 {
		times = b.Sized
	}
	for n := range times + 1 {
		for i := range all {
			if n%2 == 1 { // the other way round, so that none is always after the same
				i = len(all) - 1 - i
			}
			if out[i] {
				continue
			}
			j := Job{Load: w.Load, Addr: all[i].addr(w.Front), Seconds: seconds}
			if w.Front == TLS {
				j.Cert = b.cert
			}
			before := cpuTime(all[i].pid())
			a, err := b.Tools.run(ctx, w.Front, j)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err == nil && a.Done == 0 {
				err = fmt.Errorf("no reply in %.1f s, %d failed", a.Seconds, a.Failed)
			}
			if out[i] = err != nil; out[i] {
				b.skip("%s %s %s: %v", all[i].Peer.Name, w.Name, sizeText(size), err)
				continue
			}
			cpu := cpuTime(all[i].pid()) - before
			failed[i] += a.Failed
			if n > 0 {
				rounds[i] = append(rounds[i], round{cpu.Seconds() * 1e6 / float64(a.Done), float64(a.Done) / a.Seconds, a.P99})
			}
		}
	}
	for i, p := range all {
		if out[i] {
			continue
		}
		r := summary(rounds[i])
		r.Mode, r.Size, r.Scenario, r.Peer, r.Failed = mode, size, w.Name, p.Peer.Name, failed[i]
		r.Memory = float64(memory(p.pid()))
		b.Record.Results = append(b.Record.Results, r)
		fmt.Fprintf(b.Out, "  %-12s %6s  %-9s %8s µs/%s  %9.0f/s  p99 %7s ms  %6.1f MiB%s\n",
			w.Name, sizeText(size), p.Peer.Name, number3(r.CPU), w.Unit, r.Rate, number3(r.P99), r.Memory/(1<<20), failures(failed[i]))
	}
	return nil
}

func sizeText(size int) string {
	if size == 0 {
		return ""
	}
	return fmt.Sprint(size)
}

func failures(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(" (%d failed)", n)
}

// summary takes the medians of the rounds of a peer.
func summary(rounds []round) (r Result) {
	var cpu, rate, late []float64
	for _, x := range rounds {
		cpu, rate, late = append(cpu, x.cpu), append(rate, x.rate), append(late, x.p99)
	}
	r.CPU, r.Rate, r.P99 = median(cpu), median(rate), median(late)
	r.Low, r.High = slices.Min(cpu), slices.Max(cpu)
	return r
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// idle measures what a connection costs that waits for its next request.
func (b *Bench) idle(ctx context.Context) error {
	s := Setup{Cores: 1, Conns: b.Idle + 100, Idle: 512, Cert: b.cert, Key: b.key, Both: b.both}
	on, off := split(b.CPUs, 1)
	origin, err := b.origin(ctx, &s, 2, off)
	if err != nil {
		return err
	}
	defer origin.stop()
	for _, front := range []Front{HTTP, TLS} {
		for _, in := range b.Peers {
			p, err := in.start(ctx, s, b.Dir, on)
			if err != nil {
				b.skip("%s idle: %v", in.Name, err)
				continue
			}
			r, err := b.idleOf(p, front)
			p.stop()
			if err != nil {
				b.skip("%s idle %s: %v", in.Name, front, err)
				continue
			}
			b.Record.Results = append(b.Record.Results, *r)
			fmt.Fprintf(b.Out, "  %-12s %6s  %-9s %8.1f KiB each, %.1f MiB without\n", r.Scenario, "", in.Name, r.Memory/1024, r.Base/(1<<20))
		}
	}
	return nil
}

func (b *Bench) idleOf(p *Process, front Front) (*Result, error) {
	j := Job{Addr: p.addr(front)}
	if front == TLS {
		j.Cert = b.cert
	}
	secure, err := j.secure()
	if err != nil {
		return nil, err
	}
	before := memory(p.pid())
	var open []net.Conn
	defer func() {
		for _, c := range open {
			_ = c.Close()
		}
	}()
	for range b.Idle {
		c, err := net.DialTimeout("tcp", j.Addr, 5*time.Second)
		if err != nil {
			return nil, err
		}
		if secure != nil {
			c = tls.Client(c, secure)
		}
		open = append(open, c)
		if err := once(c, j.Addr); err != nil {
			return nil, err
		}
	}
	time.Sleep(time.Duration(3 * b.Seconds * float64(time.Second))) // a peer may give memory back
	return &Result{
		Mode: "idle", Scenario: string(front) + "-idle", Peer: p.Peer.Name,
		Memory: float64(memory(p.pid())-before) / float64(b.Idle), Base: float64(before),
	}, nil
}

// once sends a request on c and reads its reply.
func once(c net.Conn, addr string) error {
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, "GET /small HTTP/1.1\r\nHost: "+addr+"\r\n\r\n"); err != nil {
		return err
	}
	reply := make([]byte, 4096)
	n, err := c.Read(reply)
	if err != nil {
		return err
	}
	if code := string(reply[:min(n, 12)]); code != fmt.Sprintf("HTTP/1.1 %d", http.StatusOK) {
		return errors.New("answers " + code)
	}
	return nil
}

// serveOrigin answers at all addresses until it fails, to clients on this host alone.
func serveOrigin(addrs []string) error {
	small, large := []byte(new(Setup).Small()), make([]byte, 64<<10)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		body := small
		switch {
		case !net.ParseIP(host).IsLoopback():
			http.Error(w, "not from here", http.StatusForbidden)
			return
		case r.URL.Path == "/64k":
			body = large
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		_, _ = w.Write(body)
	})
	failed := make(chan error)
	for _, a := range addrs {
		go func() { failed <- http.ListenAndServe(a, h) }()
	}
	return <-failed
}
