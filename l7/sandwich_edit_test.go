// SPDX-License-Identifier: Apache-2.0

package l7

//lint:file-ignore SA1019 the client of net/http sends no extended CONNECT

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
)

// What a middleware has changed in the request is what is forwarded.
func TestSandwichForwardsWhatWasChanged(t *testing.T) {
	cases := map[string]struct {
		change func(r *http.Request) *http.Request
		want   string
	}{
		"nothing":   {func(r *http.Request) *http.Request { return r }, "POST /a%2fb?q=%3d 10.0.0.1\nX-A: 1\nhello 5"},
		"method":    {func(r *http.Request) *http.Request { r.Method = "PUT"; return r }, "PUT /a%2fb?q=%3d 10.0.0.1\nX-A: 1\nhello 5"},
		"host":      {func(r *http.Request) *http.Request { r.Host = "other.test"; return r }, "POST /a%2fb?q=%3d other.test\nX-A: 1\nhello 5"},
		"path":      {func(r *http.Request) *http.Request { r.URL.Path, r.URL.RawPath = "/new", ""; return r }, "POST /new?q=%3d 10.0.0.1\nX-A: 1\nhello 5"},
		"raw path":  {func(r *http.Request) *http.Request { r.URL.RawPath = ""; return r }, "POST /a/b?q=%3d 10.0.0.1\nX-A: 1\nhello 5"},
		"query":     {func(r *http.Request) *http.Request { r.URL.RawQuery = "n=1"; return r }, "POST /a%2fb?n=1 10.0.0.1\nX-A: 1\nhello 5"},
		"URL":       {func(r *http.Request) *http.Request { r.URL = &url.URL{Path: "/u"}; return r }, "POST /u 10.0.0.1\nX-A: 1\nhello 5"},
		"header":    {func(r *http.Request) *http.Request { r.Header.Set("X-A", "2"); r.Header.Set("X-B", "3"); return r }, "POST /a%2fb?q=%3d 10.0.0.1\nX-A: 2\nX-B: 3\nhello 5"},
		"no header": {func(r *http.Request) *http.Request { r.Header = nil; return r }, "POST /a%2fb?q=%3d 10.0.0.1\nhello 5"},
		"body": {func(r *http.Request) *http.Request {
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader("longer than it was")), 18
			return r
		}, "POST /a%2fb?q=%3d 10.0.0.1\nX-A: 1\nlonger than it was 18"},
		"body of unknown length": {func(r *http.Request) *http.Request {
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader("unknown")), -1
			return r
		}, "POST /a%2fb?q=%3d 10.0.0.1\nX-A: 1\nunknown -1"},
		"body read before": {func(r *http.Request) *http.Request {
			b, _ := io.ReadAll(r.Body)
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(append(b, '!'))), int64(len(b)+1)
			return r
		}, "POST /a%2fb?q=%3d 10.0.0.1\nX-A: 1\nhello! 6"},
		"no body": {func(r *http.Request) *http.Request { r.Body, r.ContentLength = http.NoBody, 0; return r }, "POST /a%2fb?q=%3d 10.0.0.1\nX-A: 1\n 0"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			for _, outer := range []bool{true, false} { // a native handler around it
				t.Run(fmt.Sprint("outer=", outer), func(t *testing.T) {
					onBoth(t, func(s *site) http.Handler {
						s.origin("10.0.1.1:80", func(w http.ResponseWriter, r *http.Request) { echo(w, r); fmt.Fprint(w, " ", r.ContentLength) })
						next := s.proxy("10.0.1.1:80")
						h := http.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(w, tc.change(r.WithContext(r.Context()))) })) // not in place: net/http goes by its fields
						if outer {
							h = &Capture{Next: h}
						}
						return h
					}, func(s *site) {
						if strings.HasPrefix(name, "raw path") && !outer && s.Name()[strings.LastIndexByte(s.Name(), '/')+1:] == "standard" {
							return // nobody has seen the request before
						}
						for range 2 {
							a, err := s.ask(s.client, "/a%2fb?q=%3d", "hello", "X-A", "1")
							require.NoError(s, err)
							require.Equal(s, 200, a.StatusCode, a.body)
							require.Equal(s, tc.want, a.body)
						}
					})
				})
			}
		})
	}
}

