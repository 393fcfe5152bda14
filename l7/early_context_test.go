// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A reply that comes before the client has sent its body ends the reading of the body,
// but neither the connection nor, therefore, the context of the request: a TimeoutHandler
// around would answer 503 in its place.
func TestEarlyReplyEndsNoContext(t *testing.T) {
	for _, stalled := range []bool{true, false} {
		var ended error
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t, false)
			s.origin("10.0.1.1:80", func(w http.ResponseWriter, r *http.Request) {
				_ = http.NewResponseController(w).EnableFullDuplex()
				w.WriteHeader(401)
				_, _ = io.WriteString(w, "login")
			})
			proxy := s.proxy("10.0.1.1:80")
			s.serve(&Server{Handler: http.TimeoutHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				proxy.ServeHTTP(w, r)
				time.Sleep(time.Millisecond)
				ended = context.Cause(r.Context())
			}), time.Hour, "late")})
			for i := range 10 {
				over := make(chan struct{})
				pr, pw := io.Pipe()
				go func() {
					for {
						if _, err := pw.Write(make([]byte, 1000)); err != nil || stalled {
							return
						}
						select {
						case <-over:
							return
						case <-time.After(time.Millisecond):
						}
					}
				}()
				req, err := http.NewRequest("POST", "http://10.0.0.1/", pr)
				require.NoError(t, err)
				if i%2 == 0 {
					req.ContentLength = 1 << 30
				}
				start := time.Now()
				resp, err := s.client.Do(req)
				require.NoError(t, err)
				require.Equal(t, 401, resp.StatusCode)
				require.Less(t, time.Since(start), time.Second)
				b, err := io.ReadAll(resp.Body)
				require.NoError(t, err)
				require.Equal(t, "login", string(b))
				resp.Body.Close()
				close(over)
				pw.Close()
				synctest.Wait()
				require.NoError(t, ended)
			}
			time.Sleep(time.Second) // net/http still waits before it closes
		})
	}
}

// So does one that comes within a chunk, and the end of a wait for the body.
func TestHalfABodyEndsNoContext(t *testing.T) {
	for target, status := range map[string]int{"/": 401, "/wait": 408} {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t, false)
			s.origin("10.0.1.1:80", func(w http.ResponseWriter, r *http.Request) {
				_ = http.NewResponseController(w).EnableFullDuplex()
				if r.URL.Path == "/wait" {
					_, _ = io.Copy(io.Discard, r.Body)
				}
				w.WriteHeader(401)
			})
			s.serve(&Server{BodyTimeout: time.Second, Handler: http.TimeoutHandler(s.proxy("10.0.1.1:80"), time.Hour, "late")})
			for range 10 {
				c, err := s.net.DialContext(t.Context(), "tcp", "10.0.0.1:80")
				require.NoError(t, err)
				_, err = io.WriteString(c, "POST "+target+" HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n8000\r\nsome")
				require.NoError(t, err)
				resp, err := http.ReadResponse(bufio.NewReader(c), nil)
				require.NoError(t, err)
				require.Equal(t, status, resp.StatusCode)
				c.Close()
			}
			time.Sleep(time.Minute)
		})
	}
}

// A reply that begins early, further inside than the handler that has given up waiting,
// changes nothing of the outer exchange. For the race detector.
func TestEarlyReplyBehindATimeoutHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, false)
		s.origin("10.0.1.1:80", func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).EnableFullDuplex()
			time.Sleep(20 * time.Millisecond)
			w.WriteHeader(401)
		})
		proxy := s.proxy("10.0.1.1:80")
		late := make(chan struct{})
		pass := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer close(late)
			proxy.ServeHTTP(w, r.WithContext(context.WithoutCancel(r.Context())))
		})
		s.serve(&Server{Handler: http.TimeoutHandler(&Capture{Next: pass}, 10*time.Millisecond, "late")})
		pr, pw := io.Pipe()
		go func() { _, _ = pw.Write([]byte("some")) }()
		req, err := http.NewRequest("POST", "http://10.0.0.1/", pr)
		require.NoError(t, err)
		resp, err := s.client.Do(req)
		require.NoError(t, err)
		require.Equal(t, 503, resp.StatusCode)
		resp.Body.Close()
		pw.Close()
		<-late
	})
}

// A handler may reply while another goroutine reads the body of the request, as an
// [http.Transport] does for an httputil.ReverseProxy. For the race detector.
func TestForeignRepliesDuringAReadOfTheBody(t *testing.T) {
	reply := func(w http.ResponseWriter, r *http.Request) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				if _, err := r.Body.Read(make([]byte, 1)); err != nil {
					return
				}
			}
		}()
		runtime.Gosched() // no sleep: that would order what both do
		_, _ = io.WriteString(w, "reply")
		_ = http.NewResponseController(w).Flush()
		<-done
	}
	around := func(n http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { n.ServeHTTP(opaque{w}, r) })
	}
	for name, h := range map[string]http.Handler{
		"leaf":   http.HandlerFunc(reply),
		"inside": around(&Capture{Next: http.HandlerFunc(reply)}),
		"inside, with a third exchange": around(&Capture{Next: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			done := make(chan struct{})
			defer func() { <-done }()
			go func() { // its record is taken over when the reply begins
				defer close(done)
				ServeHTTP(HandlerFunc(func(x *Exchange) { x.Respond(204, nil, "") }), httptest.NewRecorder(), r)
			}()
			reply(w, r)
		})}),
		"Wrap": &Wrap{With: func(http.Handler) http.Handler { return http.HandlerFunc(reply) }, Next: HandlerFunc(func(*Exchange) {})},
	} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, func(*site) http.Handler { return h }, func(s *site) {
				for range 20 {
					a, err := s.ask(s.client, "/", strings.Repeat("x", 300))
					require.NoError(s, err)
					require.Equal(s, "reply", a.body[:5])
				}
			})
		})
	}
}
