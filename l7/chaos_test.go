// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7/l7test"
)

// chaosTime is how long a chaos test lasts: PENSTOCK_CHAOS, or a moment.
func chaosTime(t *testing.T) time.Duration {
	v := os.Getenv("PENSTOCK_CHAOS")
	if v == "" {
		return 700 * time.Millisecond
	}
	d, err := time.ParseDuration(v)
	require.NoError(t, err)
	return d
}

// chaosPatience is how long any one step may take before it counts as stuck.
const chaosPatience = time.Minute

// A chaos is a gateway of three fronts over real sockets, its servers, and clients
// that check that each reply is their own.
type chaos struct {
	*testing.T
	plain, secure, standard string // addresses of the fronts; nothing answers between two gateways
	pools                   []*balance.Pool
	ups                     []*Upstream
	members                 [][]balance.Endpoint

	stop    chan struct{}
	tokens  atomic.Uint64
	good    atomic.Uint64 // replies of the right server
	other   atomic.Uint64 // error pages, and what servers lied
	mu      sync.Mutex
	servers map[*balance.Server]bool // all that there were
	once    sync.Once
}

// wrong reports a fault, the first one only.
func (c *chaos) wrong(format string, args ...any) {
	c.once.Do(func() { c.Errorf(format, args...) })
}

// over reports whether the time is up.
func (c *chaos) over() bool {
	select {
	case <-c.stop:
		return true
	default:
		return false
	}
}

func (c *chaos) token() string { return "t" + strconv.FormatUint(c.tokens.Add(1), 10) + "." }

// body is a text that only the token's request may see.
func (c *chaos) body(token string, n int) string {
	return strings.Repeat(token, n/len(token)+1)
}

// check looks at a reply that came to its end.
func (c *chaos) check(token string, status int, h http.Header, body []byte) {
	if status != 200 {
		c.other.Add(1)
		if bytes.Contains(body, []byte("t")) && bytes.Contains(body, []byte(".t")) {
			c.wrong("an error page holds somebody's reply: %.80q", body)
		}
		return
	}
	if string(body) == "stray" {
		c.other.Add(1)
		return // a server that replies out of turn may do so just as it is asked
	}
	c.good.Add(1)
	if got := h.Get("X-Token"); got != token {
		c.wrong("the reply to %s is that to %s", token, got)
	}
	if n, _ := strconv.Atoi(h.Get("X-Length")); n != len(body) || len(bytes.ReplaceAll(body, []byte(token), nil)) != 0 {
		c.wrong("the reply to %s has %d bytes of %d, %.80q", token, len(body), n, body)
	}
}

// TestChaos has everything happen at once: servers that come, go, flap, are cut and
// lie, gateways that shut down, clients that pipeline, abort, stall and pause. Each
// reply must be that to its request, each step must end, and nothing may be left. It
// lasts for PENSTOCK_CHAOS, and is meant to be run with the race detector.
func TestChaos(t *testing.T) {
	before := runtime.NumGoroutine()
	c := &chaos{T: t, stop: make(chan struct{}), servers: make(map[*balance.Server]bool)}
	func() {
		cert := chaosCert(t)
		ends := c.startOrigins(cert)
		defer func() {
			for _, end := range ends {
				end()
			}
		}()
		c.makePools(&tls.Config{InsecureSkipVerify: true})
		go func() {
			time.Sleep(chaosTime(t))
			for end := time.Now().Add(chaosPatience); c.good.Load() == 0 && time.Now().Before(end); {
				time.Sleep(time.Millisecond) // the machine is busy with other things
			}
			close(c.stop)
		}()
		c.gateways(&tls.Config{Certificates: []tls.Certificate{cert}})
		for _, u := range c.ups {
			u.CloseIdle()
		}
	}()
	c.wantNothingLeft(before)
	t.Logf("%d requests, %d good replies, %d others", c.tokens.Load(), c.good.Load(), c.other.Load())
	if c.good.Load() == 0 {
		t.Error("nothing was answered")
	}
}

// wantNothingLeft waits for leases and goroutines to end.
func (c *chaos) wantNothingLeft(before int) {
	end := time.Now().Add(chaosPatience)
	for runtime.NumGoroutine() > before && time.Now().Before(end) {
		time.Sleep(time.Millisecond)
	}
	if n := runtime.NumGoroutine(); n > before {
		buf := make([]byte, 1<<20)
		c.Errorf("%d goroutines, %d before:\n%s", n, before, buf[:runtime.Stack(buf, true)])
	}
	for s := range c.servers {
		if n := s.InFlight(); n != 0 {
			c.Errorf("server %s has %d leases", s.Name(), n)
		}
		if n := s.Queued(); n != 0 {
			c.Errorf("server %s has %d waiters", s.Name(), n)
		}
	}
	for _, u := range c.ups {
		for k, h := range u.hosts {
			if n := len(h.conns); n != 0 {
				c.Errorf("%d connections to %s are left", n, k.addr)
			}
		}
	}
}

