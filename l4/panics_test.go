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
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/ratelimit"
)

// bad panics by whatever method it has.
type bad struct{}

func (bad) ServeConn(context.Context, net.Conn) error              { panic("oops") }
func (bad) Take(int) ratelimit.Decision                            { panic("oops") }
func (bad) Put(string, *tls.ClientSessionState)                    { panic("oops") }
func (bad) Get(string) (*tls.ClientSessionState, bool)             { panic("oops") }
func (bad) Handle(context.Context, slog.Record) error              { panic("oops") }
func (bad) Enabled(context.Context, slog.Level) bool               { return true }
func (b bad) WithAttrs([]slog.Attr) slog.Handler                   { return b }
func (b bad) WithGroup(string) slog.Handler                        { return b }
func (bad) dial(context.Context, string, string) (net.Conn, error) { panic("oops") }

// badPut has no session, and wants none.
type badPut struct{ bad }

func (badPut) Get(string) (*tls.ClientSessionState, bool) { return nil, false }

// badClient is a ClientLimiter.
type badClient struct{ refund bool }

func (b badClient) Take(netip.Addr, int) ratelimit.Decision {
	if !b.refund {
		panic("oops")
	}
	return ratelimit.Decision{OK: true, Reset: ratelimit.Never}
}
func (badClient) Refund(netip.Addr, ratelimit.Decision) { panic("oops") }

// badConn is a connection of the host's that panics when on says so.
type badConn struct {
	net.Conn
	on     string
	writes *atomic.Int32
}

func (c badConn) try(on string) {
	if c.on == on {
		panic("oops")
	}
}
func (c badConn) Read(p []byte) (int, error) { c.try("Read"); return c.Conn.Read(p) }
func (c badConn) Write(p []byte) (int, error) {
	if c.try("Write"); c.writes.Add(1) > 1 {
		c.try("second Write")
	}
	return c.Conn.Write(p)
}
func (c badConn) Close() error                  { defer c.try("Close"); return c.Conn.Close() }
func (c badConn) SetDeadline(t time.Time) error { c.try("SetDeadline"); return c.Conn.SetDeadline(t) }
func (c badConn) SetReadDeadline(t time.Time) error {
	c.try("SetReadDeadline")
	return c.Conn.SetReadDeadline(t)
}
func (c badConn) CloseWrite() error {
	c.try("CloseWrite")
	return c.Conn.(interface{ CloseWrite() error }).CloseWrite()
}

// synced is a buffer that goroutines write to.
type synced struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *synced) Write(p []byte) (int, error) { s.mu.Lock(); defer s.mu.Unlock(); return s.b.Write(p) }
func (s *synced) String() string              { s.mu.Lock(); defer s.mu.Unlock(); return s.b.String() }

