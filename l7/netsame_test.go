// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4/l4test"
)

var dateLine = regexp.MustCompile(`Date: [^\r]*\r\n`)

// rawReply returns all that a server of those handlers sends for a request, and
// when.
func rawReply(t *testing.T, request string, serve func(n *l4test.Network) (h http.Handler, native bool)) (reply string, after time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		n := l4test.NewNetwork()
		ln, err := n.Listen("tcp", "10.0.0.1:80")
		require.NoError(t, err)
		h, native := serve(n)
		var stop func() error
		done := make(chan error, 1)
		if native {
			srv := &Server{Handler: h, Logger: slog.New(slog.DiscardHandler)}
			stop = srv.Close
			go func() { done <- srv.Serve(ln) }()
		} else {
			srv := &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
			stop = srv.Close
			go func() { done <- srv.Serve(ln) }()
		}
		c, err := n.DialContext(t.Context(), "tcp", "10.0.0.1:80")
		require.NoError(t, err)
		start := time.Now()
		_, err = io.WriteString(c, request)
		require.NoError(t, err)
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		b, _ := io.ReadAll(c)
		after = time.Since(start)
		reply = dateLine.ReplaceAllString(string(b), "")
		c.Close()
		synctest.Wait()
		require.NoError(t, stop())
		<-done
		time.Sleep(time.Second)
	})
	return reply, after
}

// inOrder returns a reply with its fields in order and its body whole: editors
// make net/http write them in another order, and in other pieces.
func inOrder(t *testing.T, reply string) string {
	head, _, _ := strings.Cut(reply, "\r\n\r\n")
	lines := strings.Split(head, "\r\n")
	slices.Sort(lines[1:])
	resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(reply)), nil)
	require.NoError(t, err)
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return fmt.Sprintf("%q %q %v", lines, b, resp.Trailer)
}

// Plain handlers answer under Server what they answer under http.Server, byte by
// byte, also inside a native handler that edits the reply.
func TestPlainHandlersAnswerTheSame(t *testing.T) {
	const get = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
	cases := map[string]struct {
		request string
		h       http.HandlerFunc
	}{
		"type by several writes": {get, func(w http.ResponseWriter, r *http.Request) {
			for _, s := range []string{"<", "html", "><body>"} {
				_, _ = io.WriteString(w, s)
			}
		}},
		"type by the first 512 bytes": {get, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, strings.Repeat("a", 511))
			_, _ = w.Write(bytes.Repeat([]byte{0}, 4000))
		}},
		"type before a flush": {get, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "<")
			w.(http.Flusher).Flush()
			_, _ = io.WriteString(w, "html>")
		}},
		"fields after the first write": {get, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Before", "1")
			_, _ = io.WriteString(w, "text")
			w.Header().Set("X-After", "1")
			w.Header().Del("X-Before")
		}},
		"empty write": {get, func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(nil) }},
		"nothing":     {get, func(w http.ResponseWriter, r *http.Request) {}},
		"encoded": {get, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "x")
			_, _ = io.WriteString(w, "<html>")
		}},
		"status and type": {get, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(404); _, _ = io.WriteString(w, "<html>") }},
		"trailer": {get, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "X-T")
			_, _ = io.WriteString(w, "x")
			w.(http.Flusher).Flush()
			w.Header().Set("X-T", "v")
		}},
		"trailer, no flush": {get, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "X-T")
			_, _ = io.WriteString(w, strings.Repeat("x", 10))
			w.Header().Set("X-T", "v")
		}},
		"read deadline": {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\nab", func(w http.ResponseWriter, r *http.Request) {
			err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(2 * time.Second))
			start := time.Now()
			b, rerr := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%v %s %v %v %v", err, b, rerr, errors.Is(rerr, os.ErrDeadlineExceeded), time.Since(start))
		}},
		"MaxBytesHandler": {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\nabcde", func(w http.ResponseWriter, r *http.Request) {
			http.MaxBytesHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				b, err := io.ReadAll(r.Body)
				fmt.Fprintf(w, "%s %v", b, err)
			}), 3).ServeHTTP(w, r)
		}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			want, wantAfter := rawReply(t, tc.request, func(*l4test.Network) (http.Handler, bool) { return tc.h, false })
			got, after := rawReply(t, tc.request, func(*l4test.Network) (http.Handler, bool) { return tc.h, true })
			if name == "MaxBytesHandler" { // net/http knows its own writer, so the fields stand in another order
				require.Equal(t, inOrder(t, want), inOrder(t, got))
				got = want
			}
			require.Equal(t, want, got)
			require.Equal(t, wantAfter, after)
			edited := func(*l4test.Network) (http.Handler, bool) {
				return HandlerFunc(func(x *Exchange) {
					x.OnReply(ReplyFunc(func(x *Exchange, r *Reply) {}))
					Serve(tc.h, x)
				}), true
			}
			got, _ = rawReply(t, tc.request, edited)
			require.Equal(t, inOrder(t, want), inOrder(t, got))
		})
	}
}

