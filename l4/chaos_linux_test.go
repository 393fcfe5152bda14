// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

// chaosTime is how long chaos lasts: a second, or what PENSTOCK_CHAOS says.
func chaosTime(t *testing.T) time.Duration {
	v := os.Getenv("PENSTOCK_CHAOS")
	if v == "" {
		return time.Second
	}
	d, err := time.ParseDuration(v)
	require.NoError(t, err)
	return d
}

// chaos is relays of all kinds before servers that come and go, with clients of
// all manners. Each stream says who it is, at both ends, in each of its blocks:
// a byte that is lost, doubled or another's is found.
type chaos struct {
	t       *testing.T
	pool    *balance.Pool
	all     []balance.Endpoint
	end     time.Time
	tokens  atomic.Uint64
	whole   atomic.Int64 // conversations that went to their end
	broken  atomic.Int64 // those that did not, as planned
	records atomic.Int64
	opened  atomic.Int64
	wg      sync.WaitGroup
}

// going is true until the time is up and, on a machine that is busy with other things,
// until some conversation went well.
func (c *chaos) going() bool {
	if c.t.Failed() {
		return false
	}
	now := time.Now()
	return now.Before(c.end) || c.whole.Load() == 0 && now.Before(c.end.Add(30*time.Second))
}

// block is what a stream consists of: its token, and a number that counts up.
const block = 16

func putBlock(b []byte, token, n uint64) {
	binary.BigEndian.PutUint64(b, token)
	binary.BigEndian.PutUint64(b[8:], n)
}

// TestChaos has everything happen at once, on real sockets. It wants no hang, no
// byte of another stream, no stream that ends well and lacks some, and nothing
// left at the end.
func TestChaos(t *testing.T) {
	turns.mu.Lock()
	turns.ready() // and the runtime's poller: they are of the whole process
	turns.mu.Unlock()
	goroutines, files := runtime.NumGoroutine(), descriptors()
	c := &chaos{t: t, end: time.Now().Add(chaosTime(t))}
	c.pool = &balance.Pool{Policy: balance.TwoChoices{}, Queue: balance.Queue{Timeout: 200 * time.Millisecond}, Panic: 0.1}
	var backs []*Server
	var ends []func() error
	for i := range 4 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		back := &Server{Handler: HandlerFunc(c.answer), Logger: quiet}
		ends = append(ends, serve(back, ln))
		backs = append(backs, back)
		c.all = append(c.all, balance.Endpoint{Name: fmt.Sprint("s", i), Addr: ln.Addr().String(), MaxConns: 20})
	}
	c.all = append(c.all, balance.Endpoint{Name: "dead", Addr: "127.0.0.1:1"})
	require.NoError(t, c.pool.Set(c.all...))

	var fronts sync.WaitGroup
	for _, f := range c.handlers() {
		fronts.Go(func() { c.front(f) })
	}
	c.wg.Go(c.flap)
	c.wg.Go(c.datagrams)
	fronts.Wait()
	c.wg.Wait()
	for i, back := range backs {
		back.Close()
		require.ErrorIs(t, ends[i](), ErrServerClosed)
	}
	for s := range c.pool.All() {
		wantSoon(t, func() bool { return s.InFlight() == 0 }, "lease of %s left", s.Name())
	}
	wantSoon(t, func() bool { return runtime.NumGoroutine() <= goroutines }, "goroutines left")
	wantSoon(t, func() bool { return descriptors() <= files }, "descriptors left")
	require.Equal(t, c.opened.Load(), c.records.Load(), "one record each")
	t.Logf("%d whole, %d broken", c.whole.Load(), c.broken.Load())
	require.NotZero(t, c.whole.Load())
}

func wantSoon(t *testing.T, ok func() bool, format string, args ...any) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			stacks := make([]byte, 1<<20)
			t.Fatalf(format+"\n%s", append(args, stacks[:runtime.Stack(stacks, true)])...)
		}
	}
}

// A chaosFront is one way to relay.
type chaosFront struct {
	name    string
	handler Handler
	listen  func(network, addr string) (net.Listener, error)
	tls     bool
}