// TestPanicsOfTheHost walks what the host may give a Server and the handlers
// here: a panic of it is logged with its stack and ends one connection, whose
// record and lease are given. The process goes on, and so does the server.
// KeyLogWriter is not here: crypto/tls calls it with a lock of its own.
func TestPanicsOfTheHost(t *testing.T) {
	type set struct {
		server *Server
		proxy  *Proxy
		n      *l4test.Network
		back   Handler
		client string // what panics of its connection
	}
	front := func(h func(next Handler) Handler) func(*set) {
		return func(s *set) { s.server.Handler = h(s.proxy) }
	}
	client := func(on string) func(*set) { return func(s *set) { s.client = on } }
	server := func(on string) func(*set) {
		return func(s *set) {
			s.proxy.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				c, err := s.n.DialContext(ctx, network, addr)
				return badConn{c, on, new(atomic.Int32)}, err
			}
		}
	}
	handshake := func(f HandshakeFunc) func(*set) { return func(s *set) { s.proxy.Handshake = f } }
	tlsEnd := func(edit func(*tls.Config)) func(*set) {
		cfg := testConfig(t, "a.test")
		edit(cfg)
		return front(func(next Handler) Handler { return &TerminateTLS{Config: cfg, Next: next} })
	}
	for name, edit := range map[string]func(*set){
		"Handler":            func(s *set) { s.server.Handler = bad{} },
		"Handler, and Close": func(s *set) { s.server.Handler = bad{}; s.client = "Close" },
		"ConnContext":        func(s *set) { s.server.ConnContext = func(context.Context, net.Conn) context.Context { panic("oops") } },
		"OnDone":             func(s *set) { on := s.server.OnDone; s.server.OnDone = func(r *Record) { on(r); panic("oops") } },
		"OnClose": front(func(next Handler) Handler {
			return HandlerFunc(func(ctx context.Context, c net.Conn) error {
				c.(*Conn).OnClose(func() { panic("oops") })
				return next.ServeConn(ctx, c)
			})
		}),
		"Note": front(func(next Handler) Handler {
			return HandlerFunc(func(_ context.Context, c net.Conn) error {
				RecordOf(c).Note(func(*Record) { panic("oops") })
				return nil
			})
		}),
		"Matcher": front(func(next Handler) Handler {
			return &Router{Routes: []Route{{func(*Peeked) Verdict { panic("oops") }, next}}}
		}),
		"Matcher that waits": front(func(next Handler) Handler {
			return &Router{Routes: []Route{{func(p *Peeked) Verdict {
				if len(p.Data) < 2 {
					return NeedMore
				}
				panic("oops")
			}, next}}}
		}),
		"Limit.All":       front(func(next Handler) Handler { return &Limit{All: bad{}, Next: next} }),
		"Limit.PerClient": front(func(next Handler) Handler { return &Limit{PerClient: badClient{}, Next: next} }),
		"Limit.Refund":    front(func(next Handler) Handler { return &Limit{PerClient: badClient{refund: true}, Next: next} }),
		"Limit.Over":      front(func(next Handler) Handler { return &Limit{All: never{}, Refuse: bad{}, Next: next} }),
		"Throttle.PerConn": front(func(next Handler) Handler {
			return &Throttle{In: Bandwidth{PerConn: func(netip.Addr) Limiter { panic("oops") }}, Next: next}
		}),
		"Throttle.In":  front(func(next Handler) Handler { return &Throttle{In: Bandwidth{All: bad{}}, Next: next} }),
		"Throttle.Out": front(func(next Handler) Handler { return &Throttle{Out: Bandwidth{All: bad{}}, Next: next} }),
		"Key":          func(s *set) { s.proxy.Key = func(net.Conn) uint64 { panic("oops") } },
		"Dial":         func(s *set) { s.proxy.Dial = bad{}.dial },
		"Dial without a conn": func(s *set) {
			s.proxy.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, nil }
		},
		"Handshake":                handshake(func(context.Context, net.Conn, net.Conn, *balance.Server) (net.Conn, error) { panic("oops") }),
		"Handshake without a conn": handshake(func(context.Context, net.Conn, net.Conn, *balance.Server) (net.Conn, error) { return nil, nil }),
		"UniqueID":                 handshake((&SendProxy{UniqueID: func(net.Conn) []byte { panic("oops") }}).Handshake),
		"Extra":                    handshake((&SendProxy{Extra: func(net.Conn, *balance.Server) []TLV { panic("oops") }}).Handshake),
		"PerServer":                handshake((&OriginateTLS{PerServer: func(*balance.Server) *tls.Config { panic("oops") }}).Handshake),
		"ServerName":               handshake((&OriginateTLS{ServerName: func(net.Conn, *balance.Server) string { panic("oops") }}).Handshake),
		"GetClientSession":         handshake((&OriginateTLS{Config: &tls.Config{ClientSessionCache: bad{}}}).Handshake),
		"Put, while it relays": func(s *set) {
			s.back = &TerminateTLS{Config: testConfig(t, "a.test"), Next: echo}
			s.proxy.Handshake = (&OriginateTLS{Config: &tls.Config{InsecureSkipVerify: true, ClientSessionCache: badPut{}}}).Handshake
		},
		"server's Handler": func(s *set) {
			require.NoError(t, s.proxy.Pool.Set(balance.Endpoint{Name: "10.0.1.1:80", Value: bad{}}))
		},
		"client's Read":            client("Read"),
		"client's Write":           client("Write"),
		"client's Close":           client("Close"),
		"client's SetDeadline":     client("SetDeadline"),
		"client's SetReadDeadline": client("SetReadDeadline"),
		"client's SetReadDeadline, Router": func(s *set) {
			s.client = "SetReadDeadline"
			s.server.Handler = &Router{Routes: []Route{{FirstBytes("ping"), s.proxy}}}
		},
		"Read":            server("Read"),
		"Write":           server("Write"),
		"Close":           server("Close"),
		"CloseWrite":      server("CloseWrite"),
		"SetDeadline":     server("SetDeadline"),
		"SetReadDeadline": server("SetReadDeadline"),
		"Logger":          func(s *set) { s.server.Logger = slog.New(bad{}); s.server.Handler = bad{} },
		"GetCertificate": tlsEnd(func(c *tls.Config) {
			c.Certificates = nil
			c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { panic("oops") }
		}),
		"GetConfigForClient": tlsEnd(func(c *tls.Config) {
			c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { panic("oops") }
		}),
		"VerifyConnection": tlsEnd(func(c *tls.Config) { c.VerifyConnection = func(tls.ConnectionState) error { panic("oops") } }),
		"WrapSession": tlsEnd(func(c *tls.Config) {
			c.WrapSession = func(tls.ConnectionState, *tls.SessionState) ([]byte, error) { panic("oops") }
		}),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log synced
				records := make(chan Record, 10)
				s := &set{n: l4test.NewNetwork(), back: echo}
				s.proxy = &Proxy{Pool: pool(t, "10.0.1.1:80"), Dial: s.n.DialContext}
				s.server = &Server{Handler: s.proxy, Logger: slog.New(slog.NewTextHandler(&log, nil)), OnDone: func(r *Record) { records <- *r }}
				edit(s)
				was := slog.Default() // of what has no Logger
				slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
				defer slog.SetDefault(was)
				back := &Server{Handler: s.back, Logger: quiet}
				backWait := serve(back, listen(t, s.n, "10.0.1.1:80"))
				wait := serve(s.server, badConns{listen(t, s.n, "10.0.0.1:80"), s.client})
				for range 2 { // the second as well as the first
					c := dial(t, s.n, "10.0.0.1:80")
					var nc net.Conn = c
					if _, ok := s.server.Handler.(*TerminateTLS); ok {
						nc = tls.Client(c, &tls.Config{InsecureSkipVerify: true, ClientSessionCache: tls.NewLRUClientSessionCache(1)})
					}
					go func() {
						io.WriteString(nc, "ping")
						time.Sleep(time.Second) // longer than a relay's goroutine lingers
						nc.(interface{ CloseWrite() error }).CloseWrite()
						io.Copy(io.Discard, nc)
						nc.Close()
					}()
					synctest.Wait()
					time.Sleep(time.Minute)
					synctest.Wait()
					require.Len(t, records, 1, "it is over")
					<-records
					require.Zero(t, s.proxy.Pool.Server("10.0.1.1:80").InFlight())
				}
				if name != "Logger" && !bytes.Contains([]byte(name), []byte("without")) {
					require.Contains(t, log.String(), "panic=oops")
					require.Contains(t, log.String(), "panics_test.go", "the stack")
				}
				s.server.Shutdown(t.Context())
				require.ErrorIs(t, wait(), ErrServerClosed)
				back.Shutdown(t.Context())
				require.ErrorIs(t, backWait(), ErrServerClosed)
			})
		})
	}
}

