// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// onByteFront tells a story to srv in fake time. No connection may be handed over to the
// embedded http.Server.
func onByteFront(t *testing.T, srv *Server, story func(s *site)) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, false)
		s.serve(srv)
		story(s)
		srv.mu.Lock()
		defer srv.mu.Unlock()
		require.Empty(t, srv.handed)
	})
}

// A handler of net/http, and middleware around a native one, keep the connection on the
// byte front: without a body, and with one that has come.
func TestForeignStaysOnTheByteFront(t *testing.T) {
	native := HandlerFunc(func(x *Exchange) { x.Respond(200, nil, "native") })
	around := middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		w.Header().Set("X-Around", "yes")
		next.ServeHTTP(w, r)
	})(native)
	leaf := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		_, _ = io.WriteString(w, r.Method+" "+string(b))
		if err != nil {
			_, _ = io.WriteString(w, err.Error())
		}
	})
	mux := http.NewServeMux()
	mux.Handle("/around", around)
	mux.Handle("/leaf", leaf)
	var fronts []Front
	srv := &Server{Handler: mux, OnDone: func(r *Record) { fronts = append(fronts, r.Front) }}
	onByteFront(t, srv, func(s *site) {
		for range 3 {
			a, err := s.ask(s.client, "/around", "")
			require.NoError(t, err)
			require.Equal(t, "native", a.body)
			require.Equal(t, "yes", a.Header.Get("X-Around"))
			a, err = s.ask(s.client, "/leaf", "")
			require.NoError(t, err)
			require.Equal(t, "GET ", a.body)
			a, err = s.ask(s.client, "/leaf", "hello")
			require.NoError(t, err)
			require.Equal(t, "POST hello", a.body)
		}
		synctest.Wait()
		require.Len(t, fronts, 9)
		require.EqualValues(t, 1, srv.Stats().Accepted)
	})
}

// The context of a request ends when its handler has returned, as in net/http, also for
// contexts below it, and the next request on the connection has its own.
func TestContextEndsWithTheHandler(t *testing.T) {
	var kept, below, unused []context.Context
	var ended chan error
	onBoth(t, func(*site) http.Handler {
		ended = make(chan error, 10)
		kept, below, unused = nil, nil, nil
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			unused = append(unused, r.Context())
			if r.URL.Path == "/unused" {
				return
			}
			ctx, cancel := context.WithTimeout(r.Context(), time.Hour)
			_ = cancel // the end of the request does it
			kept, below = append(kept, r.Context()), append(below, ctx)
			context.AfterFunc(ctx, func() { ended <- ctx.Err() })
			require.NoError(t, r.Context().Err())
			require.NoError(t, ctx.Err())
		})
	}, func(s *site) {
		for range 2 {
			_, err := s.ask(s.client, "/unused", "")
			require.NoError(s, err)
			_, err = s.ask(s.client, "/", "")
			require.NoError(s, err)
			require.ErrorIs(s, <-ended, context.Canceled)
		}
		for _, list := range [][]context.Context{kept, below, unused} {
			for _, ctx := range list {
				require.ErrorIs(s, ctx.Err(), context.Canceled)
				<-ctx.Done()
			}
		}
	})
}

// A handler that ignores the errors of Flush learns by Write that the client has gone.
func TestWriteFailsAfterAFailedFlush(t *testing.T) {
	var failed chan error
	onBoth(t, func(*site) http.Handler {
		failed = make(chan error, 1)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for range 1000 {
				if _, err := io.WriteString(w, "again "); err != nil {
					failed <- err
					return
				}
				w.(http.Flusher).Flush()
				time.Sleep(time.Millisecond)
			}
			failed <- nil
		})
	}, func(s *site) {
		req, _ := http.NewRequest("GET", "http://10.0.0.1/", nil)
		resp, err := s.client.Do(req)
		require.NoError(s, err)
		_, err = io.ReadFull(resp.Body, make([]byte, 6))
		require.NoError(s, err)
		resp.Body.Close()
		require.Error(s, <-failed)
	})
}

// What net/http does with a connection that a handler has hijacked, or has changed to
// another protocol without being asked to.
func TestHijackOnTheByteFront(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/switch" {
			w.Header().Set("Connection", "Upgrade")
			w.Header().Set("Upgrade", "foo")
			w.WriteHeader(101)
		}
		c, brw, err := w.(http.Hijacker).Hijack()
		require.NoError(t, err)
		defer c.Close()
		_, err = w.Write(nil)
		require.ErrorIs(t, err, http.ErrHijacked)
		w.WriteHeader(0) // does not panic any more
		line, err := brw.ReadString('\n')
		require.NoError(t, err)
		_, _ = io.WriteString(c, "got "+line)
	})
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, false)
		s.serve(&Server{Handler: h})
		for path, want := range map[string]string{
			"/":       "got hello\n",
			"/switch": "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: foo\r\nDate: Sat, 01 Jan 2000 00:00:00 GMT\r\n\r\ngot hello\n",
		} {
			c, err := s.net.DialContext(t.Context(), "tcp", "10.0.0.1:80")
			require.NoError(t, err)
			_, _ = io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nhello\n")
			b, err := io.ReadAll(c)
			require.NoError(t, err)
			require.Equal(t, want, string(b))
			c.Close()
		}
	})
}

// A read deadline that a handler has set and that has passed lasts for the request, also
// where the body is read by the byte front.
func TestPassedReadDeadlineLasts(t *testing.T) {
	wrapped := &Wrap{Next: HandlerFunc(func(x *Exchange) {}), With: func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(time.Second))
			for range 3 {
				_, err := r.Body.Read(make([]byte, 1))
				_, _ = io.WriteString(w, map[bool]string{true: "late "}[errors.Is(err, os.ErrDeadlineExceeded)])
			}
		})
	}}
	onByteFront(t, &Server{Handler: wrapped}, func(s *site) {
		c, err := s.net.DialContext(t.Context(), "tcp", "10.0.0.1:80")
		require.NoError(t, err)
		defer c.Close()
		_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		require.NoError(t, err)
		b := new(strings.Builder)
		_, err = io.CopyN(b, resp.Body, 15)
		require.NoError(t, err)
		require.Equal(t, "late late late ", b.String())
	})
}
