// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4/l4test"
)

// A routing is one connection through a Router, whose handlers say their name
// and all that they read.
type routing struct {
	client *l4test.Conn
	start  time.Time
	done   chan struct{}

	took time.Duration // until a handler had it or nobody wanted it
	by   string        // the handler
	data []byte        // what it read until the client's end
	err  error
}

// route starts r on a new connection; handlers are made by name.
func route(ctx context.Context, r *Router) *routing {
	client, server := l4test.Pipe()
	g := &routing{client: client, start: time.Now(), done: make(chan struct{})}
	go func() {
		defer close(g.done)
		g.err = r.ServeConn(context.WithValue(ctx, routing{}.key(), g), server)
		if g.by == "" {
			g.took = time.Since(g.start)
		}
	}()
	return g
}

type routingKey struct{}

func (routing) key() routingKey { return routingKey{} }

func (g *routing) wait() *routing { <-g.done; return g }

// named is a handler that notes who got the connection, when and with what.
func named(name string) Handler {
	return HandlerFunc(func(ctx context.Context, c net.Conn) error {
		defer c.Close()
		g := ctx.Value(routingKey{}).(*routing)
		g.by, g.took = name, time.Since(g.start)
		g.data, _ = io.ReadAll(c)
		return nil
	})
}

func testRouter() *Router {
	return &Router{
		Routes: []Route{
			{Match: SNI("a.test"), Handler: named("a")},
			{Match: SSH, Handler: named("ssh")},
			{Match: HTTP1, Handler: named("http")},
			{Match: FirstBytes("\x01"), Handler: nil},
		},
		Default: named("default"),
		Timeout: 5 * time.Second,
		Silence: time.Second,
	}
}

func TestRouterRoutes(t *testing.T) {
	hello := string(clientHello(t, &tls.Config{ServerName: "a.test"}))
	other := string(clientHello(t, &tls.Config{ServerName: "b.test"}))
	for _, tt := range []struct{ in, want string }{
		{hello, "a"},
		{other, "default"},
		{"SSH-2.0-x\r\n", "ssh"},
		{"GET / HTTP/1.1\r\n\r\n", "http"},
		{"\x00", "default"},
	} {
		for _, step := range []int{1, 7, 1 << 20} { // bytes a segment
			synctest.Test(t, func(t *testing.T) {
				g := route(t.Context(), testRouter())
				for i := 0; i < len(tt.in); i += step {
					_, err := io.WriteString(g.client, tt.in[i:min(i+step, len(tt.in))])
					require.NoError(t, err)
					synctest.Wait()
				}
				rest := strings.Repeat("rest", 10_000)
				_, err := io.WriteString(g.client, rest)
				require.NoError(t, err)
				require.NoError(t, g.client.CloseWrite())
				g.wait()
				require.NoError(t, g.err)
				require.Equal(t, tt.want, g.by)
				require.True(t, tt.in+rest == string(g.data), "no byte is lost")
				require.Zero(t, g.took, "decided when the bytes were there")
			})
		}
	}
}