func (c *chaos) handlers() []chaosFront {
	light := func(network, addr string) (net.Listener, error) {
		return (&ListenConfig{}).Listen(context.Background(), network, addr)
	}
	plain := func() *Proxy {
		return &Proxy{Pool: c.pool, IdleTimeout: 5 * time.Second, HalfClosedTimeout: 5 * time.Second, CutOnDown: true}
	}
	slow := plain()
	slow.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		nc, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return struct{ *net.TCPConn }{nc.(*net.TCPConn)}, nil // goroutines relay it
	}
	local := HandlerFunc(func(ctx context.Context, nc net.Conn) error { return c.viaDialer(ctx, nc) })
	return []chaosFront{
		{"events", plain(), net.Listen, false},
		{"events, own sockets", plain(), light, false},
		{"goroutines", slow, net.Listen, false},
		{"TLS", &TerminateTLS{Config: testConfig(c.t, "a.test"), Next: plain()}, light, true},
		{"router", &Router{Routes: []Route{{Match: func(p *Peeked) Verdict {
			if len(p.Data) < block {
				return NeedMore
			}
			return Yes
		}, Handler: plain()}}}, light, false},
		{"Dialer and Relay", local, light, false},
	}
}

// viaDialer is a relay as a host may make one.
func (c *chaos) viaDialer(ctx context.Context, nc net.Conn) error {
	defer nc.Close()
	d := &Dialer{Pool: c.pool, CutOnDown: true}
	server, err := d.DialContext(ctx, "", "")
	if err != nil {
		Abort(nc)
		return nil
	}
	back := NewConn(server)
	defer back.Close()
	Relay(ctx, NewConn(nc), back, RelayOptions{IdleTimeout: 5 * time.Second})
	return nil
}

// front serves one handler, again and again, as it is shut down now and then.
func (c *chaos) front(f chaosFront) {
	for c.going() {
		s := &Server{Handler: f.handler, Logger: quiet, OnDone: func(r *Record) { c.records.Add(1) },
			ConnContext: func(ctx context.Context, _ net.Conn) context.Context { c.opened.Add(1); return ctx }}
		ln, err := f.listen("tcp", "127.0.0.1:0")
		if err != nil {
			c.t.Error(err)
			return
		}
		ended := serve(s, ln)
		round := time.Now().Add(200*time.Millisecond + rand.N(400*time.Millisecond))
		var clients sync.WaitGroup
		for range 4 {
			clients.Go(func() {
				for c.going() && time.Now().Before(round) {
					c.converse(f, ln.Addr().String())
				}
			})
		}
		clients.Go(func() { // parked, to the end
			nc, err := net.Dial("tcp", ln.Addr().String())
			if err == nil {
				defer nc.Close()
				time.Sleep(time.Until(round) + 20*time.Millisecond)
			}
		})
		time.Sleep(time.Until(round) - 10*time.Millisecond) // while some still talk
		ctx, cancel := context.WithTimeout(context.Background(), rand.N(50*time.Millisecond))
		down := time.Now()
		s.Shutdown(ctx)
		cancel()
		if took := time.Since(down); took > 30*time.Second { // it hangs
			c.t.Errorf("%s: Shutdown took %v", f.name, took)
		}
		if err := ended(); !errors.Is(err, ErrServerClosed) {
			c.t.Errorf("%s: Serve: %v", f.name, err)
		}
		clients.Wait()
	}
}

// converse is one client. It says its token in so many blocks, ends its stream,
// and wants as many back; or it behaves badly.
func (c *chaos) converse(f chaosFront, addr string) {
	nc, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return
	}
	bare := nc.(*net.TCPConn)
	defer bare.Close()
	bare.SetDeadline(time.Now().Add(20 * time.Second))
	if f.tls {
		nc = tls.Client(bare, &tls.Config{InsecureSkipVerify: true})
	}
	token, blocks := c.tokens.Add(1), uint64(1+rand.N(50))
	if rand.N(8) == 0 {
		blocks *= 500
	}
	manner := rand.N(8)
	var (
		wg   sync.WaitGroup
		sent error
	)
	wg.Go(func() {
		b := make([]byte, 0, 64*block)
		for n := range blocks {
			b = b[:len(b)+block]
			putBlock(b[len(b)-block:], token, n)
			if len(b) == cap(b) || n == blocks-1 {
				if _, err := nc.Write(b); err != nil {
					sent = err // the kernel tells of a reset once: the read may see an end
					return
				}
				b = b[:0]
			}
			if n == blocks/2 && manner == 0 {
				bare.SetLinger(0)
				bare.Close() // a reset in the middle
				return
			}
		}
		if manner == 1 {
			time.Sleep(rand.N(20 * time.Millisecond))
		}
		sent = nc.(interface{ CloseWrite() error }).CloseWrite()
	})
	n, err := wantStream(nc, token)
	if manner == 2 && n > 0 {
		bare.Close()
	}
	wg.Wait()
	if err == nil {
		err = sent
	}
	switch {
	case errors.Is(err, errMixed):
		c.t.Errorf("%s: %v", f.name, err)
	case err == nil && n != blocks && manner != 2 && manner != 0:
		c.t.Errorf("%s: %d blocks of %d, and a good end", f.name, n, blocks)
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.t.Errorf("%s: stuck after %d blocks of %d, manner %d", f.name, n, blocks, manner)
	case err == nil:
		c.whole.Add(1)
	default:
		c.broken.Add(1)
	}
}