// never is a Limiter that refuses.
type never struct{}

func (never) Take(int) ratelimit.Decision { return ratelimit.Decision{Wait: ratelimit.Never} }

// badConns is a listener of badConns.
type badConns struct {
	net.Listener
	on string
}

func (l badConns) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return badConn{c, l.on, new(atomic.Int32)}, nil
}

// badListener panics once.
type badListener struct {
	net.Listener
	once *sync.Once
}

func (l badListener) Accept() (net.Conn, error) {
	l.once.Do(func() { panic("oops") })
	return l.Listener.Accept()
}

func TestPanicOfListeners(t *testing.T) {
	for name, wrap := range map[string]func(net.Listener) net.Listener{
		"Accept": func(ln net.Listener) net.Listener { return badListener{ln, new(sync.Once)} },
		"Rate": func(ln net.Listener) net.Listener {
			once := new(sync.Once)
			return &PacedListener{Listener: ln, Rate: limiterFunc(func(int) ratelimit.Decision {
				once.Do(func() { panic("oops") })
				return ratelimit.Decision{OK: true}
			})}
		},
	} {
		t.Run(name, func(t *testing.T) {
			world(t, func(t *testing.T, n *l4test.Network) {
				first := wrap(listen(t, n, "10.0.0.2:80"))
				if paced, ok := first.(*PacedListener); ok { // which others than Server use, too
					_, err := paced.Accept()
					_, again := AcceptPause(err, 0)
					require.True(t, again, "%v", err)
				}
				s := &Server{Handler: echo, Logger: quiet}
				wait := serve(s, wrap(listen(t, n, "10.0.0.1:80")))
				c := dial(t, n, "10.0.0.1:80")
				wantEcho(t, c, "goes on")
				c.Close()
				require.NoError(t, s.Shutdown(t.Context()))
				require.ErrorIs(t, wait(), ErrServerClosed)
			})
		})
	}
}

