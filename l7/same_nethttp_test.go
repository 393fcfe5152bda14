// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4/l4test"
)

// What a handler of net/http finds is the same on both fronts.

func TestForeignHandlersFindServerAndAddress(t *testing.T) {
	onBoth(t, func(*site) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, isServer := r.Context().Value(http.ServerContextKey).(*http.Server)
			fmt.Fprint(w, isServer, r.Context().Value(http.LocalAddrContextKey))
		})
	}, func(s *site) {
		require.Equal(s, "true 10.0.0.1:80", s.get("/").body)
	})
}

func TestNativeHandlersFindServerAndAddress(t *testing.T) {
	onBoth(t, func(*site) http.Handler {
		return HandlerFunc(func(x *Exchange) {
			ctx := x.Request().Context()
			_, isServer := ctx.Value(http.ServerContextKey).(*http.Server)
			x.Respond(200, nil, fmt.Sprint(isServer, ctx.Value(http.LocalAddrContextKey)))
		})
	}, func(s *site) {
		require.Equal(s, "true 10.0.0.1:80", s.get("/").body)
	})
}

func TestForeignHandlersSendNoDateIfTheySaySo(t *testing.T) {
	onBoth(t, func(*site) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Header()["Date"] = nil })
	}, func(s *site) {
		resp, err := s.client.Get("http://10.0.0.1/")
		require.NoError(s, err)
		resp.Body.Close()
		require.NotContains(s, resp.Header, "Date")
	})
}

func TestForeignHandlersSendNoLengthIfTheySaySo(t *testing.T) {
	onBoth(t, func(*site) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Content-Length"] = nil
			_, _ = io.WriteString(w, "OK")
		})
	}, func(s *site) {
		require.NotContains(s, s.get("/").Header, "Content-Length")
	})
}

func TestForeignReplyWithTrailerHasALengthOverHTTP2(t *testing.T) {
	onBoth(t, func(*site) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "X-Sum")
			_, _ = io.WriteString(w, "body")
			w.Header().Set("X-Sum", "1")
		})
	}, func(s *site) {
		resp, err := s.client.Get("http://10.0.0.1/")
		require.NoError(s, err)
		b, err := io.ReadAll(resp.Body)
		require.NoError(s, err)
		resp.Body.Close()
		require.Equal(s, "body", string(b))
		require.Equal(s, "1", resp.Trailer.Get("X-Sum"))
		if s.http2 {
			require.EqualValues(s, 4, resp.ContentLength)
		}
	})
}

func TestForeignWritersTakeStrings(t *testing.T) {
	onBoth(t, func(*site) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.(io.StringWriter).WriteString("a")
			_, err := w.(io.StringWriter).WriteString("b")
			if err != nil {
				panic(err)
			}
		})
	}, func(s *site) {
		require.Equal(s, "ab", s.get("/").body)
	})
}

func TestForeignWriteHeaderRefusesAsNetHTTP(t *testing.T) {
	onBoth(t, func(*site) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer func() { fmt.Fprint(w, recover()) }()
			w.WriteHeader(0)
		})
	}, func(s *site) {
		require.Equal(s, "invalid WriteHeader code 0", s.get("/").body)
	})
}

// The client of a handler that ends its goroutine, as FailNow of a test does,
// loses its connection, as with net/http.
func TestHandlersThatEndTheirGoroutine(t *testing.T) {
	for _, begun := range []bool{false, true} {
		for kind, h := range map[string]http.Handler{
			"foreign": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if begun {
					_, _ = io.WriteString(w, "half")
					w.(http.Flusher).Flush()
				}
				runtime.Goexit()
			}),
			"wrapped": &Wrap{With: func(http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if begun {
						_, _ = io.WriteString(w, "half")
						w.(http.Flusher).Flush()
					}
					runtime.Goexit()
				})
			}, Next: HandlerFunc(func(x *Exchange) {})},
			"native": HandlerFunc(func(x *Exchange) {
				runtime.Goexit()
			}),
		} {
			if begun && kind == "native" {
				continue // it replies as a whole
			}
			for _, front := range []Front{FrontByte, FrontHTTP2} {
				t.Run(fmt.Sprint(kind, front, begun), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						s := &site{T: t, net: l4test.NewNetwork(), http2: front == FrontHTTP2}
						ln, err := s.net.Listen("tcp", "10.0.0.1:80")
						require.NoError(t, err)
						ended := 0
						srv := &Server{Handler: h, Logger: slog.New(slog.DiscardHandler), OnDone: func(*Record) { ended++ }}
						done := make(chan error, 1)
						go func() { done <- srv.Serve(ln) }()
						resp, err := s.from("10.9.9.9").Get("http://10.0.0.1/")
						if err == nil {
							_, err = io.ReadAll(resp.Body)
							resp.Body.Close()
						}
						require.Error(t, err)
						ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
						defer cancel()
						require.NoError(t, srv.Shutdown(ctx))
						<-done
						require.Equal(t, 1, ended)
					})
				})
			}
		}
	}
}

