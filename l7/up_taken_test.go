// SPDX-License-Identifier: Apache-2.0

package l7

//lint:file-ignore SA1019 the client of net/http sends no extended CONNECT

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
)

// echoes changes to WebSocket and sends back what comes.
func echoes(w http.ResponseWriter, r *http.Request) {
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	accept := ""
	if key := r.Header.Get("Sec-WebSocket-Key"); key != "" {
		accept = "Sec-WebSocket-Accept: " + acceptKey(key) + "\r\n"
	}
	_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+accept+"\r\n")
	_, _ = io.Copy(c, rw)
}

// upgraded opens a tunnel through the gateway and has a word echoed.
func (s *site) upgraded() io.ReadWriteCloser {
	s.Helper()
	var body io.ReadWriteCloser
	if s.http2 {
		tr := &http2.Transport{AllowHTTP: true, DialTLSContext: func(ctx context.Context, _, _ string, _ *tls.Config) (net.Conn, error) {
			return s.net.DialContext(ctx, "tcp", "10.0.0.1:80")
		}}
		s.Cleanup(tr.CloseIdleConnections)
		in, out := io.Pipe()
		s.Cleanup(func() { _ = out.Close() })
		req, err := http.NewRequestWithContext(s.Context(), "CONNECT", "http://10.0.0.1/", in)
		require.NoError(s, err)
		req.Header[":protocol"] = []string{"websocket"}
		resp, err := tr.RoundTrip(req)
		require.NoError(s, err)
		require.Equal(s, 200, resp.StatusCode)
		body = struct {
			io.ReadCloser
			io.Writer
		}{resp.Body, out}
	} else {
		resp, err := s.client.Do(upgrade(s.T, "http://10.0.0.1/"))
		require.NoError(s, err)
		require.Equal(s, 101, resp.StatusCode)
		body = resp.Body.(io.ReadWriteCloser)
	}
	s.Cleanup(func() { _ = body.Close() })
	echoed(s.T, body)
	return body
}

func upgrade(t *testing.T, target string) *http.Request {
	req, err := http.NewRequestWithContext(t.Context(), "GET", target, nil)
	require.NoError(t, err)
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "websocket")
	return req
}

func echoed(t *testing.T, c io.ReadWriter) {
	t.Helper()
	_, err := io.WriteString(c, "word")
	require.NoError(t, err)
	b := make([]byte, 4)
	_, err = io.ReadFull(c, b)
	require.NoError(t, err)
	require.Equal(t, "word", string(b))
}

// A server that is taken away ends what was upgraded, at once.
func TestCutEndsUpgradedConnections(t *testing.T) {
	const addr = "10.0.1.1:80"
	for name, before := range map[string]func(p *balance.Pool){
		"up":     func(*balance.Pool) {},
		"left":   func(p *balance.Pool) { _ = p.Set() },
		"HTTP/2": func(*balance.Pool) {},
	} {
		t.Run(name, func(t *testing.T) {
			var pool *balance.Pool
			var record *Record
			onBoth(t, func(s *site) http.Handler {
				p := s.proxy(addr)
				if name != "HTTP/2" {
					s.origin(addr, echoes)
				} else { // of which one of ours is a server
					s.origin("10.0.1.2:80", echoes)
					ln, err := s.net.Listen("tcp", addr)
					require.NoError(s, err)
					srv := &Server{Handler: s.proxy("10.0.1.2:80")}
					done := make(chan error, 1)
					go func() { done <- srv.Serve(ln) }()
					s.Cleanup(func() { _ = srv.Close(); <-done })
					p.Upstream.Protocols = new(http.Protocols)
					p.Upstream.Protocols.SetUnencryptedHTTP2(true)
				}
				pool = p.Pool
				return HandlerFunc(func(x *Exchange) { record = &x.Record; Serve(p, x); r := x.Record; record = &r })
			}, func(s *site) {
				c := s.upgraded()
				server := pool.Server(addr)
				before(pool)
				time.Sleep(time.Minute)
				require.EqualValues(s, 1, server.InFlight())
				now := time.Now()
				server.Cut(true, "drain deadline")
				_, _ = io.ReadAll(c)
				synctest.Wait()
				require.Zero(s, time.Since(now))
				require.Zero(s, server.InFlight())
				require.Equal(s, endOf(l4.ServerDown, l4.PhaseData), record.Termination)
				require.ErrorContains(s, record.Err, "cut: drain deadline")
				if name == "up" {
					s.upgraded() // what is opened from now on is not concerned
				}
			})
		})
	}
}

