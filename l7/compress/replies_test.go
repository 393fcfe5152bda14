// SPDX-License-Identifier: Apache-2.0

package compress

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// A site is a gateway before an origin, in memory.
type site struct {
	*testing.T
	net    *l4test.Network
	client *http.Client
	proxy  *l7.Proxy
}

// onAll tells a story on each front, and over HTTP/1 and HTTP/2: the handler is made by h.
func onAll(t *testing.T, origin http.HandlerFunc, h func(next http.Handler) http.Handler, story func(s *site)) {
	for _, front := range []string{"byte", "HTTP/2", "http.Server"} {
		t.Run(front, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &site{T: t, net: l4test.NewNetwork()}
				s.serve("10.0.0.2:80", &http.Server{Handler: origin})
				pool := &balance.Pool{}
				require.NoError(t, pool.Set(balance.Endpoint{Addr: "10.0.0.2:80"}))
				up := &l7.Upstream{Dial: s.net.DialContext}
				t.Cleanup(up.CloseIdle)
				s.proxy = &l7.Proxy{Pool: pool, Upstream: up}
				tr := &http.Transport{DialContext: s.net.DialContext, DisableCompression: true}
				t.Cleanup(tr.CloseIdleConnections)
				s.client = &http.Client{Transport: tr}
				if front == "HTTP/2" {
					tr.Protocols = new(http.Protocols)
					tr.Protocols.SetUnencryptedHTTP2(true)
				}
				if front == "http.Server" {
					s.serve("10.0.0.1:80", &http.Server{Handler: h(s.proxy)})
				} else {
					s.serve("10.0.0.1:80", &l7.Server{Handler: h(s.proxy)})
				}
				story(s)
			})
		})
	}
}

