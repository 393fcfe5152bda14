// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/balance/file"
	"github.com/penstock-lb/penstock/health"
	"github.com/penstock-lb/penstock/l4"
)

// drainTime is how long work in progress may take after ctx is done.
const drainTime = 10 * time.Second

// A server is what *l4.Server, *l4.UDPProxy, *l7.Server and *http.Server have in
// common.
type server interface {
	Shutdown(context.Context) error
	Close() error
}

// A front is a listener and what serves it.
type front struct {
	flag, addr string
	config     l4.ListenConfig
	server     server
	serve      func(net.Listener) error
	packets    func(net.PacketConn) error // instead of serve, for datagrams
	run        func() error               // serve, or packets, with what is listened on
	close      func() error               // stops listening
}

// Run serves until ctx is done, drains, and returns nil. It returns an error if
// it cannot start, or if a front fails. Ready, if not nil, is called with the
// address of each front, by flag, once all of them listen.
func Run(ctx context.Context, o *Options, ready func(addr map[string]string)) error {
	policy, _ := policyOf(o.Balance)
	pool := &balance.Pool{
		Name:   "servers",
		Policy: policy,
		// As many retries as there is other work: when one server of two dies,
		// half of all requests are to be tried again at once.
		Budget: balance.Budget{Share: 1},
	}
	var err error
	if o.secure, err = o.clientTLS(); err != nil {
		return err
	}
	checker := o.checker(pool)
	servers := o.Endpoints()
	if o.From != "" {
		if servers, err = o.file(); err != nil {
			return fmt.Errorf("-from: %w", err)
		}
	}
	if err := pool.Set(servers...); err != nil {
		return err
	}
	fronts := o.fronts(pool)
	listening := map[string]string{}
	for i := range fronts {
		f := &fronts[i]
		addr, err := f.listen(ctx)
		if err != nil {
			closeAll(fronts)
			return fmt.Errorf("%s: %w", f.flag, err)
		}
		listening[f.flag] = addr.String()
		slog.Info("listening", "front", f.flag, "addr", listening[f.flag])
	}
	if ready != nil {
		ready(listening)
	}
	var follow func(context.Context) error
	if o.From != "" {
		follow = func(ctx context.Context) error { return pool.Follow(ctx, &file.Source{Path: o.From, Edit: withScheme}) }
	}
	return run(ctx, fronts, checker, follow)
}

// listen opens the front's listener: of l4, whose connections cost the least,
// as they do with ListenAndServe.
func (f *front) listen(ctx context.Context) (net.Addr, error) {
	if f.packets != nil {
		pc, err := new(net.ListenConfig).ListenPacket(ctx, "udp", f.addr)
		if err != nil {
			return nil, err
		}
		f.run, f.close = func() error { return f.packets(pc) }, pc.Close
		return pc.LocalAddr(), nil
	}
	ln, err := f.config.Listen(ctx, "tcp", f.addr)
	if err != nil {
		return nil, err
	}
	f.run, f.close = func() error { return f.serve(ln) }, ln.Close
	return ln.Addr(), nil
}

// run starts the fronts, the checker and what follows the servers, the last two if there
// are any, and waits for ctx or the first failure.
func run(ctx context.Context, fronts []front, checker *health.Checker, follow func(context.Context) error) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var wg sync.WaitGroup
	if checker != nil {
		wg.Go(func() { fail(ctx, stop, checker.Run(ctx)) })
	}
	if follow != nil {
		wg.Go(func() { fail(ctx, stop, follow(ctx)) })
	}
	for _, f := range fronts {
		wg.Go(func() { fail(ctx, stop, f.run()) })
	}
	<-ctx.Done()
	err := context.Cause(ctx)
	if _, failed := errors.AsType[failure](err); !failed {
		err = nil
	}
	slog.Info("draining", "at most", drainTime)
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	for _, f := range fronts {
		wg.Go(func() {
			if f.server.Shutdown(drain) != nil {
				_ = f.server.Close() // whatever did not end in time
			}
		})
	}
	wg.Wait()
	return err
}

// A failure is why a part of the program ended unexpectedly.
type failure struct{ error }

func (f failure) Unwrap() error { return f.error }

// fail ends everything with err, unless it is ending anyway.
func fail(ctx context.Context, stop context.CancelCauseFunc, err error) {
	if ctx.Err() == nil {
		stop(failure{err})
	}
}

func closeAll(fronts []front) {
	for _, f := range fronts {
		if f.close != nil {
			_ = f.close()
		}
	}
}

// fronts returns what the flags ask for, over one pool.
func (o *Options) fronts(pool *balance.Pool) []front {
	all := o.httpFronts(pool)
	if o.TCP != "" {
		s := &l4.Server{Handler: &l4.Proxy{Pool: pool, IdleTimeout: o.Timeout, HalfClosedTimeout: o.Timeout}}
		all = append(all, front{flag: "-tcp", addr: o.TCP, server: s, serve: s.Serve})
	}
	if o.UDP != "" {
		s := &l4.UDPProxy{Pool: pool, IdleTimeout: o.Timeout}
		all = append(all, front{flag: "-udp", addr: o.UDP, server: s, packets: s.Serve})
	}
	return all
}

// checker returns nil if there are to be no checks. It listens to the traffic
// as well: connections that fail one after another count as a failed check.
func (o *Options) checker(pool *balance.Pool) *health.Checker {
	if o.CheckInterval == 0 {
		return nil
	}
	c := &health.Checker{
		Pools:    []*balance.Pool{pool},
		Interval: o.CheckInterval,
		Fast:     min(o.CheckInterval, 500*time.Millisecond),
		Observe:  health.Observe{Classify: health.Layer4},
	}
	if o.CheckPath != "" {
		c.Probe = probes{o.CheckPath, o.secure}
	}
	pool.OnOutcome = append(pool.OnOutcome, c.Observed)
	return c
}