func TestCutEndsUpgradedConnectionsTCP(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(echoes))
	defer origin.Close()
	addr := origin.Listener.Addr().String()
	pool := new(balance.Pool)
	require.NoError(t, pool.Set(balance.Endpoint{Addr: addr}))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	srv := &Server{Handler: &Proxy{Pool: pool}}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	resp, err := http.DefaultClient.Do(upgrade(t, "http://"+ln.Addr().String()))
	require.NoError(t, err)
	c := resp.Body.(io.ReadWriteCloser)
	defer c.Close()
	echoed(t, c)
	pool.Server(addr).Cut(true, "test")
	inTime(t, func() { _, _ = io.ReadAll(c) })
	require.NoError(t, srv.Close())
	require.ErrorIs(t, <-done, ErrServerClosed)
}

// A cut that comes between the reply and the relay is not lost.
func TestCutBeforeTheRelay(t *testing.T) {
	const addr = "10.0.1.1:80"
	var pool *balance.Pool
	cut := false
	onBoth(t, func(s *site) http.Handler {
		s.origin(addr, echoes)
		p := s.proxy(addr)
		pool, cut = p.Pool, true
		return HandlerFunc(func(x *Exchange) {
			x.OnReply(ReplyFunc(func(*Exchange, *Reply) {
				if cut {
					pool.Server(addr).Cut(true, "test")
				}
			}))
			Serve(p, x)
		})
	}, func(s *site) {
		if s.http2 {
			cut = false // the same code behind another client
			s.upgraded()
			return
		}
		now := time.Now()
		resp, err := s.client.Do(upgrade(s.T, "http://10.0.0.1/"))
		if err == nil {
			_, _ = io.ReadAll(resp.Body)
			_ = resp.Body.Close()
		}
		synctest.Wait()
		require.Zero(s, time.Since(now))
		require.Zero(s, pool.Server(addr).InFlight())
	})
}

func TestCutEndsUpgradedConnectionsOfATransport(t *testing.T) {
	const addr = "10.0.1.1:80"
	synctest.Test(t, func(t *testing.T) {
		s := &site{T: t, net: l4test.NewNetwork()}
		s.origin(addr, echoes)
		p := s.proxy(addr)
		resp, err := (&Transport{Pool: p.Pool, Upstream: p.Upstream}).RoundTrip(upgrade(t, "http://a.test/"))
		require.NoError(t, err)
		c := resp.Body.(io.ReadWriteCloser)
		defer c.Close()
		echoed(t, c)
		ended := make(chan time.Time, 1)
		go func() {
			_, err := c.Read(make([]byte, 1))
			require.Error(t, err)
			ended <- time.Now()
		}()
		synctest.Wait()
		now := time.Now()
		p.Pool.Server(addr).Cut(true, "test")
		require.Equal(t, now, <-ended)
		_, err = c.Write([]byte("x"))
		require.Error(t, err)
	})
}

// Once a connection is a tunnel, what watches over the client has nothing to do with
// it any more.
func TestTunnelIsNotAttached(t *testing.T) {
	const addr = "10.0.1.1:80"
	var down downstream
	onBoth(t, func(s *site) http.Handler {
		s.origin(addr, echoes)
		p := s.proxy(addr)
		return HandlerFunc(func(x *Exchange) { down = x.down; Serve(p, x) })
	}, func(s *site) {
		s.upgraded()
		switch d := down.(type) {
		case *byteConn:
			d.mu.Lock()
			defer d.mu.Unlock()
			require.Nil(s, d.upstream)
		case *h2Exchange:
			d.upMu.Lock()
			defer d.upMu.Unlock()
			require.Nil(s, d.up)
		case *standard:
			require.False(s, d.stopGone(), "stopped already")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s := &site{T: t, net: l4test.NewNetwork()}
		s.origin(addr, echoes)
		p := s.proxy(addr)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		resp, err := (&Transport{Pool: p.Pool, Upstream: p.Upstream}).RoundTrip(upgrade(t, "http://a.test/").WithContext(ctx))
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.False(t, resp.Body.(*tunnelBody).c.unwatch(), "a context that lives on holds nothing of the tunnel")
	})
}

// stuckDial waits for the end of its context.
func stuckDial(ctx context.Context, _, _ string) (net.Conn, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// silentServer accepts connections and says nothing.
func (s *site) silentServer(addr string) {
	ln, err := s.net.Listen("tcp", addr)
	require.NoError(s, err)
	s.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s.Cleanup(func() { _ = c.Close() })
		}
	}()
}