func (s *site) serve(addr string, srv interface {
	Serve(ln net.Listener) error
	Shutdown(ctx context.Context) error
}) {
	ln, err := s.net.Listen("tcp", addr)
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

// get asks with fields, of which Method is the method, and returns the reply with its body
// as it came.
func (s *site) get(fields ...string) (*http.Response, []byte) {
	s.Helper()
	r, err := s.client.Do(s.request(fields...))
	require.NoError(s, err)
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	require.NoError(s, err)
	return r, body
}

func (s *site) request(fields ...string) *http.Request {
	r, err := http.NewRequestWithContext(s.Context(), "GET", "http://10.0.0.1/", nil)
	require.NoError(s, err)
	for i := 0; i < len(fields); i += 2 {
		if fields[i] == "Method" {
			r.Method = fields[i+1]
		} else {
			r.Header.Add(fields[i], fields[i+1])
		}
	}
	return r
}

// decoded is what a client reads of a body with that coding.
func decoded(t testing.TB, coding string, from io.Reader) io.Reader {
	switch coding {
	case "gzip":
		r, err := gzip.NewReader(from)
		require.NoError(t, err)
		return r
	case "br":
		return brotli.NewReader(from)
	case "zstd":
		r, err := zstd.NewReader(from, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(8<<20)) // RFC 9659
		require.NoError(t, err)
		return r
	}
	require.Empty(t, coding)
	return from
}

func text(t testing.TB, coding string, body []byte) string {
	b, err := io.ReadAll(decoded(t, coding, bytes.NewReader(body)))
	require.NoError(t, err)
	return string(b)
}

func only(next http.Handler) http.Handler { return &Replies{Next: next} }

var long = string(page(100 << 10))

// page returns text that compresses about as a page of HTML does.
func page(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	var b bytes.Buffer
	for b.Len() < n {
		fmt.Fprintf(&b, "<tr class=\"row\"><td><a href=\"/orders/%d\">Order %d</a></td><td>%x</td><td>ready for delivery</td></tr>\n", r.IntN(1e6), r.IntN(1e6), r.Uint64())
	}
	return b.Bytes()[:n]
}

// answer replies with fields, of which Status is the status, and with that body.
func answer(body string, fields ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		status := 200
		for i := 0; i < len(fields); i += 2 {
			if fields[i] == "Status" {
				_, _ = fmt.Sscan(fields[i+1], &status)
			} else {
				w.Header().Add(fields[i], fields[i+1])
			}
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func TestReplyIsCompressedAsTheClientAccepts(t *testing.T) {
	onAll(t, answer(long, "Content-Type", "text/html; charset=utf-8", "Content-Length", fmt.Sprint(len(long)), "Accept-Ranges", "bytes", "ETag", `"1"`, "Vary", "Cookie"), only, func(s *site) {
		for _, test := range []struct{ accept, want string }{
			{"gzip, deflate, br, zstd", "zstd"},
			{"gzip, deflate, br", "br"},
			{"gzip", "gzip"},
			{"X-GZIP", "gzip"},
			{"zstd;q=0.1\n*;q=0.2\nbr;q=0.3", "br"}, // lines
			{"gzip;q=0.9, br;q=0.8, zstd;q=0.001", "gzip"},
			{"zstd;q=0, *", "br"},
			{"*;q=0.1", "zstd"},
			{"identity;q=0.5, gzip;q=0.4", ""},
			{"identity;q=0, gzip;q=0.001", "gzip"},
			{"deflate", ""},
			{"", ""},
			{"*;q=0", ""}, // and 12.4.1: an origin may disregard what it cannot satisfy
			{"gzip;q=0", ""},
		} {
			for range 2 { // the second time with the compressor of the first
				var asks []string
				for line := range strings.SplitSeq(test.accept, "\n") {
					asks = append(asks, "Accept-Encoding", line)
				}
				r, body := s.get(asks...)
				require.Equal(s, test.want, r.Header.Get("Content-Encoding"), test.accept)
				require.Equal(s, long, text(s, test.want, body), test.accept)
				require.Equal(s, []string{"Cookie", "Accept-Encoding"}, r.Header.Values("Vary"))
				if test.want == "" {
					require.EqualValues(s, len(long), r.ContentLength)
					require.Equal(s, `"1"`, r.Header.Get("ETag"))
					require.Equal(s, "bytes", r.Header.Get("Accept-Ranges"))
				} else {
					require.EqualValues(s, -1, r.ContentLength)
					require.Less(s, len(body), len(long)/4)
					require.Equal(s, `W/"1"`, r.Header.Get("ETag"))
					require.NotContains(s, r.Header, "Accept-Ranges")
				}
			}
		}
	})
}

func TestRepliesThatAreLeftAlone(t *testing.T) {
	html := []string{"Content-Type", "text/html"}
	for _, test := range []struct {
		name string
		body string
		with []string // fields of the reply
		asks []string
		vary bool
	}{
		{"coded already", "xx" + long, append(html, "Content-Encoding", "deflate"), nil, false},
		{"coded as identity", long, append(html, "Content-Encoding", "identity"), nil, false},
		{"no-transform", long, append(html, "Cache-Control", "public, No-Transform"), nil, false},
		{"no-transform asked for", long, html, []string{"Cache-Control", "no-transform"}, true},
		{"a part", long, append(html, "Status", "206", "Content-Range", "bytes 0-102399/200000"), []string{"Range", "bytes=0-102399"}, false},
		{"a part that does not say which", long, append(html, "Status", "206"), nil, false},
		{"no part", long, append(html, "Status", "416", "Content-Range", "bytes */7"), nil, false},
		{"an image", long, []string{"Content-Type", "image/png"}, nil, false},
		{"gRPC", long, []string{"Content-Type", "application/grpc"}, nil, false},
		{"no content", "", append(html, "Status", "204"), nil, false},
		{"short", "short", append(html, "Content-Length", "5"), nil, true},
		{"empty", "", append(html, "Content-Length", "0"), nil, true},
		{"empty, and not wanted as it is", "", append(html, "Content-Length", "0"), []string{"Accept-Encoding", "identity;q=0"}, true},
		{"with a digest", long, append(html, "Repr-Digest", "sha-256=:AA==:"), nil, false},
		{"with a digest at the end", long, append(html, "Trailer", "X-A, repr-digest"), nil, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			onAll(t, answer(test.body, append(test.with, "ETag", `"1"`)...), only, func(s *site) {
				r, body := s.get(append(test.asks, "Accept-Encoding", "gzip")...)
				require.Equal(s, test.body, string(body))
				require.NotEqual(s, "gzip", r.Header.Get("Content-Encoding"))
				require.Equal(s, `"1"`, r.Header.Get("ETag"))
				require.Equal(s, test.vary, r.Header.Get("Vary") != "")
			})
		})
	}
}

// What is short is compressed for a client that does not take it as it is.
func TestIdentityRefused(t *testing.T) {
	onAll(t, answer("short", "Content-Type", "text/plain", "Content-Length", "5"), only, func(s *site) {
		for _, accept := range []string{"identity;q=0, gzip", "*;q=0, gzip"} {
			r, body := s.get("Accept-Encoding", accept)
			require.Equal(s, "gzip", r.Header.Get("Content-Encoding"))
			require.Equal(s, "short", text(s, "gzip", body))
		}
	})
}

func TestVaryIsAddedOnce(t *testing.T) {
	for _, vary := range []string{"accept-encoding", "Cookie, Accept-Encoding", "*"} {
		onAll(t, answer(long, "Content-Type", "text/html", "Vary", vary), only, func(s *site) {
			r, _ := s.get("Accept-Encoding", "gzip")
			require.Equal(s, []string{vary}, r.Header.Values("Vary"))
		})
	}
}

func TestHeadIsThatOfGet(t *testing.T) {
	onAll(t, answer(long, "Content-Type", "text/html", "Content-Length", fmt.Sprint(len(long)), "ETag", `"1"`), only, func(s *site) {
		for _, accept := range []string{"gzip", "br", "zstd", "identity"} {
			get, _ := s.get("Accept-Encoding", accept)
			head, body := s.get("Accept-Encoding", accept, "Method", "HEAD")
			require.Empty(s, body)
			require.Equal(s, get.ContentLength, head.ContentLength)
			get.Header.Del("Date")
			head.Header.Del("Date")
			require.Equal(s, get.Header, head.Header)
		}
	})
}

// An origin that compares tags as strings knows its own again.
func TestNotModified(t *testing.T) {
	origin := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"a,b"`)
		if r.Header.Get("If-Modified-Since") != "" {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		for tag := range tagsOf(strings.Join(r.Header.Values("If-None-Match"), ",")) {
			if tag == `"a,b"` {
				w.WriteHeader(http.StatusNotModified)
				return
			}
		}
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, long)
	}
	onAll(t, origin, only, func(s *site) {
		r, _ := s.get("Accept-Encoding", "gzip")
		require.Equal(s, `W/"a,b"`, r.Header.Get("ETag"))
		for _, test := range []struct{ sent, etag string }{
			{`W/"a,b"`, `W/"a,b"`},
			{`"x", W/"y", W/"a,b"`, `W/"a,b"`},
			{`"a,b"`, `"a,b"`},
			{`W/"a,b", "a,b"`, `"a,b"`},
		} {
			r, body := s.get("Accept-Encoding", "gzip", "If-None-Match", test.sent)
			require.Equal(s, 304, r.StatusCode, test.sent)
			require.Equal(s, test.etag, r.Header.Get("ETag"), test.sent)
			require.Equal(s, "Accept-Encoding", r.Header.Get("Vary"))
			require.NotContains(s, r.Header, "Content-Encoding")
			require.Empty(s, body)
		}
		r, _ = s.get("Accept-Encoding", "gzip", "If-None-Match", `"x"`, "If-None-Match", `W/"a,b"`)
		require.Equal(s, 304, r.StatusCode)
		require.Equal(s, `W/"a,b"`, r.Header.Get("ETag"))
		r, _ = s.get("Accept-Encoding", "gzip", "If-Modified-Since", "Sat, 01 Jan 2000 00:00:00 GMT")
		require.Equal(s, 304, r.StatusCode)
		require.Equal(s, `"a,b"`, r.Header.Get("ETag")) // it has not said which it knows
		for _, sent := range []string{`W/"x"`, `W/"`, `*`, `W/a,b`} {
			r, _ := s.get("Accept-Encoding", "gzip", "If-None-Match", sent)
			require.Equal(s, 200, r.StatusCode, sent)
		}
	})
}