func TestRouterWaits(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(*Router)
		do   func(*l4test.Conn)
		by   string
		took time.Duration
		err  error
	}{
		{name: "silent client goes to the default", do: func(*l4test.Conn) {}, by: "default", took: time.Second},
		{name: "silence longer than the timeout", edit: func(r *Router) { r.Silence = time.Hour }, by: "default", took: 5 * time.Second},
		{name: "no silence set", edit: func(r *Router) { r.Silence = 0 }, by: "default", took: 5 * time.Second},
		{name: "nothing set", edit: func(r *Router) { r.Silence, r.Timeout = 0, 0 }, by: "default", took: defaultPeekTimeout},
		{
			name: "no timeout at all", edit: func(r *Router) { r.Timeout, r.Silence = -1, 0 },
			do: func(c *l4test.Conn) { time.Sleep(24 * time.Hour); io.WriteString(c, "SSH-") }, by: "ssh", took: 24 * time.Hour,
		},
		{
			name: "silence without a timeout", edit: func(r *Router) { r.Timeout = -1 }, by: "default", took: time.Second,
		},
		{
			name: "slow loris: trickling bytes do not extend the timeout",
			do: func(c *l4test.Conn) {
				for range 20 {
					io.WriteString(c, "G")
					time.Sleep(700 * time.Millisecond)
				}
			},
			by: "default", took: 5 * time.Second,
		},
		{
			name: "the end of the stream decides at once", do: func(c *l4test.Conn) { io.WriteString(c, "SS"); c.CloseWrite() },
			by: "default",
		},
		{name: "an end without a byte, too", do: func(c *l4test.Conn) { c.CloseWrite() }, by: "default"},
		{name: "end and no default", edit: func(r *Router) { r.Default = nil }, do: func(c *l4test.Conn) { io.WriteString(c, "SS"); c.CloseWrite() }, err: io.EOF},
		{name: "no byte and no default is no error", edit: func(r *Router) { r.Default = nil }, do: func(c *l4test.Conn) { c.CloseWrite() }},
		{name: "silence and no default", edit: func(r *Router) { r.Default = nil }, took: time.Second, err: os.ErrDeadlineExceeded},
		{name: "reset", do: func(c *l4test.Conn) { io.WriteString(c, "S"); time.Sleep(time.Millisecond); c.Reset() }, took: time.Millisecond, err: syscall.ECONNRESET},
		{name: "reject is no error", do: func(c *l4test.Conn) { io.WriteString(c, "\x01") }},
		{name: "nobody", edit: func(r *Router) { r.Default = nil }, do: func(c *l4test.Conn) { io.WriteString(c, "\x00") }, err: ErrNoRoute},
		{
			name: "a match by address needs no byte",
			edit: func(r *Router) { r.Routes = []Route{{Match: LocalPorts(80, 80), Handler: named("port")}} }, by: "port",
		},
		{
			name: "a route waits for the one before it",
			edit: func(r *Router) { r.Routes = append(r.Routes[:1], Route{Handler: named("all")}) }, by: "all", took: time.Second,
		},
		{
			name: "the bound", edit: func(r *Router) { r.MaxBytes = 100 },
			do: func(c *l4test.Conn) { io.WriteString(c, "GET /"+strings.Repeat("a", 95)) }, by: "default",
		},
		{name: "no reading ahead", edit: func(r *Router) { r.MaxBytes = -1 }, by: "default"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := testRouter()
				if tt.edit != nil {
					tt.edit(r)
				}
				g := route(t.Context(), r)
				if tt.do != nil {
					tt.do(g.client)
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				g.client.CloseWrite()
				g.wait()
				require.Equal(t, tt.by, g.by)
				require.Equal(t, tt.took, g.took)
				if tt.err == nil {
					require.NoError(t, g.err)
					return
				}
				require.ErrorIs(t, g.err, tt.err)
				if tt.err == io.EOF || tt.err == os.ErrDeadlineExceeded {
					require.ErrorIs(t, g.err, ErrNoRoute)
				}
				_, err := g.client.Read(make([]byte, 1))
				require.Error(t, err, "the connection was closed")
				require.False(t, errors.Is(err, os.ErrDeadlineExceeded))
			})
		})
	}
}

// TestRouterBound shows that a client that never lets a route decide cannot
// make the router keep more than about the bound.
func TestRouterBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var most int
		greedy := func(p *Peeked) Verdict { most = max(most, len(p.Data)); return NeedMore }
		r := &Router{Routes: []Route{{Match: greedy, Handler: named("greedy")}}, Default: named("default")}
		g := route(t.Context(), r)
		in := bytes.Repeat([]byte("0123456789"), 110_000)
		_, err := g.client.Write(in[:1<<20-1])
		require.NoError(t, err)
		g.client.CloseWrite()
		g.wait()
		require.Equal(t, "default", g.by)
		require.GreaterOrEqual(t, most, 64<<10)
		require.LessOrEqual(t, most, 128<<10)
		require.True(t, bytes.Equal(in[:1<<20-1], g.data))
	})
}

func TestRouterContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		g := route(ctx, testRouter())
		time.Sleep(100 * time.Millisecond)
		cancel()
		g.wait()
		require.ErrorIs(t, g.err, context.Canceled)
		require.Equal(t, 100*time.Millisecond, g.took)
		require.Empty(t, g.by)

		g = route(ctx, testRouter()) // what needs no waiting still succeeds
		io.WriteString(g.client, "SSH-")
		g.client.CloseWrite()
		g.wait()
	})
}