// What handlers of an exchange share goes both ways through a foreign one.
func TestSandwichSharesValues(t *testing.T) {
	var outer, inner Key[string]
	for name, foreign := range allForeigners() {
		t.Run(name, func(t *testing.T) {
			onBoth(t, func(s *site) http.Handler {
				last := HandlerFunc(func(x *Exchange) {
					v, _ := outer.Get(x)
					require.Equal(s, uint64(7), x.Balance.Key)
					require.Equal(s, netip.MustParseAddr("203.0.113.7"), x.Client)
					require.Equal(s, "https", x.Scheme)
					inner.Set(x, "from inside")
					outer.Set(x, v+" and back")
					x.Record.Err = io.ErrClosedPipe
					x.Respond(200, nil, v)
				})
				h := foreign(foreign(&Capture{Next: foreign(last)}))
				return HandlerFunc(func(x *Exchange) {
					outer.Set(x, "from outside")
					x.Balance.Key, x.Client, x.Scheme = 7, netip.MustParseAddr("203.0.113.7"), "https"
					edited := false
					x.OnReply(ReplyFunc(func(x *Exchange, r *Reply) {
						v, _ := inner.Get(x)
						require.Equal(s, "from inside", v)
						require.Equal(s, 200, r.Status)
						outer.Set(x, "edited")
						edited = true
					}))
					Serve(h, x)
					v, _ := outer.Get(x)
					require.True(s, edited)
					require.Equal(s, "edited", v)
					require.Equal(s, io.ErrClosedPipe, x.Record.Err)
					require.Equal(s, l4.Local, x.Record.Termination.Cause)
				})
			}, func(s *site) {
				for range 2 {
					require.Equal(s, "from outside", s.get("/").body)
				}
			})
		})
	}
}

// A server ends an exchange through a sandwich with one record.
func TestSandwichHasOneRecord(t *testing.T) {
	for name, foreign := range allForeigners() {
		t.Run(name, func(t *testing.T) {
			for _, h2 := range []bool{false, true} {
				synctest.Test(t, func(t *testing.T) {
					var mu sync.Mutex
					var records []Record
					s := newSite(t, h2)
					s.origin("10.0.1.1:80", echo)
					p := s.proxy("10.0.1.1:80")
					p.Pool.Name = "pool"
					srv := &Server{Handler: &Capture{Next: foreign(&Capture{Next: p})}, OnDone: func(r *Record) { mu.Lock(); defer mu.Unlock(); records = append(records, *r) }}
					s.serve(srv)
					for range 3 {
						require.Equal(t, 200, s.get("/").StatusCode)
					}
					synctest.Wait()
					require.Len(t, records, 3)
					for _, r := range records {
						require.Equal(t, "pool 10.0.1.1:80 1 200 -- true", fmt.Sprint(r.Pool, " ", r.Server, " ", r.Tries, " ", r.Status, " ", r.Termination, " ", r.Assigned > 0 || r.FirstByte >= 0))
					}
				})
			}
		})
	}
}

// newSite returns a site without a gateway; serve starts one.
func newSite(t *testing.T, h2 bool) *site {
	s := &site{T: t, net: l4test.NewNetwork(), byByte: true, http2: h2}
	s.client = s.from("10.9.9.9")
	return s
}

func (s *site) serve(srv *Server) {
	ln, err := s.net.Listen("tcp", "10.0.0.1:80")
	require.NoError(s, err)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	s.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		require.NoError(s, srv.Shutdown(ctx))
		<-done
	})
}