func TestAddStrong(t *testing.T) {
	many := strings.Repeat(`W/"0123456789", `, 500) + `"x"`
	for _, test := range []struct{ sent, want string }{
		{`W/"a"`, `W/"a", "a"`},
		{`W/"a", "b" , W/"c"`, `W/"a", "b" , W/"c", "a", "c"`},
		{`W/"a", "a"`, `W/"a", "a"`},
		{`w/"a"`, `w/"a"`},
		{`*`, `*`},
	} {
		f := l7.MakeFields("If-None-Match", test.sent, "if-match", test.sent)
		addStrong(&f)
		require.Equal(t, test.want, f.Get("If-None-Match"))
		require.Equal(t, test.sent, f.Get("If-Match"))
	}
	f := l7.MakeFields("If-None-Match", many)
	addStrong(&f)
	require.LessOrEqual(t, len(f.Get("If-None-Match")), len(many)+maxTags)
}

// Each event reaches the client while the origin is silent.
func TestEventsComeAtOnce(t *testing.T) {
	for _, coding := range []string{"gzip", "br", "zstd"} {
		var next chan string
		origin := func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			_ = http.NewResponseController(w).Flush()
			for e := range next {
				_, _ = io.WriteString(w, e)
				_ = http.NewResponseController(w).Flush()
			}
		}
		onAll(t, origin, only, func(s *site) {
			next = make(chan string)
			r, err := s.client.Do(s.request("Accept-Encoding", coding))
			require.NoError(s, err)
			defer r.Body.Close()
			require.Equal(s, coding, r.Header.Get("Content-Encoding"))
			var in io.Reader
			for _, e := range []string{"data: one\n\n", "data: two\n\n", "data: three\n\n"} {
				next <- e
				if in == nil {
					in = decoded(s, coding, r.Body)
				}
				got := make([]byte, len(e))
				_, err := io.ReadFull(in, got)
				require.NoError(s, err)
				require.Equal(s, e, string(got))
				time.Sleep(10 * time.Second)
			}
			close(next)
			rest, err := io.ReadAll(in)
			require.NoError(s, err)
			require.Empty(s, rest)
		})
	}
}