// A server that is taken away does not hold those who are still connecting to it.
func TestCutReachesDials(t *testing.T) {
	const bad, good = "10.0.1.1:80", "10.0.1.2:80"
	h2c := new(http.Protocols)
	h2c.SetUnencryptedHTTP2(true)
	for name, with := range map[string]func(s *site, p *Proxy){
		"connecting": func(s *site, p *Proxy) {
			p.Upstream.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				if addr == bad {
					return stuckDial(ctx, network, addr)
				}
				return s.net.DialContext(ctx, network, addr)
			}
		},
		"handshake": func(s *site, p *Proxy) {
			s.silentServer(bad)
			p.Upstream.TLS = func(s *balance.Server) *tls.Config {
				if s.Addr() == bad {
					return &tls.Config{InsecureSkipVerify: true}
				}
				return nil
			}
		},
		"HTTP/2": func(s *site, p *Proxy) {
			p.Upstream.Dial = stuckDial
			p.Upstream.Protocols = h2c
		},
		"SETTINGS": func(s *site, p *Proxy) {
			s.silentServer(bad)
			p.Upstream.Protocols = h2c
		},
	} {
		for _, left := range []bool{false, true} {
			for _, other := range []bool{false, true} {
				two := name == "HTTP/2" || name == "SETTINGS"
				if other && (left || two) {
					continue
				}
				t.Run(name+" left "+strconv.FormatBool(left)+" other "+strconv.FormatBool(other), func(t *testing.T) {
					var p *Proxy
					onBoth(t, func(s *site) http.Handler {
						pool := &balance.Pool{Policy: balance.First{}}
						servers := []balance.Endpoint{{Addr: bad}}
						if other {
							s.origin(good, echo)
							servers = append(servers, balance.Endpoint{Addr: good})
						}
						require.NoError(s, pool.Set(servers...))
						p = s.proxyTo(pool)
						p.Logger = slog.New(slog.DiscardHandler)
						p.Upstream.ConnectTimeout = time.Hour
						if with(s, p); !other {
							p.Retry.Tries = 1
						}
						return p
					}, func(s *site) {
						server := p.Pool.Server(bad)
						got := make(chan answer, 3)
						for range cap(got) { // two of them wait for the first, with HTTP/2
							go func() {
								a, _ := s.ask(s.client, "/", "")
								got <- a
							}()
						}
						synctest.Wait()
						if left {
							require.NoError(s, p.Pool.Set())
						}
						time.Sleep(time.Second)
						require.Empty(s, got)
						now := time.Now()
						server.Cut(true, "drain deadline")
						want := http.StatusServiceUnavailable
						if other {
							want = 200
						}
						for range cap(got) {
							require.Equal(s, want, (<-got).StatusCode)
						}
						require.Zero(s, time.Since(now))
						synctest.Wait()
						require.Zero(s, server.InFlight())
						if left {
							hosts, _ := tied(p.Upstream)
							require.Zero(s, hosts)
						}
					})
				})
			}
		}
	}
}