// A foreign handler may call the inner one more than once, at once, and once it
// has returned. Each call has an exchange of its own; what comes too late goes
// nowhere.
func TestSandwichCalledAnyTime(t *testing.T) {
	ways := map[string]func(s *site, next http.Handler, late *sync.WaitGroup) http.Handler{
		"twice": func(_ *site, next http.Handler, _ *sync.WaitGroup) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				next.ServeHTTP(httptest.NewRecorder(), r.Clone(r.Context()))
				next.ServeHTTP(w, r)
			})
		},
		"at once": func(s *site, next http.Handler, _ *sync.WaitGroup) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				var wg sync.WaitGroup
				rec := make([]*httptest.ResponseRecorder, 4)
				for i := range rec {
					rec[i] = httptest.NewRecorder()
					wg.Go(func() { next.ServeHTTP(rec[i], r.Clone(r.Context())) })
				}
				wg.Wait()
				for _, rc := range rec[1:] {
					require.Equal(s, rec[0].Code, rc.Code)
				}
				w.WriteHeader(rec[0].Code)
				_, _ = w.Write(rec[0].Body.Bytes())
			})
		},
		"late": func(_ *site, next http.Handler, late *sync.WaitGroup) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				next.ServeHTTP(w, r)
				late.Go(func() {
					time.Sleep(time.Second)
					next.ServeHTTP(w, r)
				})
			})
		},
		"left behind": func(_ *site, next http.Handler, late *sync.WaitGroup) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				late.Go(func() { next.ServeHTTP(httptest.NewRecorder(), r) })
				time.Sleep(10 * time.Millisecond)
				next.ServeHTTP(w, r)
			})
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			var late *sync.WaitGroup
			onBoth(t, func(s *site) http.Handler {
				late = new(sync.WaitGroup)
				s.origin("10.0.1.1:80", echo)
				return &Access{Deny: ClientIn{netip.MustParsePrefix("192.0.2.1/32")}, Next: way(s, &Capture{Next: s.proxy("10.0.1.1:80")}, late)}
			}, func(s *site) {
				for i := range 3 {
					a := s.get("/", "X-A", fmt.Sprint(i))
					require.Equal(s, 200, a.StatusCode)
					require.Equal(s, fmt.Sprintf("GET / 10.0.0.1\nX-A: %d\n", i), a.body)
				}
				late.Wait()
			})
		})
	}
}

// TimeoutHandler answers in time, and what the inner handler is still doing then
// is broken off: its reads of the body as well.
func TestSandwichTimeoutHandler(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		s.origin("10.0.1.1:80", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				<-r.Context().Done()
			}
			echo(w, r)
		})
		return &Capture{Next: http.TimeoutHandler(&Capture{Next: s.proxy("10.0.1.1:80")}, time.Second, "late")}
	}, func(s *site) {
		start := time.Now()
		require.Equal(s, 503, s.get("/slow").StatusCode)
		require.Equal(s, time.Second, time.Since(start))
		a := s.get("/")
		require.Equal(s, "GET / 10.0.0.1\n", a.body, fmt.Sprint(a.StatusCode, a.Header))

		// A body that does not come.
		pr, pw := io.Pipe()
		req, _ := http.NewRequest("POST", "http://10.0.0.1/", pr)
		go func() { _, _ = pw.Write([]byte("x")); <-s.Context().Done(); pw.Close() }()
		resp, err := s.client.Do(req)
		require.NoError(s, err)
		require.Equal(s, 503, resp.StatusCode)
		resp.Body.Close()
		require.Equal(s, "GET / 10.0.0.1\n", s.get("/").body)
	})
}

// A goroutine that a handler leaves behind reads nothing of the body, and writes
// nothing of a reply, once the handler has returned.
func TestForeignLeavesReaderBehind(t *testing.T) {
	var err, werr error
	var wg *sync.WaitGroup
	onBoth(t, func(s *site) http.Handler {
		wg = new(sync.WaitGroup)
		return &Capture{Next: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			wg.Go(func() {
				_, err = io.ReadAll(r.Body)
				time.Sleep(time.Second)
				w.Header().Set("X", "late")
				w.WriteHeader(500)
				_, werr = w.Write([]byte("late"))
			})
			time.Sleep(10 * time.Millisecond)
		})}
	}, func(s *site) {
		for range 2 {
			pr, pw := io.Pipe()
			go func() { _, _ = pw.Write([]byte("x")) }()
			req, _ := http.NewRequest("POST", "http://10.0.0.1/", pr)
			resp, e := s.client.Do(req)
			require.NoError(s, e)
			require.Equal(s, 200, resp.StatusCode)
			b, _ := io.ReadAll(resp.Body)
			require.Empty(s, b)
			wg.Wait()
			pw.Close()
			require.Error(s, err)
			require.Error(s, werr)
		}
	})
}

// counting counts what goes through it, as the writers of loggers do.
type counting struct {
	http.ResponseWriter
	mu      *sync.Mutex
	heads   *[]int
	bytes   *int
	flushes *int
}