func TestTrailersAreKept(t *testing.T) {
	origin := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Trailer", "X-Sum")
		_, _ = io.WriteString(w, long)
		w.Header().Set("X-Sum", "7")
	}
	onAll(t, origin, only, func(s *site) {
		r, body := s.get("Accept-Encoding", "br", "TE", "trailers")
		require.Equal(s, long, text(s, "br", body))
		require.Equal(s, "7", r.Trailer.Get("X-Sum"))
	})
}

// A body that is cut does not look whole, and its client gets what came before.
func TestCutBodyHasNoEnd(t *testing.T) {
	origin := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Content-Length", fmt.Sprint(len(long))) // not flushed otherwise
		_, _ = io.WriteString(w, long[:40_000])
		_ = http.NewResponseController(w).Flush()
		time.Sleep(time.Second)
		panic(http.ErrAbortHandler)
	}
	for _, coding := range []string{"gzip", "br", "zstd"} {
		onAll(t, origin, only, func(s *site) {
			r, err := s.client.Do(s.request("Accept-Encoding", coding))
			require.NoError(s, err)
			defer r.Body.Close()
			body, err := io.ReadAll(r.Body)
			require.Error(s, err)
			got, err := io.ReadAll(decoded(s, coding, bytes.NewReader(body)))
			require.Error(s, err)
			require.Equal(s, long[:40_000], string(got))
		})
	}
}