// A listener need not be comparable, and is closed once, as with net/http.
func TestServeOnAListenerThatIsNotComparable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := l4test.NewNetwork()
		ln, err := n.Listen("tcp", "10.0.0.1:80")
		require.NoError(t, err)
		srv := &Server{Handler: http.NotFoundHandler()}
		done := make(chan error, 1)
		closed := 0
		go func() { done <- srv.Serve(odd{ln, []*int{&closed}}) }()
		synctest.Wait()
		require.NoError(t, srv.Close())
		require.ErrorIs(t, <-done, ErrServerClosed)
		require.Equal(t, 1, closed)
	})
}

type odd struct {
	net.Listener
	closed []*int
}

func (o odd) Close() error {
	*o.closed[0]++
	return o.Listener.Close()
}

// A reply that says Connection: close ends a connection of HTTP/2 too, once the streams
// under way have ended.
func TestForeignReplyEndsTheConnection(t *testing.T) {
	for name, wrap := range map[string]func(http.Handler) http.Handler{
		"leaf": func(h http.Handler) http.Handler { return h },
		"wrapped": func(h http.Handler) http.Handler {
			return &Wrap{With: func(next http.Handler) http.Handler { return h }, Next: HandlerFunc(func(*Exchange) {})}
		},
		"around a native one": func(h http.Handler) http.Handler {
			return &Wrap{With: func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Connection", "close")
					next.ServeHTTP(w, r)
				})
			}, Next: HandlerFunc(func(x *Exchange) { x.Respond(200, nil, x.Request().RemoteAddr) })}
		},
	} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, func(*site) http.Handler {
				return wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Connection", "close")
					_, _ = io.WriteString(w, r.RemoteAddr)
				}))
			}, func(s *site) {
				first := s.get("/").body
				synctest.Wait() // the client has seen GOAWAY
				require.NotEqual(s, first, s.get("/").body)
			})
		})
	}
}

// Below a handler that edits replies, a writer refuses what net/http's does.
func TestForeignWriterBelowEditorsRefusesAsNetHTTP(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		return HandlerFunc(func(x *Exchange) {
			x.OnReply(ReplyFunc(func(_ *Exchange, r *Reply) { r.Header.Set("X-Edited", "yes") }))
			Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/code" {
					func() {
						defer func() { w.Header().Set("X-Panic", fmt.Sprint(recover())) }()
						w.WriteHeader(0)
					}()
					w.WriteHeader(503)
					return
				}
				w.Header().Set("Content-Length", "3")
				_, err := io.WriteString(w, "longer")
				if err != http.ErrContentLength {
					s.Errorf("a write beyond the length: %v", err)
				}
				_, _ = io.WriteString(w, "abc")
			}), x)
		})
	}, func(s *site) {
		a := s.get("/code")
		require.Equal(s, 503, a.StatusCode)
		require.Equal(s, "invalid WriteHeader code 0", a.Header.Get("X-Panic"))
		require.Equal(s, "yes", a.Header.Get("X-Edited"))
	})
}

// A connection is asked for its address once: it may have to find it out.
func TestServerAsksForTheAddressOnce(t *testing.T) {
	for _, front := range []Front{FrontByte, FrontHTTP2} {
		synctest.Test(t, func(t *testing.T) {
			s := &site{T: t, net: l4test.NewNetwork(), http2: front == FrontHTTP2}
			ln, err := s.net.Listen("tcp", "10.0.0.1:80")
			require.NoError(t, err)
			var asked atomic.Int32
			srv := &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.RemoteAddr) })}
			done := make(chan error, 1)
			go func() { done <- srv.Serve(askedListener{ln, &asked}) }()
			c := s.from("10.9.9.9")
			for range 2 {
				resp, err := c.Get("http://10.0.0.1/")
				require.NoError(t, err)
				b, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				require.Contains(t, string(b), "10.9.9.9:")
			}
			c.CloseIdleConnections()
			require.NoError(t, srv.Shutdown(t.Context()))
			require.ErrorIs(t, <-done, ErrServerClosed)
			require.EqualValues(t, 1, asked.Load())
		})
	}
}