func (c counting) WriteHeader(status int) {
	c.mu.Lock()
	*c.heads = append(*c.heads, status)
	c.mu.Unlock()
	c.ResponseWriter.WriteHeader(status)
}

func (c counting) Write(p []byte) (int, error) {
	c.mu.Lock()
	*c.bytes += len(p)
	c.mu.Unlock()
	return c.ResponseWriter.Write(p)
}

func (c counting) Flush() {
	c.mu.Lock()
	*c.flushes++
	c.mu.Unlock()
	c.ResponseWriter.(http.Flusher).Flush()
}

func (c counting) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// A middleware that wraps the writer gets all of the reply: interim replies, each
// byte, flushes, the trailer.
func TestSandwichRepliesThroughTheWriter(t *testing.T) {
	var mu sync.Mutex
	var heads []int
	var count, flushes int
	onBoth(t, func(s *site) http.Handler {
		heads, count, flushes = nil, 0, 0
		s.origin("10.0.1.1:80", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</a>")
			w.WriteHeader(103)
			w.Header().Set("Trailer", "X-T")
			_, _ = io.WriteString(w, strings.Repeat("a", 1000))
			w.(http.Flusher).Flush()
			time.Sleep(time.Second)
			_, _ = io.WriteString(w, "b")
			w.Header().Set("X-T", "v")
		})
		inner := &Capture{Next: s.proxy("10.0.1.1:80")}
		return &Capture{Next: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Set", "outside")
			inner.ServeHTTP(counting{w, &mu, &heads, &count, &flushes}, r)
		})}
	}, func(s *site) {
		req, _ := http.NewRequest("GET", "http://10.0.0.1/", nil)
		resp, err := s.client.Do(req)
		require.NoError(s, err)
		first := make([]byte, 1000)
		start := time.Now()
		_, err = io.ReadFull(resp.Body, first)
		require.NoError(s, err)
		require.Zero(s, time.Since(start)) // flushed
		rest, err := io.ReadAll(resp.Body)
		require.NoError(s, err)
		resp.Body.Close()
		require.Equal(s, "b", string(rest))
		require.Equal(s, "v", resp.Trailer.Get("X-T"))
		require.Equal(s, "outside", resp.Header.Get("X-Set"))
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		require.Equal(s, []int{103, 200}, heads)
		require.Equal(s, 1001, count)
		require.Positive(s, flushes)
	})
}

// An upgrade through a sandwich: the 101 has what all handlers around have set.
func TestSandwichUpgrade(t *testing.T) {
	for name, wrap := range map[string]func(http.ResponseWriter) http.ResponseWriter{
		"bare":   func(w http.ResponseWriter) http.ResponseWriter { return w },
		"unwrap": func(w http.ResponseWriter) http.ResponseWriter { return unwrapped{w} },
		"opaque": func(w http.ResponseWriter) http.ResponseWriter { return opaque{w} },
	} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, func(s *site) http.Handler {
				s.origin("10.0.1.1:80", func(w http.ResponseWriter, r *http.Request) {
					c, brw, err := w.(http.Hijacker).Hijack()
					require.NoError(s, err)
					defer c.Close()
					_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Server: yes\r\n"+
						"Sec-WebSocket-Accept: "+acceptKey(r.Header.Get("Sec-WebSocket-Key"))+"\r\n\r\n")
					_, _ = io.Copy(c, brw)
				})
				inner := &EditHeader{Reply: []FieldEdit{SetField{Name: "X-Inner", Value: "yes"}}, Next: s.proxy("10.0.1.1:80")}
				return &EditHeader{Reply: []FieldEdit{SetField{Name: "X-Outer", Value: "yes"}}, Next: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("X-Foreign", "yes")
					inner.ServeHTTP(wrap(w), r)
				})}
			}, func(s *site) {
				if s.http2 {
					sandwichUpgradeOverHTTP2(s, name == "opaque")
					return
				}
				c, err := s.net.DialContext(s.Context(), "tcp", "10.0.0.1:80")
				require.NoError(s, err)
				defer c.Close()
				_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nping")
				br := bufio.NewReader(c)
				resp, err := http.ReadResponse(br, nil)
				require.NoError(s, err)
				require.Equal(s, "yes", resp.Header.Get("X-Outer"))
				require.Equal(s, "yes", resp.Header.Get("X-Foreign"))
				if name == "opaque" {
					require.Equal(s, 502, resp.StatusCode)
					return
				}
				require.Equal(s, 101, resp.StatusCode)
				require.Equal(s, []string{"yes"}, resp.Header.Values("X-Inner"))
				require.Equal(s, []string{"yes"}, resp.Header.Values("X-Server"))
				p := make([]byte, 4)
				_, err = io.ReadFull(br, p)
				require.NoError(s, err)
				require.Equal(s, "ping", string(p))
			})
		})
	}
}

