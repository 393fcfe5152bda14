// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4/l4test"
)

// values is a handler, native or not, that answers with the value that ConnContext
// has put into the context.
func values(native bool) http.Handler {
	if native {
		return HandlerFunc(func(x *Exchange) { x.Respond(200, nil, fmt.Sprint(x.Context().Value(foreignKey{}))) })
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Context().Value(foreignKey{})) })
}

func TestConnContext(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		for _, native := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, h2)
				n := 0
				s.serve(&Server{Handler: values(native), ConnContext: func(ctx context.Context, c net.Conn) context.Context {
					n++
					return context.WithValue(ctx, foreignKey{}, fmt.Sprint(n, " ", c.RemoteAddr().(*net.TCPAddr).IP))
				}})
				for range 2 {
					require.Equal(t, "1 10.9.9.9", s.get("/").body)
				}
				s.client = s.from("10.9.9.8")
				require.Equal(t, "2 10.9.9.8", s.get("/").body)
			})
		}
	}
}

// A ConnContext that panics or returns nil costs its connection, and no other.
func TestConnContextPanics(t *testing.T) {
	for _, how := range []string{"panic", "nil"} {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t, false)
			n := 0
			srv := &Server{Handler: values(true), MaxConns: 1, Logger: slog.New(slog.DiscardHandler), ConnContext: func(ctx context.Context, c net.Conn) context.Context {
				if n++; n == 1 {
					if how == "panic" {
						panic("boom")
					}
					return nil
				}
				return context.WithValue(ctx, foreignKey{}, "good")
			}}
			s.serve(srv)
			c, err := s.net.DialContext(t.Context(), "tcp", "10.0.0.1:80")
			require.NoError(t, err)
			_, err = c.Read(make([]byte, 1))
			require.Error(t, err)
			_ = c.Close()
			require.Equal(t, "good", s.get("/").body)
		})
	}
}

func TestRegisterOnShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &Server{Handler: values(true), Logger: slog.New(slog.DiscardHandler)}
		var told atomic.Int32
		hang := make(chan struct{})
		srv.RegisterOnShutdown(func() { told.Add(1); <-hang })
		srv.RegisterOnShutdown(func() { told.Add(1); panic("boom") })
		require.NoError(t, srv.Shutdown(t.Context()))
		synctest.Wait()
		require.Equal(t, int32(2), told.Load())
		close(hang)
	})
}

// raw sends a request over a connection of its own, and returns it.
func (s *site) raw(request string) (net.Conn, *bufio.Reader) {
	c, err := s.net.DialContext(s.Context(), "tcp", "10.0.0.1:80")
	require.NoError(s, err)
	s.Cleanup(func() { _ = c.Close() })
	_, err = io.WriteString(c, request)
	require.NoError(s, err)
	return c, bufio.NewReader(c)
}

func TestSetKeepAlivesEnabled(t *testing.T) {
	const get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	for _, native := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t, false)
			release := make(chan struct{})
			slow := make(chan struct{}, 1)
			h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/slow" {
					slow <- struct{}{}
					<-release
				}
				values(native).ServeHTTP(w, r)
			})
			srv := &Server{Handler: h}
			if native {
				srv.Handler = HandlerFunc(func(x *Exchange) {
					if x.Path == "/slow" {
						slow <- struct{}{}
						<-release
					}
					Serve(values(true), x)
				})
			}
			s.serve(srv)
			reply := func(r *bufio.Reader) *http.Response {
				res, err := http.ReadResponse(r, nil)
				require.NoError(t, err)
				_, _ = io.Copy(io.Discard, res.Body)
				return res
			}
			_, idle := s.raw(get)
			require.False(t, reply(idle).Close)
			_, busy := s.raw("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
			<-slow
			synctest.Wait()
			srv.SetKeepAlivesEnabled(false)
			_, err := idle.ReadByte()
			require.ErrorIs(t, err, io.EOF)
			close(release)
			require.True(t, reply(busy).Close)
			_, err = busy.ReadByte()
			require.ErrorIs(t, err, io.EOF)
			_, fresh := s.raw(get + get)
			require.True(t, reply(fresh).Close)
			srv.SetKeepAlivesEnabled(true)
			_, again := s.raw(get + get)
			require.False(t, reply(again).Close)
			require.False(t, reply(again).Close)
		})
	}
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, true)
		srv := &Server{Handler: values(true)}
		s.serve(srv)
		s.get("/")
		require.Equal(t, 1, srv.Open())
		srv.SetKeepAlivesEnabled(false)
		synctest.Wait()
		require.Zero(t, srv.Open())
		s.get("/")
		synctest.Wait()
		require.Zero(t, srv.Open(), "the next one ends with its request")
	})
}