var errMixed = errors.New("bytes that were not sent so")

// wantStream reads the blocks of token to their end.
func wantStream(r io.Reader, token uint64) (n uint64, err error) {
	b := make([]byte, block)
	for {
		_, err := io.ReadFull(r, b)
		switch {
		case err == io.EOF:
			return n, nil
		case err != nil:
			return n, err
		}
		if got, at := binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:]); got != token || at != n {
			return n, fmt.Errorf("%w: %d of stream %d, want %d of %d", errMixed, at, got, n, token)
		}
		n++
	}
}

// answer is a server: it checks what comes and sends it back, as it comes or at
// the end, or behaves badly.
func (c *chaos) answer(_ context.Context, nc net.Conn) error {
	defer nc.Close()
	manner := rand.N(10)
	if manner == 0 {
		Abort(nc)
		return nil
	}
	nc.SetDeadline(time.Now().Add(20 * time.Second))
	b := make([]byte, block)
	var all []byte
	for n := uint64(0); ; n++ {
		if _, err := io.ReadFull(nc, b); err == io.EOF {
			break
		} else if err != nil {
			Abort(nc)
			return nil
		}
		all = append(all, b...)
		if token := binary.BigEndian.Uint64(all); binary.BigEndian.Uint64(b) != token || binary.BigEndian.Uint64(b[8:]) != n {
			c.t.Errorf("a server got a mixture at %d of stream %d: %x", n, token, b)
			Abort(nc)
			return nil
		}
		if manner == 1 && n == 20 {
			Abort(nc) // in the middle
			return nil
		}
	}
	if manner == 2 {
		time.Sleep(rand.N(30 * time.Millisecond))
	}
	if _, err := nc.Write(all); err != nil {
		Abort(nc)
	}
	return nil
}

// flap brings servers back every millisecond, and every fourth takes one from
// the pool, in some way.
func (c *chaos) flap() {
	restore := func(s *balance.Server) {
		s.SetTrial(false)
		s.SetMaxConns(20)
		s.SetAdmin(balance.Ready, "chaos")
		s.Report(balance.Check, balance.Up, "chaos")
	}
	for c.going() {
		time.Sleep(time.Millisecond)
		for range 3 {
			if s := c.pool.Server(fmt.Sprint("s", rand.N(4))); s != nil {
				restore(s)
			}
		}
		s := c.pool.Server(fmt.Sprint("s", rand.N(4)))
		if s == nil || rand.N(4) > 0 {
			continue
		}
		switch rand.N(12) {
		case 0, 1, 2:
			s.Report(balance.Check, balance.Down, "chaos")
		case 3:
			s.SetAdmin(balance.Drain, "chaos")
		case 4:
			s.SetAdmin(balance.Maint, "chaos")
		case 5:
			s.Cut(true, "chaos")
		case 6:
			s.SetTrial(true)
		case 7, 8:
			s.SetMaxConns(rand.N(4))
		case 9:
			some := append([]balance.Endpoint(nil), c.all...)
			rand.Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
			c.set(some[:3+rand.N(len(some)-2)])
		case 10:
			c.set(c.all)
		}
	}
	c.set(c.all)
	for s := range c.pool.All() {
		restore(s)
	}
}

func (c *chaos) set(endpoints []balance.Endpoint) {
	if err := c.pool.Set(endpoints...); err != nil {
		c.t.Error(err)
	}
}