func TestEmptyBodyOfUnknownLength(t *testing.T) {
	origin := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_ = http.NewResponseController(w).Flush()
	}
	for _, coding := range []string{"gzip", "br", "zstd"} {
		onAll(t, origin, only, func(s *site) {
			r, body := s.get("Accept-Encoding", coding)
			require.Equal(s, coding, r.Header.Get("Content-Encoding"))
			require.NotEmpty(s, body)
			require.Empty(s, text(s, coding, body))
		})
	}
}

// Replies within Replies do the work once, and so does one around a reply of this process.
func TestLocalRepliesAndNesting(t *testing.T) {
	foreign := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(long)))
		_, _ = io.WriteString(w, long) // its type is guessed
	})
	native := l7.HandlerFunc(func(x *l7.Exchange) {
		h := l7.MakeFields("Content-Type", "text/html")
		x.Respond(404, &h, long)
	})
	for _, h := range []http.Handler{foreign, native, &l7.BufferReply{Next: native}} {
		onAll(t, nil, func(http.Handler) http.Handler { return only(only(h)) }, func(s *site) {
			r, body := s.get("Accept-Encoding", "gzip")
			require.Equal(s, []string{"gzip"}, r.Header.Values("Content-Encoding"))
			require.Equal(s, long, text(s, "gzip", body))
		})
	}
}

// A handler of net/http that says the length of its reply is held to MinBytes too.
func TestShortReplyOfNetHTTP(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Content-Length", "5")
		_, _ = io.WriteString(w, "short")
	})
	onAll(t, nil, func(http.Handler) http.Handler { return only(h) }, func(s *site) {
		r, body := s.get("Accept-Encoding", "gzip")
		require.Empty(s, r.Header.Get("Content-Encoding"))
		require.Equal(s, "short", string(body))
		require.EqualValues(s, 5, r.ContentLength)
	})
}

func TestHTTP10(t *testing.T) {
	onAll(t, answer(long, "Content-Type", "text/html", "Content-Length", fmt.Sprint(len(long))), only, func(s *site) {
		c, err := s.net.DialContext(s.Context(), "tcp", "10.0.0.1:80")
		require.NoError(s, err)
		defer c.Close()
		_, err = io.WriteString(c, "GET / HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n")
		require.NoError(s, err)
		all, err := io.ReadAll(c)
		require.NoError(s, err)
		head, body, _ := strings.Cut(string(all), "\r\n\r\n")
		require.Contains(s, head, "Content-Encoding: gzip")
		require.NotContains(s, head, "chunked")
		require.NotContains(s, head, "Content-Length")
		require.Equal(s, long, text(s, "gzip", []byte(body)))
	})
}

// What is beyond Max goes out as it is, and a client that leaves frees its place.
func TestMax(t *testing.T) {
	var h *Replies
	origin := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: one\n\n")
		_ = http.NewResponseController(w).Flush()
		if r.Header.Get("Stay") != "" {
			<-r.Context().Done()
		}
	}
	onAll(t, origin, func(next http.Handler) http.Handler { h = &Replies{Max: 1, Next: next}; return h }, func(s *site) {
		ctx, leave := context.WithCancel(s.Context())
		defer leave()
		first, err := s.client.Do(s.request("Accept-Encoding", "gzip", "Stay", "1").WithContext(ctx))
		require.NoError(s, err)
		defer first.Body.Close()
		require.Equal(s, "gzip", first.Header.Get("Content-Encoding"))
		second, body := s.get("Accept-Encoding", "gzip")
		require.Empty(s, second.Header.Get("Content-Encoding"))
		require.Equal(s, "Accept-Encoding", second.Header.Get("Vary"))
		require.Equal(s, "data: one\n\n", string(body))
		leave()
		time.Sleep(time.Minute) // more than until a silent client is looked at
		require.Zero(s, h.open.Load())
		third, _ := s.get("Accept-Encoding", "gzip")
		require.Equal(s, "gzip", third.Header.Get("Content-Encoding"))
		synctest.Wait()
		require.Zero(s, h.open.Load())
	})
}