// TestPanicOfDialer: Dial is called in the goroutine of a driver or of an
// http.Transport, which would not survive.
func TestPanicOfDialer(t *testing.T) {
	p := pool(t, "10.0.1.1:80", "10.0.1.2:80")
	c, err := (&Dialer{Pool: p, Dial: bad{}.dial}).DialContext(t.Context(), "", "")
	require.Nil(t, c)
	require.ErrorContains(t, err, "panic: oops")
	_, err = (&Dialer{Pool: p, Tries: 1, Dial: func(context.Context, string, string) (net.Conn, error) { return nil, nil }}).DialContext(t.Context(), "", "")
	require.ErrorContains(t, err, "no connection")
	_, err = (&SocketOptions{Control: func(string, string, syscall.RawConn) error { panic(io.ErrNoProgress) }}).DialContext(t.Context(), "tcp", "127.0.0.1:9")
	require.ErrorIs(t, err, io.ErrNoProgress, "what was panicked with is the error")
	for m := range p.All() {
		require.Zero(t, m.InFlight())
	}
}

// TestPanicOfUDP: one flow ends, at most.
func TestPanicOfUDP(t *testing.T) {
	for name, edit := range map[string]func(p *UDPProxy){
		"Accept": func(p *UDPProxy) { p.Accept = func(netip.AddrPort) bool { panic("oops") } },
		"Key":    func(p *UDPProxy) { p.Key = func(netip.AddrPort) uint64 { panic("oops") } },
		"Dial":   func(p *UDPProxy) { p.Dial = bad{}.dial },
		"Dial without a conn": func(p *UDPProxy) {
			p.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, nil }
		},
		"Dial of a nil pointer": func(p *UDPProxy) {
			p.Dial = func(context.Context, string, string) (net.Conn, error) { return (*net.UDPConn)(nil), nil }
		},
		"OnDone":          func(p *UDPProxy) { on := p.OnDone; p.OnDone = func(r *Record) { on(r); panic("oops") } },
		"Read":            func(p *UDPProxy) { p.Dial = through(p.Dial, "Read") },
		"Write":           func(p *UDPProxy) { p.Dial = through(p.Dial, "Write") },
		"second Write":    func(p *UDPProxy) { p.Dial = through(p.Dial, "second Write") },
		"Close":           func(p *UDPProxy) { p.Dial = through(p.Dial, "Close") },
		"SetReadDeadline": func(p *UDPProxy) { p.Dial = through(p.Dial, "SetReadDeadline") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newUDP(t, &UDPProxy{IdleTimeout: 2 * time.Second}, "10.0.0.1:53")
				edit(r.p)
				r.serve()
				for i := range 3 {
					r.send("192.0.2.1:1", "a")
					r.send("192.0.2.1:1", "b")
					time.Sleep(time.Minute)
					synctest.Wait()
					require.Zero(t, r.p.Flows(), "datagram %d", i)
					require.Zero(t, r.p.Pool.Server("10.0.0.1:53").InFlight())
				}
				r.stop(t)
			})
		})
	}
}