// A recorder, which shows the fields as they are, sees what editors have set.
func TestEditorsOfAHeldHeadReachARecorder(t *testing.T) {
	w := httptest.NewRecorder()
	(&EditHeader{Reply: []FieldEdit{SetField{Name: "X-Edited", Value: "yes"}}, Next: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "text")
		w.Header().Set("X-Since", "1")
	})}).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	require.Equal(t, "yes", w.Header().Get("X-Edited"))
	require.Equal(t, "1", w.Header().Get("X-Since"))
	require.Empty(t, w.Result().Header.Get("X-Since"))
	require.Equal(t, "text/plain; charset=utf-8", w.Result().Header.Get("Content-Type"))
}

// gin's Stream asks for it.
func TestForeignHandlersHaveACloseNotifier(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		return &Capture{Next: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			//lint:ignore SA1019 it is what is tested
			gone := w.(http.CloseNotifier).CloseNotify()
			select {
			case <-gone:
				t.Error("the client is there")
			case <-time.After(time.Second):
			}
		})}
	}, func(s *site) { require.Equal(s, 200, s.get("/").StatusCode) })
}

// The files of a multipart form end with the request.
func TestForeignMultipartFilesAreRemoved(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	var body bytes.Buffer
	mw := multipart.NewWriter(&body)
	fw, err := mw.CreateFormFile("f", "name")
	require.NoError(t, err)
	_, _ = fw.Write(make([]byte, 20<<10))
	require.NoError(t, mw.Close())
	onBoth(t, func(s *site) http.Handler {
		return &Capture{Next: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			require.NoError(s, r.ParseMultipartForm(1))
			list, _ := os.ReadDir(dir)
			fmt.Fprint(w, len(list))
		})}
	}, func(s *site) {
		a, err := s.ask(s.client, "/", body.String(), "Content-Type", mw.FormDataContentType())
		require.NoError(s, err)
		require.Equal(s, "1", a.body)
		synctest.Wait()
		list, err := os.ReadDir(dir)
		require.NoError(s, err)
		require.Empty(s, list)
	})
}

// A deadline, or an end, that a middleware sets to its context is not the
// client's: it gets a reply, and keeps its connection.
func TestSandwichMiddlewareEndsItsContext(t *testing.T) {
	cases := map[string]struct {
		with   func(ctx context.Context) (context.Context, context.CancelFunc)
		status int
	}{
		"timeout": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Second)
		}, 504},
		"cancel": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(time.Second, cancel)
			return ctx, cancel
		}, 502},
		"over before": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithDeadline(ctx, time.Now().Add(-time.Second))
		}, 504},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			onBoth(t, func(s *site) http.Handler {
				s.origin("10.0.1.1:80", func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/slow" {
						<-r.Context().Done()
					}
				})
				next := s.proxy("10.0.1.1:80")
				return &Capture{Next: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/slow" {
						ctx, cancel := tc.with(r.Context())
						defer cancel()
						r = r.WithContext(ctx)
					}
					next.ServeHTTP(w, r)
				})}
			}, func(s *site) {
				for range 2 {
					a := s.get("/slow")
					require.Equal(s, tc.status, a.StatusCode)
					require.False(s, a.Close)
					require.Equal(s, 200, s.get("/").StatusCode)
				}
			})
		})
	}
}

// What a handler around says of the body is the client's fault: too long, or not
// what it should be.
func TestSandwichBodyErrors(t *testing.T) {
	cases := map[string]struct {
		wrap   func(next http.Handler) http.Handler
		status int
	}{
		"MaxBytesHandler": {func(next http.Handler) http.Handler { return http.MaxBytesHandler(next, 10) }, 413},
		"decoder": {func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				r.Body = io.NopCloser(io.MultiReader(io.LimitReader(r.Body, 10), badReader{}))
				next.ServeHTTP(w, r)
			})
		}, 400},
		"panic": {func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				r.Body = io.NopCloser(panicReader{})
				next.ServeHTTP(w, r)
			})
		}, 500},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			onBoth(t, func(s *site) http.Handler {
				s.origin("10.0.1.1:80", echo)
				return &Capture{Next: tc.wrap(s.proxy("10.0.1.1:80"))}
			}, func(s *site) {
				a, err := s.ask(s.client, "/", strings.Repeat("a", 100))
				require.NoError(s, err)
				require.Equal(s, tc.status, a.StatusCode, a.body)
			})
		})
	}
}

type badReader struct{}

func (badReader) Read([]byte) (int, error) { return 0, errors.New("not gzip") }

type panicReader struct{}

func (panicReader) Read([]byte) (int, error) { panic("reader") }