// TestRouterNested shows that routers compose: the second finds what the first
// has read ahead.
func TestRouterNested(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &Router{Routes: []Route{{Match: SNI("a.test"), Handler: named("a")}}}
		g := route(t.Context(), &Router{Routes: []Route{{Match: TLS, Handler: inner}}})
		g.client.Write(clientHello(t, &tls.Config{ServerName: "a.test"}))
		g.client.CloseWrite()
		require.Equal(t, "a", g.wait().by)
	})
}

// TestRouterManySegments bounds the work of a ClientHello sent in records of
// one byte: it must not be read again from its beginning for each.
func TestRouterManySegments(t *testing.T) {
	long := make([]string, 39)
	for i := range long {
		long[i] = strings.Repeat("p", 255)
	}
	in := refragment(clientHello(t, &tls.Config{ServerName: "a.test", NextProtos: long}), 1)
	require.Greater(t, len(in), 60_000)
	p := &Peeked{Conn: NewConn(&scriptConn{})}
	m := SNI("a.test")
	looked := time.Now()
	v := NeedMore
	for n := 0; v == NeedMore && n <= len(in); n++ {
		p.Data = in[:n]
		v = m(p)
	}
	require.Equal(t, Yes, v)
	require.Less(t, time.Since(looked), 2*time.Second, "quadratic")
}

func BenchmarkRouter(b *testing.B) {
	in := clientHello(b, &tls.Config{ServerName: "www.a.test", NextProtos: []string{"h2"}})
	ignore := HandlerFunc(func(context.Context, net.Conn) error { return nil })
	r := &Router{Routes: []Route{{Match: SSH, Handler: ignore}, {Match: SNI("*.a.test"), Handler: ignore}}}
	c := &scriptConn{}
	b.ReportAllocs()
	for b.Loop() {
		c.in.Reset(in)
		if err := r.ServeConn(context.Background(), c); err != nil {
			b.Fatal(err)
		}
	}
}

// TestRouterRecord shows what the record of a connection says that found no
// handler.
func TestRouterRecord(t *testing.T) {
	for _, tt := range []struct {
		do   func(net.Conn)
		want string
	}{
		{func(c net.Conn) { io.WriteString(c, "\x01") }, "PR"},                      // rejected
		{func(c net.Conn) { io.WriteString(c, "\x00") }, "PR"},                      // no route
		{func(c net.Conn) { io.WriteString(c, "SS"); time.Sleep(time.Hour) }, "cR"}, // silent
		{func(c net.Conn) { io.WriteString(c, "SS"); c.Close() }, "CR"},
		{func(c net.Conn) { c.Close() }, "CR"},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := testRouter()
			r.Default = nil
			n := l4test.NewNetwork()
			ln, err := n.Listen("tcp", "10.0.0.1:80")
			require.NoError(t, err)
			got := make(chan string, 1)
			s := &Server{Handler: r, Logger: slog.New(slog.DiscardHandler), OnDone: func(r *Record) { got <- r.Termination.String() }}
			go s.Serve(ln)
			c, err := n.DialContext(t.Context(), "tcp", "10.0.0.1:80")
			require.NoError(t, err)
			tt.do(c)
			require.Equal(t, tt.want, <-got)
			c.Close()
			require.NoError(t, s.Close())
		})
	}
}

// TestRouterKeepsSocket shows that what was routed, and had a PROXY header
// taken off, is still a bare socket: the relay may splice.
func TestRouterKeepsSocket(t *testing.T) {
	a, b := tcpPair(t)
	defer b.Close()
	_, err := io.WriteString(b, headerV1+"SSH-2.0-x\r\n")
	require.NoError(t, err)
	before := NewConn(a)
	var got net.Conn
	h := &AcceptProxy{Trusted: MustParsePrefixes("127.0.0.0/8", "::1"), Next: &Router{Routes: []Route{{
		Match: All(SSH, RemoteIn(MustParsePrefixes("203.0.113.9"))), // the address in the header
		Handler: HandlerFunc(func(_ context.Context, c net.Conn) error {
			got = c
			return nil
		}),
	}}}}
	require.NoError(t, h.ServeConn(t.Context(), before))
	defer got.Close()
	require.True(t, got == before, "no wrapper")
	require.Same(t, a, got.(*Conn).NetConn())
	require.Equal(t, "SSH-2.0-x\r\n", string(got.(*Conn).Buffered()))
}
