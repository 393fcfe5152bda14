// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
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