// There are no more connections than MaxConns, those of the standard front and
// hijacked ones included.
func TestServerMaxConns(t *testing.T) {
	for name, h := range map[string]http.Handler{
		"native":  values(true),
		"foreign": values(false),
		"wrapped": &Wrap{With: foreigners["plain"], Next: HandlerFunc(wrapNext)},
		"hijacked": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				panic(err)
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			go func() { _, _ = io.Copy(io.Discard, c); _ = c.Close() }()
		}),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, false)
				srv := &Server{Handler: h, MaxConns: 2, IdleTimeout: time.Hour}
				s.serve(srv)
				const get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
				var conns []net.Conn
				answered := func(r *bufio.Reader) bool {
					done := make(chan bool, 1)
					go func() { _, err := r.ReadByte(); done <- err == nil }()
					synctest.Wait()
					select {
					case ok := <-done:
						return ok
					default:
						return false
					}
				}
				var readers []*bufio.Reader
				for range 4 {
					c, r := s.raw(get)
					conns, readers = append(conns, c), append(readers, r)
				}
				require.True(t, answered(readers[0]))
				require.True(t, answered(readers[1]))
				third, err := s.net.DialContext(t.Context(), "tcp", "10.0.0.1:80")
				require.NoError(t, err)
				synctest.Wait()
				require.Equal(t, 2, srv.Open())
				require.EqualValues(t, 1, srv.Stats().AtLimit, "it waits once, however many clients do")
				_ = third.Close()
				_ = conns[0].Close()
				require.True(t, answered(readers[2]))
				_ = conns[1].Close()
				require.True(t, answered(readers[3]))
				require.LessOrEqual(t, srv.Open(), 2)
			})
		})
	}
}

// Protocols that are not spoken end the connection without a word.
func TestServerProtocols(t *testing.T) {
	protos := func(set func(p *http.Protocols)) *http.Protocols {
		p := new(http.Protocols)
		set(p)
		return p
	}
	get := func(p *http.Protocols, h2 bool) (err error) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t, h2)
			s.serve(&Server{Handler: values(true), Protocols: p})
			_, err = s.ask(s.client, "/", "")
		})
		return err
	}
	require.NoError(t, get(nil, false))
	require.NoError(t, get(nil, true))
	one := protos(func(p *http.Protocols) { p.SetHTTP1(true); p.SetHTTP2(true) })
	require.NoError(t, get(one, false))
	require.Error(t, get(one, true))
	prior := protos(func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) })
	require.Error(t, get(prior, false))
	require.NoError(t, get(prior, true))

	require.Equal(t, []string{"h2", "http/1.1", "http/1.0"}, new(Server).nextProtos())
	require.Equal(t, []string{"h2"}, (&Server{Protocols: protos(func(p *http.Protocols) { p.SetHTTP2(true) })}).nextProtos())
	require.Equal(t, []string{"http/1.1", "http/1.0"}, (&Server{Protocols: protos(func(p *http.Protocols) { p.SetHTTP1(true) })}).nextProtos())
	require.Error(t, (&Server{Protocols: new(http.Protocols)}).Check())
}

// OPTIONS * is the handler's, a plain one's too: nothing answers it before, and the
// request behind it is another.
func TestGeneralOptionsAreTheHandlers(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Method, " ", r.RequestURI, ";") })
	got, _ := rawReply(t, "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
		func(*l4test.Network) (http.Handler, bool) { return h, true })
	require.Contains(t, got, "OPTIONS *;")
	require.Contains(t, got, "GET /next;")
}