func through(dial DialFunc, on string) DialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		return badConn{c, on, new(atomic.Int32)}, err
	}
}

// A Handshake that returns neither a connection nor an error has failed, as a Dial has.
func TestHandshakeOfNoConnection(t *testing.T) {
	client, server := l4test.Pipe()
	defer client.Close()
	p := &Proxy{Handshake: func(context.Context, net.Conn, net.Conn, *balance.Server) (net.Conn, error) { return nil, nil }}
	c, err := p.handshake(t.Context(), client, server, nil)
	require.Nil(t, c)
	require.ErrorContains(t, err, "no connection")
}

// A nil pointer is no connection either. A Conn of one was used after the guards, and the
// lease was lost.
func TestDialOfNilPointers(t *testing.T) {
	for name, c := range map[string]net.Conn{"Conn": (*Conn)(nil), "TCPConn": (*net.TCPConn)(nil), "nil": nil} {
		dial := func(context.Context, string, string) (net.Conn, error) { return c, nil }
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := l4test.NewNetwork()
				p := pool(t, "10.0.1.1:80")
				ends := make(chan string, 1)
				s := &Server{Logger: quiet, Handler: &Proxy{Pool: p, Dial: dial}, OnDone: func(r *Record) { ends <- r.Termination.String() }}
				wait := serve(s, listen(t, n, "10.0.0.1:80"))
				client, err := n.DialContext(t.Context(), "tcp", "10.0.0.1:80")
				require.NoError(t, err)
				defer client.Close()
				require.Equal(t, "SC", <-ends)
				require.NoError(t, s.Shutdown(t.Context()))
				require.ErrorIs(t, wait(), ErrServerClosed)
				d, err := (&Dialer{Pool: p, Dial: dial}).DialContext(t.Context(), "", "")
				require.Nil(t, d)
				require.ErrorContains(t, err, "l4: Dialer.Dial has returned no connection")
				require.Zero(t, p.Server("10.0.1.1:80").InFlight())
			})
		})
	}
}

// lateContext is a context that has ended while its funcs of AfterFunc have not run yet.
type lateContext struct {
	context.Context
	over chan struct{}
}

func (c *lateContext) Done() <-chan struct{}        { return c.over }
func (c *lateContext) AfterFunc(func()) func() bool { return func() bool { return true } }
func (c *lateContext) Err() error {
	select {
	case <-c.over:
		return context.Canceled
	default:
		return nil
	}
}