// sandwichUpgradeOverHTTP2 is the client's side of TestSandwichUpgrade: it asks by
// extended CONNECT.
func sandwichUpgradeOverHTTP2(s *site, refused bool) {
	tr := &http2.Transport{AllowHTTP: true, DialTLSContext: func(ctx context.Context, _, _ string, _ *tls.Config) (net.Conn, error) {
		return s.net.DialContext(ctx, "tcp", "10.0.0.1:80")
	}}
	defer tr.CloseIdleConnections()
	in, out := io.Pipe()
	req, err := http.NewRequestWithContext(s.Context(), "CONNECT", "http://a/", in)
	require.NoError(s, err)
	req.Header[":protocol"] = []string{"websocket"}
	resp, err := tr.RoundTrip(req)
	require.NoError(s, err)
	defer resp.Body.Close()
	require.Equal(s, "yes", resp.Header.Get("X-Outer"))
	require.Equal(s, "yes", resp.Header.Get("X-Foreign"))
	if refused {
		require.Equal(s, 502, resp.StatusCode)
		return
	}
	require.Equal(s, 200, resp.StatusCode)
	require.Equal(s, []string{"yes"}, resp.Header.Values("X-Inner"))
	require.Equal(s, []string{"yes"}, resp.Header.Values("X-Server"))
	require.Empty(s, resp.Header.Values("Sec-WebSocket-Accept"))
	go func() {
		_, _ = io.WriteString(out, "ping")
		_ = out.Close()
	}()
	got, err := io.ReadAll(resp.Body)
	require.NoError(s, err)
	require.Equal(s, "ping", string(got))
}

// A context that middleware ends under an upgraded connection ends that at both
// sides, as httputil.ReverseProxy does: the bytes under way arrive, and nothing is reset.
func TestSandwichContextEndsUpgrade(t *testing.T) {
	for name, around := range map[string]func(func(http.Handler) http.Handler, http.Handler) http.Handler{
		"plain": func(with func(http.Handler) http.Handler, next http.Handler) http.Handler { return with(next) },
		"Wrap": func(with func(http.Handler) http.Handler, next http.Handler) http.Handler {
			return &Wrap{With: with, Next: next}
		},
	} {
		t.Run(name, func(t *testing.T) {
			var cancel context.CancelFunc
			var atServer chan string
			onBoth(t, func(s *site) http.Handler {
				atServer = make(chan string, 1)
				s.origin("10.0.1.1:80", func(w http.ResponseWriter, r *http.Request) {
					c, brw, err := w.(http.Hijacker).Hijack()
					require.NoError(s, err)
					defer c.Close()
					_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello")
					b, err := io.ReadAll(brw)
					atServer <- fmt.Sprint(string(b), " ", err)
				})
				return around(func(next http.Handler) http.Handler {
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						var ctx context.Context
						ctx, cancel = context.WithCancel(r.Context())
						next.ServeHTTP(w, r.WithContext(ctx))
					})
				}, s.proxy("10.0.1.1:80"))
			}, func(s *site) {
				if s.http2 {
					return // a stream ends by its own rules: TestSandwichUpgrade
				}
				c, err := s.net.DialContext(s.Context(), "tcp", "10.0.0.1:80")
				require.NoError(s, err)
				defer c.Close()
				_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nping")
				br := bufio.NewReader(c)
				resp, err := http.ReadResponse(br, nil)
				require.NoError(s, err)
				require.Equal(s, 101, resp.StatusCode)
				synctest.Wait()
				cancel()
				got, err := io.ReadAll(br)
				require.NoError(s, err)
				require.Equal(s, "hello", string(got))
				require.Equal(s, "ping <nil>", <-atServer)
			})
		})
	}
}
