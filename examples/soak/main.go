// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Soak runs all of penstock for hours, in real time: two gateways, the servers behind
// them, clients of HTTP/1, HTTP/2, TLS, gRPC, WebSocket, TCP and UDP; limits,
// persistence, discovery, health checks, the admin page and an access log. Servers go
// down, stall, refuse and break off, clients leave and read slowly, the disk is full, one
// gateway is restarted hot and killed. It ends with status 1 at the first promise that is
// broken:
//
//   - a client gets its own bytes, and they are whole, or it sees that they are cut;
//   - so do servers, and none gets a request twice that may not be repeated;
//   - no request that may be repeated is lost while a server is well;
//   - every request ends, no limit is exceeded, and a client keeps the server of its cookie;
//   - after each round, and in the end, no lease is held, no request waits, no connection
//     or goroutine is left; memory, descriptors and goroutines do not grow.
//
// The same in virtual time, for a gateway of your own, is l7/chaostest.
//
//	go run ./examples/soak -for 2h
//	go run -race ./examples/soak -for 10m -rate 50 -seed 7
//
// A round is some disorder, then a calm in which it is measured. The seed draws what
// happens when; how it interleaves is the machine's.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/penstock-lb/penstock/l4/l4test"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "gateway" {
		if err := runGateway(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, "fault:", err)
			os.Exit(1)
		}
		return
	}
	var o Options
	flag.DurationVar(&o.For, "for", time.Minute, "how long")
	flag.DurationVar(&o.Round, "round", 0, "length of a `ROUND`; 0 means a minute, and a quarter of -for at most")
	flag.Float64Var(&o.Rate, "rate", 100, "requests a second, in all")
	flag.Uint64Var(&o.Seed, "seed", 0, "0 means a random one")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := Run(ctx, o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

// Options say how to soak.
type Options struct {
	For   time.Duration // in all, without the calms
	Round time.Duration // 0 means a minute, and a quarter of For at most
	Rate  float64       // of requests a second, of all clients
	Seed  uint64        // 0 means at random
}

// A soak is a run.
type soak struct {
	Options
	l       *ledger
	out     io.Writer
	dir     string
	cert    tls.Certificate
	roots   *x509.CertPool
	servers []*server
	gates   []*gate
	crowd   *crowd
	lasting []measure // of the gateway that lasts, of each round
}

// Run soaks until the time is up, ctx ends, or something is wrong.
func Run(ctx context.Context, o Options, out io.Writer) error {
	if o.Seed == 0 {
		o.Seed = rand.Uint64()
	}
	if o.Round == 0 {
		o.Round = min(time.Minute, o.For/4)
	}
	dir, err := os.MkdirTemp("", "soak-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	s := &soak{Options: o, l: newLedger(o.Seed, stop), out: out, dir: dir}
	fmt.Fprintf(out, "seed %d, %v in rounds of %v, %g requests a second\n", o.Seed, o.For, o.Round, o.Rate)
	if err := s.prepare(); err != nil {
		return err
	}
	err = s.rounds(ctx)
	if _, broken := errors.AsType[*fault](context.Cause(ctx)); broken {
		err = context.Cause(ctx)
	}
	if err == nil {
		err = s.finish(ctx)
	}
	s.kill()
	s.l.table(out)
	if err != nil {
		s.l.tell(out, err)
		return err
	}
	fmt.Fprintln(out, "all promises were kept")
	return nil
}

// prepare starts servers and gateways. Each soak has loopback addresses of its own: none
// of its ports can be another program's.
func (s *soak) prepare() error {
	if err := adopt(); err != nil {
		return err
	}
	host := func(n int) string { return fmt.Sprintf("127.%d.%d.%d", 100+os.Getpid()>>8&127, os.Getpid()&255, n) }
	if err := s.certify(); err != nil {
		return err
	}
	first := &storm{l: s.l, file: s.file("servers")}
	for i := range servers {
		srv := newServer(s.l, host(10+i), &tls.Config{Certificates: []tls.Certificate{s.cert}})
		if err := srv.up(); err != nil {
			return err
		}
		s.servers = append(s.servers, srv)
	}
	first.servers = s.servers
	if err := first.list(); err != nil {
		return err
	}
	for i, name := range []string{"lasting", "renewed"} {
		g, err := newGate(s.l, s.dir, name, config{Host: host(1 + i), Servers: first.file, CA: s.file("ca.pem"), Cert: s.file("cert.pem"), Key: s.file("key.pem")})
		if err == nil {
			s.gates = append(s.gates, g)
			err = g.start()
		}
		if err != nil {
			s.kill()
			return err
		}
	}
	s.crowd = newCrowd(s.l, s.gates, &tls.Config{RootCAs: s.roots, ServerName: site})
	return nil
}

func (s *soak) file(name string) string { return filepath.Join(s.dir, name) }

// site is the name in the certificate of gateways and servers.
const site = "soak.test"

// certify makes the certificate, and writes it for the gateways.
func (s *soak) certify() error {
	authority := l4test.NewAuthority("soak")
	s.cert, s.roots = authority.Issue(site), authority.Pool()
	key, err := x509.MarshalPKCS8PrivateKey(s.cert.PrivateKey)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(s.file("ca.pem"), authority.PEM(), 0o600),
		os.WriteFile(s.file("cert.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.cert.Certificate[0]}), 0o600),
		os.WriteFile(s.file("key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600),
	)
}

// rounds plays one after another, until the time is up.
func (s *soak) rounds(ctx context.Context) error {
	if err := s.calm(0); err != nil { // before anything
		return err
	}
	for n := 1; time.Duration(n-1)*s.Round < s.For; n++ {
		rnd := rand.New(rand.NewPCG(s.Seed, uint64(n)))
		st := &storm{l: s.l, file: s.file("servers"), servers: s.servers, gates: s.gates, renews: s.gates[1], spared: rnd.IntN(servers), gone: make(map[int]bool)}
		s.crowd.spared.Store(&s.servers[st.spared].host)
		s.l.event("round %d begins, server %s is spared", n, s.servers[st.spared].host)
		s.l.newRound()
		if err := s.round(ctx, st, rnd); err != nil || ctx.Err() != nil {
			return err
		}
		if err := st.settle(); err != nil {
			return err
		}
		if err := s.calm(n); err != nil {
			return err
		}
	}
	return nil
}

// round has clients ask and a storm blow, until the round is over.
func (s *soak) round(ctx context.Context, st *storm, rnd *rand.Rand) error {
	over, cancel := context.WithTimeout(ctx, s.Round)
	defer cancel()
	var wg sync.WaitGroup
	fail := func(err error) {
		if err != nil {
			s.l.wrong("%v", err)
		}
	}
	clients := s.crowd.gather(rnd)
	for _, c := range clients {
		wg.Go(func() { c.run(over, time.Duration(float64(len(clients))/s.Rate*float64(time.Second))) })
	}
	st.rnd = rand.New(rand.NewPCG(rnd.Uint64(), 0))
	renewals := rand.New(rand.NewPCG(rnd.Uint64(), 0))
	wg.Go(func() { fail(st.run(over, 200*time.Millisecond)) })
	wg.Go(func() { fail(st.renew(over, s.Round/3, renewals)) })
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(s.Round + 2*patience):
		return fmt.Errorf("clients do not end:\n%s", stacks())
	case <-ctx.Done(): // a fault, or a signal
	}
	return nil
}

// calm measures the gateways, after what round n has left has gone.
func (s *soak) calm(n int) error {
	for _, g := range s.gates {
		m, err := g.calm()
		if err != nil {
			return err
		}
		asked, whole, cut, refused := s.l.total()
		fmt.Fprintf(s.out, "%8v  round %d, gateway %s (%d): %d asked, %d whole, %d cut, %d refused; %d other servers tried; %.1f MB PSS, %.2f MB of objects, %d descriptors, %d goroutines\n",
			time.Since(s.l.start).Round(time.Second), n, g.name, m.PID, asked, whole, cut, refused, m.Retried, float64(m.PSS)/1e6, float64(m.Heap)/1e6, m.Descriptors, m.Goroutines)
		if g != s.gates[0] {
			continue
		}
		s.lasting = append(s.lasting, m)
		if err := left(s.lasting[0], m); err != nil {
			_ = g.dump(s.out)
			return &fault{s.l.now(), fmt.Sprintf("in the calm of round %d there are %v", n, err)}
		}
	}
	return nil
}

// left returns an error if there is more than before the first round.
func left(first, m measure) error {
	if m.Goroutines > first.Goroutines+moreGoroutines || m.Descriptors > first.Descriptors+moreDescriptors {
		return fmt.Errorf("%d goroutines and %d descriptors; before the first there were %d and %d", m.Goroutines, m.Descriptors, first.Goroutines, first.Descriptors)
	}
	return nil
}

// grown returns an error if memory has grown.
func grown(early, late measure) error {
	if late.Heap > early.Heap*5/4+2e6 || late.PSS > early.PSS*5/4+32e6 {
		return fmt.Errorf("memory grows: %.2f MB of objects are %.2f now, and the process takes %.1f MB, now %.1f", float64(early.Heap)/1e6, float64(late.Heap)/1e6, float64(early.PSS)/1e6, float64(late.PSS)/1e6)
	}
	return nil
}

// What there may be more of than at the start: the connections by which the figures are
// fetched, the Parkers, one for each processor, and the pipes that they keep for relays.
const (
	moreGoroutines  = 12
	moreDescriptors = 48
)

// finish compares the first tenth with the end, and ends all.
func (s *soak) finish(ctx context.Context) error {
	early, late := s.lasting[(len(s.lasting)+9)/10], s.lasting[len(s.lasting)-1]
	fmt.Fprintf(s.out, "\ngateway %s\tafter a tenth\tat the end\n", s.gates[0].name)
	fmt.Fprintf(s.out, "PSS, MB\t%.1f\t%.1f\nobjects, MB\t%.2f\t%.2f\ndescriptors\t%d\t%d\ngoroutines\t%d\t%d\nexchanges\t%d\t%d\n", float64(early.PSS)/1e6, float64(late.PSS)/1e6,
		float64(early.Heap)/1e6, float64(late.Heap)/1e6, early.Descriptors, late.Descriptors, early.Goroutines, late.Goroutines, early.Exchanges, late.Exchanges)
	if err := grown(early, late); err != nil {
		return &fault{s.l.now(), err.Error()}
	}
	for _, g := range s.gates {
		if err := g.stop(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, srv := range s.servers {
		if err := srv.close(ctx); err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

// kill ends what is left, whatever it does.
func (s *soak) kill() {
	for _, g := range s.gates {
		if g.pid > 0 {
			_ = syscall.Kill(g.pid, syscall.SIGKILL)
			_ = g.reap(g.pid, patience)
		}
	}
	for _, srv := range s.servers {
		srv.down()
	}
}