// TestContextEndsWithTheLastByte ends the context when what has to be read is there: it
// is too late, though no func of AfterFunc has broken off anything.
func TestContextEndsWithTheLastByte(t *testing.T) {
	next := HandlerFunc(func(context.Context, net.Conn) error { return errors.New("passed on") })
	for name, serve := range map[string]func(ctx context.Context, c net.Conn, last func()) error{
		"AcceptProxy": func(ctx context.Context, c net.Conn, last func()) error {
			h := &AcceptProxy{Trusted: MustParsePrefixes("0.0.0.0/0"), Next: next}
			return h.ServeConn(ctx, &lastRead{c, headerV1, last})
		},
		"AcceptPostgreSQL": func(ctx context.Context, c net.Conn, last func()) error {
			h := &AcceptPostgreSQL{Next: next, Plain: next}
			return h.ServeConn(ctx, &lastRead{c, annStarts, last})
		},
		"Proxy.Handshake": func(ctx context.Context, c net.Conn, last func()) error {
			p := &Proxy{Handshake: func(_ context.Context, _, server net.Conn, _ *balance.Server) (net.Conn, error) {
				last()
				return server, nil
			}}
			ready, err := p.handshake(ctx, c, c, nil)
			require.Nil(t, ready)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, peer := l4test.Pipe()
			defer peer.Close()
			ctx := &lateContext{t.Context(), make(chan struct{})}
			require.ErrorIs(t, serve(ctx, c, func() { close(ctx.over) }), context.Canceled)
			_, err := c.Write([]byte("x"))
			require.ErrorIs(t, err, net.ErrClosed)
		})
	}
}

// lastRead is a conn that has sent text, which is read at once; last is called then.
type lastRead struct {
	net.Conn
	text string
	last func()
}

func (c *lastRead) Read(p []byte) (int, error) {
	n := copy(p, c.text)
	if c.text = c.text[n:]; c.text == "" {
		c.last()
	}
	return n, nil
}

// A conn beside an error is closed, of whichever func.
func TestConnBesideAnError(t *testing.T) {
	failed := errors.New("failed")
	synctest.Test(t, func(t *testing.T) {
		var peers []net.Conn
		open := func() net.Conn {
			c, peer := l4test.Pipe()
			peers = append(peers, peer)
			return c
		}
		both := func(context.Context, string, string) (net.Conn, error) { return open(), failed }
		dial := func(context.Context, string, string) (net.Conn, error) { return open(), nil }
		other := func(context.Context, net.Conn, net.Conn, *balance.Server) (net.Conn, error) { return open(), nil }
		shake := func(context.Context, net.Conn, net.Conn, *balance.Server) (net.Conn, error) { return open(), failed }
		p := pool(t, "10.0.1.1:80")
		server := p.Server("10.0.1.1:80")
		client := open()
		defer client.Close()
		peers = nil
		for name, call := range map[string]func() (net.Conn, error){
			"Proxy.Dial": func() (net.Conn, error) { return (&Proxy{Dial: both}).dial(t.Context(), client, server) },
			"Dialer.Dial": func() (net.Conn, error) {
				return (&Dialer{Pool: p, Dial: both, Tries: -1}).DialContext(t.Context(), "", "")
			},
			"UDPProxy.Dial": func() (net.Conn, error) { return (&UDPProxy{Dial: both}).dial(t.Context(), server.Addr()) },
			"Proxy.Handshake": func() (net.Conn, error) {
				return (&Proxy{Dial: dial, Handshake: shake}).dial(t.Context(), client, server)
			},
			"Handshakes": func() (net.Conn, error) {
				return (&Proxy{Dial: dial, Handshake: Handshakes(other, shake)}).dial(t.Context(), client, server)
			},
			"Handshake that is late": func() (net.Conn, error) {
				late := func(ctx context.Context, _, _ net.Conn, _ *balance.Server) (net.Conn, error) {
					<-ctx.Done()
					return open(), nil
				}
				c, err := (&Proxy{Dial: dial, Handshake: late}).dial(t.Context(), client, server)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				return c, failed
			},
		} {
			c, err := call()
			require.Nil(t, c, name)
			require.ErrorIs(t, err, failed, name)
			require.NotEmpty(t, peers)
			for _, peer := range peers {
				peer.SetReadDeadline(time.Now().Add(time.Second))
				wantError(t, peer, io.EOF)
				peer.Close()
			}
			peers = nil
		}
	})
}