// Many at once, some of whom leave: nobody gets what is another's.
func TestCompressorsAreNotShared(t *testing.T) {
	origin := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		for range 50 {
			_, _ = io.WriteString(w, strings.Repeat(r.Header.Get("Who")+" ", 500))
		}
	}
	onAll(t, origin, only, func(s *site) {
		done := make(chan error)
		for i := range 60 {
			go func() {
				done <- func() error {
					who, coding := fmt.Sprint("client-", i), coding(i%3).String()
					r, err := s.client.Do(s.request("Accept-Encoding", coding, "Who", who))
					if err != nil {
						return err
					}
					defer r.Body.Close()
					if i%5 == 0 {
						_, err = io.ReadFull(r.Body, make([]byte, 20))
						return err
					}
					all, err := io.ReadAll(decoded(s, coding, r.Body))
					if string(all) != strings.Repeat(who+" ", 25_000) {
						return errors.Join(err, errors.New(who+" got something else"))
					}
					return err
				}()
			}()
		}
		for range 60 {
			require.NoError(s, <-done)
		}
	})
}

func TestTunnelsAndTunnelRequestsAreLeftAlone(t *testing.T) {
	r := &reply{h: &Replies{Next: http.NotFoundHandler()}, accept: "gzip"}
	r.h.init()
	l7.ServeHTTP(l7.HandlerFunc(func(x *l7.Exchange) {
		x.Record.Method = "CONNECT"
		to := &l7.Reply{Status: 200, ContentLength: -1, Header: l7.MakeFields("Content-Type", "text/html")}
		r.EditReply(x, to)
		require.False(t, to.Header.Has("Content-Encoding"))
		x.Record.Method = "GET"
		r.EditReply(x, to)
		require.True(t, to.Header.Has("Content-Encoding"))
		x.Respond(204, nil, "")
	}), httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
}

func TestTypes(t *testing.T) {
	all := defaultTypes()
	set := newTypeSet(all)
	for _, typ := range all {
		require.True(t, validType(typ), typ)
	}
	for typ, want := range map[string]bool{
		"text/html": true, "TEXT/HTML;charset=utf-8": true, "text/event-stream": true, "application/json ; x": true, "application/problem+JSON": true, "image/svg+xml": true,
		"image/png": false, "application/octet-stream": false, "text/": false, "": false, "texts/html": false, "application/jsonx": false, "+json": false, "application/zip": false, "video/mp4": false,
	} {
		require.Equal(t, want, set.holds(typ), typ)
	}
	for _, bad := range []string{"", "text", "*/*", "text/html;charset=utf-8", "*", "*+", "text/h*", "/html", "text/", "*json"} {
		require.False(t, validType(bad), bad)
	}
}

func TestCheck(t *testing.T) {
	require.NoError(t, (&Replies{Next: http.NotFoundHandler()}).Check())
	err := (&Replies{Zstd: 10, Brotli: 7, Gzip: 10, Types: []string{"text/html", "html"}}).Check()
	for _, field := range []string{"Replies.Zstd", "Replies.Brotli", "Replies.Gzip", "Replies.Types[1]", "Replies.Next"} {
		require.ErrorContains(t, err, field)
	}
	var wrong *penstock.ConfigError
	require.ErrorAs(t, err, &wrong)
	require.Error(t, (&Replies{Zstd: -1, Brotli: -1, Gzip: -1, Next: http.NotFoundHandler()}).Check())
	require.Error(t, (&Replies{Types: []string{}, Next: http.NotFoundHandler()}).Check())
	// Every level that Check lets pass makes a compressor.
	for c, most := range map[coding]int{zstdCoding: 9, brotliCoding: 6, gzipCoding: 9} {
		for level := 1; level <= most; level++ {
			require.NotNil(t, newEncoder(c, level))
		}
	}
}
