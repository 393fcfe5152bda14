// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/l7test"
)

// siteAddr is where the fronts under test listen.
const siteAddr = "192.0.2.80:80"

// A front is a running gateway: one of the two fronts over a network of its
// own.
type front struct {
	name    string // "byte" or "standard"
	network *l4test.Network
	client  *http.Client // keeps connections, to siteAddr whatever the URL says
	server  *l7.Server   // nil on the standard front

	mu      sync.Mutex
	records []l7.Record
}

// fronts runs do as two subtests, over the byte front ([l7.Server]) and over
// the standard front (a plain [http.Server]), each in a bubble of its own.
// Site makes the handler for each, so that state is not shared; a handler
// without any may be given as fixed(h). After do all connections are closed and
// the server shut down; the bubble fails the test if a goroutine is left.
func fronts(t *testing.T, site func(n *l4test.Network) http.Handler, do func(t *testing.T, f *front)) {
	t.Helper()
	t.Run("byte", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { byteFront(t, site, new(l7.Server), do) })
	})
	t.Run("http2", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			byteFront(t, site, new(l7.Server), func(t *testing.T, f *front) {
				f.name = "http2"
				f.client.Transport.(*http.Transport).Protocols = new(http.Protocols)
				f.client.Transport.(*http.Transport).Protocols.SetUnencryptedHTTP2(true)
				do(t, f)
			})
		})
	})
	t.Run("standard", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { standardFront(t, site, do) })
	})
}

func fixed(h http.Handler) func(*l4test.Network) http.Handler {
	return func(*l4test.Network) http.Handler { return h }
}

func discardLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

// byteFront runs do over srv, whose Handler, OnDone and Logger it sets. It
// has to be called in a bubble.
func byteFront(t *testing.T, site func(n *l4test.Network) http.Handler, srv *l7.Server, do func(t *testing.T, f *front)) {
	f := newFront("byte")
	f.server = srv
	srv.Handler = site(f.network)
	srv.OnDone = f.record
	if srv.Logger == nil {
		srv.Logger = discardLog()
	}
	f.run(t, srv.Serve, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		return srv.Shutdown(ctx)
	}, do)
}

func standardFront(t *testing.T, site func(n *l4test.Network) http.Handler, do func(t *testing.T, f *front)) {
	f := newFront("standard")
	next := site(f.network)
	root := l7.HandlerFunc(func(x *l7.Exchange) {
		defer func() { f.record(&x.Record) }()
		l7.Serve(next, x)
	})
	srv := &http.Server{Handler: root, IdleTimeout: time.Minute, ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	srv.Protocols = protocols("1", "h2c")
	f.run(t, srv.Serve, srv.Close, do)
}

func newFront(name string) *front {
	f := &front{name: name, network: l4test.NewNetwork()}
	f.client = &http.Client{
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return f.network.DialContext(ctx, "tcp", siteAddr)
		}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return f
}

func (f *front) run(t *testing.T, serve func(net.Listener) error, stop func() error, do func(t *testing.T, f *front)) {
	ln, err := f.network.Listen("tcp", siteAddr)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- serve(ln) }()
	defer func() {
		f.client.CloseIdleConnections()
		synctest.Wait()
		if err := stop(); err != nil {
			t.Errorf("Shutdown = %v", err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("Serve = %v; want ErrServerClosed", err)
		}
		time.Sleep(time.Second) // net/http lingers for half of one
	}()
	do(t, f)
}

func (f *front) record(r *l7.Record) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.records = append(f.records, *r)
}

// done returns the records of the exchanges that have ended so far, once all
// goroutines are at rest.
func (f *front) done() []l7.Record {
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]l7.Record(nil), f.records...)
}

// last returns the record of the exchange that ended last.
func (f *front) last(t *testing.T) l7.Record {
	t.Helper()
	rs := f.done()
	if len(rs) == 0 {
		t.Fatal("no record")
	}
	return rs[len(rs)-1]
}