// A cut that comes as the connection is there, and before it is on the list, is not
// lost either.
func TestCutBetweenDialAndConnection(t *testing.T) {
	p := new(balance.Pool)
	require.NoError(t, p.Set(balance.Endpoint{Addr: "10.0.1.1:80"}))
	u := new(Upstream)
	u.init()
	h := u.host(p.Server("10.0.1.1:80"))
	a, b := net.Pipe()
	defer b.Close()
	d := dialingOf(t, h)
	p.Server("10.0.1.1:80").Cut(true, "test")
	c := h.newConn(a, d, identity{}, nil)
	require.True(t, c.lost())
	c.release(true)

	a2, b2 := net.Pipe()
	go func() { _, _ = io.Copy(io.Discard, b2) }()
	defer b2.Close()
	d = dialingOf(t, h)
	p.Server("10.0.1.1:80").Cut(true, "test")
	src, err := h.speak(a2, d, identity{}, nil, false)
	require.NoError(t, err)
	require.NotNil(t, src.(*h2Stream).conn.reason.Load())
	src.close()
	require.Empty(t, h.dials)
	require.Empty(t, h.conns)
}

// slowSettings is a server of HTTP/2 that takes a while before it speaks.
func (s *site) slowSettings(addr string, pause time.Duration) {
	ln, err := s.net.Listen("tcp", addr)
	require.NoError(s, err)
	srv := &http.Server{Handler: http.HandlerFunc(echo), Protocols: new(http.Protocols)}
	srv.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(slowListener{ln, pause}) }()
	s.Cleanup(func() { _ = srv.Close(); <-done })
}

// slowListener has connections whose first byte is read after a pause.
type slowListener struct {
	net.Listener
	pause time.Duration
}

func (l slowListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return &slowConn{Conn: c, pause: l.pause}, err
}

type slowConn struct {
	net.Conn
	once  sync.Once
	pause time.Duration
}

func (c *slowConn) Read(p []byte) (int, error) {
	c.once.Do(func() { time.Sleep(c.pause) })
	return c.Conn.Read(p)
}

// Whoever waits for the connection that another request opens has the time of its own,
// neither less nor more.
func TestWaitersForADialHaveTheirOwnTime(t *testing.T) {
	const addr = "10.0.1.1:80"
	type end struct {
		status int
		after  time.Duration
	}
	for _, tc := range []struct {
		name           string
		dial, settings time.Duration // that the server takes
		tries          []time.Duration
		want           []end
		dials          int64
	}{
		{"the one that dials has little", 2 * time.Second, 0, []time.Duration{time.Second, 0}, []end{{504, time.Second}, {200, 3 * time.Second}}, 2},
		{"all have little", 2 * time.Second, 0, []time.Duration{time.Second, 1500 * time.Millisecond}, []end{{504, time.Second}, {504, 1500 * time.Millisecond}}, 2},
		{"one that waits has little", 2 * time.Second, 0, []time.Duration{0, time.Second, 0}, []end{{200, 2 * time.Second}, {504, time.Second}, {200, 2 * time.Second}}, 1},
		{"one that waits for SETTINGS has little", 0, 2 * time.Second, []time.Duration{0, time.Second, 0}, []end{{200, 2 * time.Second}, {504, time.Second}, {200, 2 * time.Second}}, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &site{T: t, net: l4test.NewNetwork()}
				s.slowSettings(addr, tc.settings)
				one := s.proxy(addr)
				one.Upstream.Protocols = new(http.Protocols)
				one.Upstream.Protocols.SetUnencryptedHTTP2(true)
				one.Upstream.ConnectTimeout = time.Minute
				dial := one.Upstream.Dial
				one.Upstream.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
					select {
					case <-time.After(tc.dial):
						return dial(ctx, network, addr)
					case <-ctx.Done():
						return nil, ctx.Err()
					}
				}
				dials := countDials(one.Upstream)
				got := make([]chan end, len(tc.tries))
				for i, d := range tc.tries {
					got[i] = make(chan end, 1)
					p := &Proxy{Pool: one.Pool, Upstream: one.Upstream, TryTimeout: d, Retry: Retry{Tries: 1}}
					go func() {
						now, rec := time.Now(), httptest.NewRecorder()
						p.ServeHTTP(rec, httptest.NewRequest("GET", "http://a.test/", nil))
						got[i] <- end{rec.Code, time.Since(now)}
					}()
					synctest.Wait()
				}
				for i := range got {
					require.Equal(t, tc.want[i], <-got[i], "request %d", i)
				}
				require.Equal(t, tc.dials, dials.Load())
			})
		})
	}
}