type askedListener struct {
	net.Listener
	asked *atomic.Int32
}

func (l askedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return askedConn{c, l.asked}, err
}

type askedConn struct {
	net.Conn
	asked *atomic.Int32
}

func (c askedConn) RemoteAddr() net.Addr {
	c.asked.Add(1)
	return c.Conn.RemoteAddr()
}

// CONNECT has its target in URL.Host, and a read deadline that has passed lasts.
func TestForeignRequestsAsNetHTTPHasThem(t *testing.T) {
	onBoth(t, func(*site) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodConnect {
				fmt.Fprintf(w, "%s %s %s", r.URL.Host, r.Host, r.URL.Path)
				return
			}
			rc := http.NewResponseController(w)
			if err := rc.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
				_, _ = io.WriteString(w, err.Error())
				return
			}
			for range 3 {
				_, err := r.Body.Read(make([]byte, 1))
				fmt.Fprint(w, errors.Is(err, os.ErrDeadlineExceeded), " ")
			}
		})
	}, func(s *site) {
		if s.http2 {
			req, _ := http.NewRequest("CONNECT", "http://10.0.0.1", nil)
			req.Host = "b.test:443"
			resp, err := s.client.Do(req)
			require.NoError(s, err)
			b, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			require.Equal(s, "b.test:443 b.test:443 ", string(b))
		}
		pr, pw := io.Pipe() // nothing comes
		defer pw.Close()
		req, _ := http.NewRequest("POST", "http://10.0.0.1/", pr)
		resp, err := s.client.Do(req)
		require.NoError(s, err)
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		require.Equal(s, "true true true ", string(b))
	})
}

// Over HTTP/2 a handler may serve CONNECT by its Body and its writer: what it writes
// behind 200 is the tunnel's.
func TestForeignHandlerServesConnectOverHTTP2(t *testing.T) {
	onBoth(t, func(*site) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			b := make([]byte, 100)
			for {
				n, err := r.Body.Read(b)
				_, _ = w.Write(b[:n])
				w.(http.Flusher).Flush()
				if err != nil {
					return
				}
			}
		})
	}, func(s *site) {
		if !s.http2 {
			return
		}
		pr, pw := io.Pipe()
		req, _ := http.NewRequest("CONNECT", "http://10.0.0.1", pr)
		req.Host = "b.test:443"
		resp, err := s.client.Do(req)
		require.NoError(s, err)
		b := make([]byte, 4)
		for _, word := range []string{"ping", "pong"} {
			_, _ = io.WriteString(pw, word)
			_, err = io.ReadFull(resp.Body, b)
			require.NoError(s, err)
			require.Equal(s, word, string(b))
		}
		pw.Close()
		rest, err := io.ReadAll(resp.Body)
		require.NoError(s, err)
		require.Empty(s, rest)
		resp.Body.Close()
	})
}

// A string goes to net/http as one, so that its chunks are the same; a request over
// HTTP/2 has its Content-Length in the Header; and a handler that promises a body and
// writes none has no head sent over HTTP/2.
func TestForeignBytesAreNetHTTPs(t *testing.T) {
	long := strings.Repeat("long ", 1000)
	raw := make(map[Front]string)
	onBoth(t, func(*site) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/long":
				_, _ = io.WriteString(w, long)
			case "/none":
				w.Header().Set("Content-Length", "5")
			default:
				fmt.Fprint(w, r.Header.Get("Content-Length"))
			}
		})
	}, func(s *site) {
		a, err := s.ask(s.client, "/", "body")
		require.NoError(s, err)
		require.Equal(s, "4", a.body)
		resp, err := s.client.Get("http://10.0.0.1/none")
		if s.http2 {
			require.Error(s, err)
			return
		}
		require.NoError(s, err)
		resp.Body.Close()
		c, err := s.net.DialContext(s.Context(), "tcp", "10.0.0.1:80")
		require.NoError(s, err)
		defer c.Close()
		_, _ = io.WriteString(c, "GET /long HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
		b, _ := io.ReadAll(c)
		front := FrontStandard
		if s.byByte {
			front = FrontByte
		}
		raw[front] = string(b)
	})
	require.Contains(t, raw[FrontByte], long[:2000])
	require.Equal(t, raw[FrontStandard], raw[FrontByte])
}