// chaosCert returns a certificate that nobody verifies.
func chaosCert(t *testing.T) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	require.NoError(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(crand.Reader, tmpl, tmpl, &key.PublicKey, key)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// answerer is what all good servers do: they say whose reply it is.
func answerer(w http.ResponseWriter, r *http.Request) {
	token := r.Header.Get("X-Token")
	got, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	if len(got) == 0 {
		n, _ := strconv.Atoi(r.Header.Get("X-Want"))
		got = []byte(strings.Repeat(token, n/len(token)+1))
	}
	w.Header().Set("X-Token", token)
	w.Header().Set("X-Length", strconv.Itoa(len(got)))
	switch rand.N(4) {
	case 0:
		_, _ = w.Write(got[:len(got)/2]) // chunked, with a pause
		_ = http.NewResponseController(w).Flush()
		runtime.Gosched()
		_, _ = w.Write(got[len(got)/2:])
	case 1:
		w.Header().Set("Connection", "close")
		_, _ = w.Write(got)
	default:
		_, _ = w.Write(got)
	}
}

// liar is the script of a hostile server. It never says a token.
func liar(r *l7test.Request) l7test.Script {
	stray := "HTTP/1.1 200 OK\r\nX-Token: stray\r\nX-Length: 5\r\nContent-Length: 5\r\n\r\nstray"
	switch rand.N(9) {
	case 0:
		return l7test.Script{l7test.Early(), l7test.Reset()}
	case 1:
		return l7test.Script{l7test.Early(), l7test.Close()}
	case 2:
		return l7test.Script{l7test.Send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"), l7test.Reset()}
	case 3:
		return l7test.Script{l7test.Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\nzz\r\n"), l7test.Close()}
	case 4:
		return l7test.Script{l7test.Send("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n" + stray)} // nobody asked for the second
	case 5:
		return l7test.Script{l7test.Reply(503, "busy"), l7test.Wait(time.Millisecond), l7test.Send(stray)}
	case 6:
		return l7test.Script{l7test.Interim(103, "Link", "x"), l7test.Reply(503, "")}
	case 7:
		return l7test.Script{l7test.Send("no HTTP at all\r\n\r\n"), l7test.Close()}
	default:
		return l7test.Script{l7test.Early(), l7test.Reply(503, "early")}
	}
}

// startOrigins starts the servers; members gets their endpoints, for each pool.
func (c *chaos) startOrigins(cert tls.Certificate) (ends []func()) {
	c.members = make([][]balance.Endpoint, 2)
	add := func(pool int, ln net.Listener) {
		c.members[pool] = append(c.members[pool], balance.Endpoint{Name: strconv.Itoa(len(c.members[pool])), Addr: ln.Addr().String(), MaxConns: 8})
	}
	quiet := slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	for range 3 {
		ln := c.listen()
		add(0, ln)
		srv := &http.Server{Handler: http.HandlerFunc(answerer), ErrorLog: quiet}
		go srv.Serve(ln)
		ends = append(ends, func() { _ = srv.Close() })
	}
	ln := c.listen()
	add(0, ln)
	bad := &l7test.Origin{Choose: liar}
	go bad.Serve(ln)
	ends = append(ends, func() { _ = bad.Close() })
	for range 2 {
		ln := c.listen()
		add(1, ln)
		p := new(http.Protocols)
		p.SetHTTP1(true)
		p.SetHTTP2(true)
		srv := &http.Server{Handler: http.HandlerFunc(answerer), TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}, ErrorLog: quiet, Protocols: p}
		go srv.ServeTLS(ln, "", "")
		ends = append(ends, func() { _ = srv.Close() })
	}
	return ends
}

func (c *chaos) listen() net.Listener {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(c, err)
	return ln
}

// makePools makes a pool of plain servers, and one of TLS with HTTP/2, whose policy
// and modes of reuse differ.
func (c *chaos) makePools(secure *tls.Config) {
	queue := balance.Queue{Size: 64, Timeout: 50 * time.Millisecond}
	c.pools = []*balance.Pool{
		{Panic: 0.5, Queue: queue},
		{Panic: 0.5, Queue: queue, Policy: balance.LeastConn{}},
	}
	both := new(http.Protocols)
	both.SetHTTP1(true)
	both.SetHTTP2(true)
	c.ups = []*Upstream{
		{IdleTimeout: 200 * time.Millisecond},
		{IdleTimeout: 200 * time.Millisecond, Protocols: both, Reuse: ReuseSafe, MaxAge: 100 * time.Millisecond,
			TLS: func(*balance.Server) *tls.Config { return secure }},
	}
	for i := range c.pools {
		c.set(i, c.members[i])
	}
}

// set is Pool.Set that remembers the servers.
func (c *chaos) set(i int, list []balance.Endpoint) {
	if err := c.pools[i].Set(list...); err != nil {
		c.wrong("Set: %v", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := range c.pools[i].All() {
		c.servers[s] = true
	}
}

// disturb does something to a server each millisecond.
func (c *chaos) disturb() {
	for !c.over() {
		i := rand.N(len(c.pools))
		list := c.members[i]
		s := c.pools[i].Server(list[rand.N(len(list))].Name)
		switch rand.N(10) {
		case 0:
			cut := list[:rand.N(len(list)+1)]
			c.set(i, cut)
		case 1: // a name gets another address
			moved := append([]balance.Endpoint(nil), list...)
			j, k := rand.N(len(moved)), rand.N(len(moved))
			moved[j].Addr, moved[k].Addr = moved[k].Addr, moved[j].Addr
			c.set(i, moved)
		case 2:
			c.ups[i].CloseIdle()
		case 3, 4:
			c.set(i, list)
		default:
			if s != nil {
				c.flap(s)
			}
		}
		time.Sleep(time.Millisecond)
	}
	for i := range c.pools {
		c.set(i, c.members[i])
	}
}

func (c *chaos) flap(s *balance.Server) {
	switch rand.N(6) {
	case 0:
		s.Report(balance.Check, balance.Down, "chaos")
	case 1:
		s.Report(balance.Check, balance.Up, "chaos")
	case 2:
		s.SetAdmin(balance.Admin(rand.N(3)), "chaos")
	case 3:
		s.SetAdmin(balance.Ready, "chaos")
	case 4:
		s.Cut(rand.N(2) == 0, "chaos")
	default:
		_ = s.SetMaxConns(1 + rand.N(8))
	}
}

// gateways serves and shuts down, again and again, until the time is up.
func (c *chaos) gateways(secure *tls.Config) {
	lns := []net.Listener{c.listen(), c.listen(), c.listen()}
	c.plain, c.secure, c.standard = lns[0].Addr().String(), lns[1].Addr().String(), lns[2].Addr().String()
	var wg sync.WaitGroup
	wg.Go(c.disturb)
	for _, f := range []func(){c.pipeliner, c.pipeliner, c.aborter, c.pauser, c.uploader,
		c.h1Client, c.h2Client, c.h2Client, c.standardClient} {
		wg.Go(func() { c.client(f) })
	}
	for round := 0; ; round++ {
		end := time.Now().Add(time.Duration(100+rand.N(400)) * time.Millisecond)
		last := c.gateway(lns, secure, end)
		if last {
			break
		}
		for i := range lns { // on the same ports, with sockets of l4's from now on
			ln, err := new(l4.ListenConfig).Listen(c.Context(), "tcp", lns[i].Addr().String())
			require.NoError(c, err)
			lns[i] = ln
		}
	}
	finished := make(chan struct{})
	go func() { wg.Wait(); close(finished) }()
	select {
	case <-finished:
	case <-time.After(2 * chaosPatience):
		c.stuck("the clients")
	}
}

// stuck ends the test with all stacks.
func (c *chaos) stuck(what string) {
	buf := make([]byte, 4<<20)
	panic(fmt.Sprintf("%s do not end:\n%s", what, buf[:runtime.Stack(buf, true)]))
}

// client calls f until the time is up, and looks whether one call takes too long.
func (c *chaos) client(f func()) {
	timer := time.AfterFunc(chaosPatience, func() { c.stuck("a client's exchange") })
	defer timer.Stop()
	for !c.over() {
		timer.Reset(chaosPatience)
		f()
	}
}

// gateway serves until end, or the time is up: last is true then.
func (c *chaos) gateway(lns []net.Listener, secure *tls.Config, end time.Time) (last bool) {
	plain := &Proxy{Pool: c.pools[0], Upstream: c.ups[0], HeaderTimeout: 2 * time.Second, Retry: Retry{Tries: 3, Backoff: time.Millisecond}}
	overTLS := &Proxy{Pool: c.pools[1], Upstream: c.ups[1], HeaderTimeout: 2 * time.Second}
	handler := new(Router)
	require.NoError(c, handler.Set(Route{Match: PathPrefix("/tls"), Handler: overTLS}, Route{Handler: plain}))
	front := &Server{Handler: handler, TLSConfig: secure, Logger: slog.New(slog.DiscardHandler)}
	std := &http.Server{Handler: handler, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)}
	var wg sync.WaitGroup
	wg.Go(func() { _ = front.Serve(lns[0]) })
	wg.Go(func() { _ = front.ServeTLS(lns[1], "", "") })
	wg.Go(func() { _ = std.Serve(lns[2]) })
	select {
	case <-time.After(time.Until(end)):
	case <-c.stop:
		last = true
	}
	timer := time.AfterFunc(chaosPatience, func() { c.stuck("Shutdown and Serve") })
	defer timer.Stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rand.N(100))*time.Millisecond)
	defer cancel()
	if rand.N(4) == 0 {
		_ = front.Close()
	} else {
		_ = front.Shutdown(ctx)
	}
	_ = std.Shutdown(ctx)
	_ = std.Close()
	wg.Wait()
	return last
}