// get fetches a path and returns the status and the body.
func (f *front) get(t *testing.T, path string) (int, string) {
	t.Helper()
	res, err := f.client.Get("http://a.test" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// rawConn is a client that speaks bytes.
type rawConn struct {
	t *testing.T
	*l4test.Conn
	br *bufio.Reader
}

// dial connects to the front; the connection is closed at the end of the test.
func (f *front) dial(t *testing.T) *rawConn {
	t.Helper()
	c, err := f.network.DialContext(context.Background(), "tcp", siteAddr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &rawConn{t, c.(*l4test.Conn), bufio.NewReader(c)}
}

// send writes s.
func (c *rawConn) send(s string) *rawConn {
	c.t.Helper()
	if _, err := io.WriteString(c.Conn, s); err != nil {
		c.t.Fatalf("send: %v", err)
	}
	return c
}

// rest reads until the connection ends. A reset is shown as "<reset>".
func (c *rawConn) rest() string {
	b, err := io.ReadAll(c.br)
	if err != nil {
		return string(b) + "<reset>"
	}
	return string(b)
}

// reply reads one reply to a request of that method. Its body has been read
// into Body; err is what reading it ended with.
func (c *rawConn) reply(method string) (res *http.Response, body string, err error) {
	c.t.Helper()
	res, err = http.ReadResponse(c.br, &http.Request{Method: method})
	if err != nil {
		return nil, "", err
	}
	if res.StatusCode == http.StatusSwitchingProtocols {
		return res, "", nil
	}
	b, err := io.ReadAll(res.Body)
	return res, string(b), err
}

// wantReply reads one reply to GET and checks its status and body.
func (c *rawConn) wantReply(status int, body string) *http.Response {
	c.t.Helper()
	res, got, err := c.reply("GET")
	if err != nil {
		c.t.Fatalf("reply: %v; want %d", err, status)
	}
	if res.StatusCode != status || got != body {
		c.t.Fatalf("reply = %d %q; want %d %q", res.StatusCode, got, status, body)
	}
	return res
}

// wantEnd checks that nothing more comes but the end of the connection.
func (c *rawConn) wantEnd() {
	c.t.Helper()
	if s := c.rest(); s != "" {
		c.t.Fatalf("read %q; want the end of the connection", s)
	}
}

// serveOrigin has serve speak for a server at addr of network n, a goroutine
// for each connection, which is closed when serve returns. All ends with the
// test.
func serveOrigin(t *testing.T, n *l4test.Network, addr string, serve func(c *l4test.Conn, br *bufio.Reader)) {
	t.Helper()
	ln, err := n.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var conns []net.Conn
	t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		defer mu.Unlock()
		for _, c := range conns {
			c.Close()
		}
	})
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			go func() {
				defer c.Close()
				serve(c.(*l4test.Conn), bufio.NewReader(c))
			}()
		}
	}()
}

// serveHTTP has h answer at addr of network n.
func serveHTTP(t *testing.T, n *l4test.Network, addr string, h http.HandlerFunc) {
	t.Helper()
	ln, err := n.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	go srv.Serve(ln)
	t.Cleanup(func() { srv.Close() })
}

// newPool returns a pool of servers at addrs, in that order.
func newPool(addrs ...string) *balance.Pool {
	p := &balance.Pool{Policy: balance.RoundRobin{}, Seed: 1}
	list := make([]balance.Endpoint, len(addrs))
	for i, a := range addrs {
		list[i].Addr = a
	}
	if err := p.Set(list...); err != nil {
		panic(err)
	}
	return p
}

// proxyTo returns a site: a proxy before servers at addrs.
func proxyTo(addrs ...string) func(n *l4test.Network) http.Handler {
	return func(n *l4test.Network) http.Handler { return newProxy(n, addrs...) }
}

func newProxy(n *l4test.Network, addrs ...string) *l7.Proxy {
	return &l7.Proxy{Pool: newPool(addrs...), Upstream: &l7.Upstream{Dial: n.DialContext}}
}

func TestFrontsProxy(t *testing.T) {
	fronts(t, proxyTo("10.0.0.1:80"), func(t *testing.T, f *front) {
		serveHTTP(t, f.network, "10.0.0.1:80", func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			io.WriteString(w, r.Method+" "+r.Host+r.RequestURI+" "+r.Header.Get("X-Forwarded-For")+" "+string(b))
		})
		status, body := f.get(t, "/x?y")
		if status != 200 || body != "GET a.test/x?y 192.0.2.1 " {
			t.Errorf("GET = %d %q", status, body)
		}
		res, err := f.client.Post("http://a.test/", "text/plain", io.MultiReader(strings.NewReader("bo"), strings.NewReader("dy")))
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if string(b) != "POST a.test/ 192.0.2.1 body" {
			t.Errorf("POST = %q", b)
		}
		f.dial(t).send("GET / HTTP/1.0\r\n\r\n").wantReply(200, "GET 192.0.2.80:80/ 192.0.2.1 ")
		if r := f.last(t); r.Server != "10.0.0.1:80" || r.Status != 200 || r.Tries != 1 {
			t.Errorf("record = %+v", r)
		}
	})
}

// origin serves scripts at addr of network n.
func origin(t *testing.T, n *l4test.Network, addr string, scripts ...l7test.Script) *l7test.Origin {
	t.Helper()
	ln, err := n.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	o := &l7test.Origin{Scripts: scripts}
	go o.Serve(ln)
	t.Cleanup(func() { o.Close() })
	return o
}

// selfSigned returns a certificate for a.test.
func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"a.test"}, NotAfter: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