// What a request must not ask, as it has met another server with that name and no valid
// certificate, others may.
func TestWaitersForADialAreNotDistrusted(t *testing.T) {
	p := new(balance.Pool)
	require.NoError(t, p.Set(balance.Endpoint{Addr: "10.0.1.1:80"}))
	u := &Upstream{Dial: stuckDial, TLS: func(*balance.Server) *tls.Config { return &tls.Config{ServerName: "a.test"} }}
	u.init()
	h := u.host(p.Server("10.0.1.1:80"))
	d := &h2Dial{done: make(chan struct{})}
	_, _, err := h.dialForAll(t.Context(), h2Key{}, d, &attempt{p: new(Proxy), distrust: &tlsError{"a.test", errors.New("no")}}, new(try))
	require.ErrorIs(t, err, errDistrusted)
	<-d.done
	require.NoError(t, d.err)
}

// A server of HTTP/2 that has opened its windows and does not read holds no request for
// longer than that may take.
func TestRequestIsNotHeldByAWriteForAll(t *testing.T) {
	const addr = "10.0.1.1:80"
	for _, secure := range []bool{false, true} {
		t.Run("TLS "+strconv.FormatBool(secure), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &site{T: t, net: l4test.NewNetwork()}
				ln, err := s.net.Listen("tcp", addr)
				require.NoError(t, err)
				defer ln.Close()
				p := s.proxy(addr)
				p.Upstream.Protocols = new(http.Protocols)
				p.Upstream.Protocols.SetUnencryptedHTTP2(true)
				if secure {
					p.Upstream.Protocols.SetHTTP2(true)
					p.Upstream.TLS = func(*balance.Server) *tls.Config { return &tls.Config{InsecureSkipVerify: true} }
					ln = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{chaosCert(t)}, NextProtos: []string{"h2"}})
				}
				p.Timeout, p.Retry.Tries = time.Second, 1
				stop := make(chan struct{})
				go func() {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					defer c.Close()
					_, _ = io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
					fr := http2.NewFramer(c, c)
					_ = fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})
					_ = fr.WriteWindowUpdate(0, 1<<29)
					for {
						f, err := fr.ReadFrame()
						if _, ok := f.(*http2.DataFrame); ok || err != nil {
							break
						}
					}
					<-stop
				}()
				now, rec := time.Now(), httptest.NewRecorder()
				p.ServeHTTP(rec, httptest.NewRequest("POST", "http://a.test/", &zeros{8 << 20}))
				require.Equal(t, 504, rec.Code)
				require.Equal(t, time.Second, time.Since(now))
				close(stop)
				p.Upstream.CloseIdle()
				time.Sleep(time.Minute)
			})
		})
	}
}

// zeros is a body of n bytes.
type zeros struct{ n int }

func (e *zeros) Read(p []byte) (int, error) {
	n := min(e.n, len(p))
	if e.n -= n; n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// A connection does not hold the head of the request that it was opened for.
func TestConnectionsOwnTheirNames(t *testing.T) {
	for _, two := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := &site{T: t, net: l4test.NewNetwork()}
			s.slowSettings("10.0.1.2:80", 0)
			s.origin("10.0.1.1:80", echo)
			addr := "10.0.1.1:80"
			if two {
				addr = "10.0.1.2:80"
			}
			p := s.proxy(addr)
			var name string
			p.Upstream.TLSName = func(x *Exchange, s *balance.Server) string { name = HostOnly(x, s); return name }
			if two {
				p.Upstream.Protocols = new(http.Protocols)
				p.Upstream.Protocols.SetUnencryptedHTTP2(true)
			}
			rec := httptest.NewRecorder()
			p.ServeHTTP(rec, httptest.NewRequest("GET", "http://a.test/", nil))
			require.Equal(t, 200, rec.Code)
			h := p.Upstream.host(p.Pool.Server(addr))
			var kept string
			if two {
				kept = h.twos[0].id.tlsName
			} else {
				kept = h.idle[0].id.tlsName
			}
			require.Equal(t, "a.test", kept)
			require.NotSame(t, unsafe.StringData(name), unsafe.StringData(kept))
		})
	}
}
