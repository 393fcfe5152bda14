// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
)

type middlewareFunc = func(next http.Handler) http.Handler

func middleware(f func(w http.ResponseWriter, r *http.Request, next http.Handler)) middlewareFunc {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f(w, r, next) })
	}
}

// wrapNext is a native handler that tells what it was asked, and answers in the
// way that the query asks for.
func wrapNext(x *Exchange) {
	switch x.Query {
	case "?panic":
		panic("boom")
	case "?refuse":
		x.Error(403, endOf(0, 0))
		return
	case "?chunked":
		r := Reply{Status: 200, ContentLength: -1, Header: MakeFields("Content-Type", "text/plain", "X-Own", "1")}
		if x.writeHead(&r) == nil {
			_ = x.writeBody([]byte("chunked"))
			_ = x.down.finish(nil)
		}
		return
	case "?break":
		r := Reply{Status: 200, ContentLength: -1, Header: MakeFields("Content-Type", "text/plain")}
		if x.writeHead(&r) == nil {
			_ = x.writeBody([]byte("cut"))
		}
		panic("boom")
	case "?cut":
		r := Reply{Status: 200, ContentLength: -1, Header: MakeFields("Content-Type", "text/plain")}
		if x.writeHead(&r) == nil {
			_ = x.writeBody([]byte("cut"))
			x.down.abort()
		}
		return
	}
	b, err := io.ReadAll(x.Body())
	v, _ := x.Context().Value(foreignKey{}).(string)
	h := MakeFields("Content-Type", "text/plain", "X-Own", "1")
	x.Respond(200, &h, fmt.Sprintf("%s %s %s%s a=%q b=%q %d %v v=%q", x.Method, x.Host, x.Path, x.Query, x.Header.Get("X-A"), b, x.ContentLength, err, v))
}

// meaning returns what a reply says, but for how it is framed: a handler of ours
// says itself that a length is not known.
func meaning(t *testing.T, reply string) string {
	head, _, _ := strings.Cut(reply, "\r\n\r\n")
	lines := strings.Split(head[len("HTTP/1.1 "):], "\r\n")
	slices.Sort(lines[1:])
	lines = slices.DeleteFunc(lines, func(l string) bool {
		name, _, _ := strings.Cut(l, ":")
		return name == "Transfer-Encoding" || name == "Content-Length" || name == "Connection"
	})
	resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(reply)), nil)
	require.NoError(t, err)
	b, err := io.ReadAll(resp.Body)
	return fmt.Sprintf("%q %.100q %d %v %v", lines, b, len(b), err, resp.Trailer)
}

// Middleware in a Wrap does what it does under net/http, whatever that is.
func TestWrapAnswersAsNetHTTP(t *testing.T) {
	const get = "GET /a HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nConnection: close\r\n\r\n"
	query := func(q string) string { return strings.Replace(get, "/a ", "/a?"+q+" ", 1) }
	const post = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
	const chunked = "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
	pass := middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) { next.ServeHTTP(w, r) })
	fields := middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		w.Header().Set("X-Set", "1")
		w.Header().Add("Vary", "Origin")
		w.Header().Add("Vary", "Accept")
		w.Header().Set("X-Bad", "a\r\nb")
		next.ServeHTTP(w, r)
	})
	behind := middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(w, r)
		w.Header().Set("X-Late", "1")
		w.WriteHeader(500)
		_, _ = io.WriteString(w, " behind")
	})
	recoverer := middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		defer func() {
			if p := recover(); p != nil {
				http.Error(w, fmt.Sprint("recovered ", p), 500)
			}
		}()
		w.Header().Set("X-Set", "1")
		next.ServeHTTP(w, r)
	})
	cases := map[string]struct {
		request string
		with    middlewareFunc
	}{
		"nothing":                       {get, pass},
		"HEAD":                          {strings.Replace(get, "GET", "HEAD", 1), pass},
		"HTTP/1.0":                      {"GET /a HTTP/1.0\r\nHost: a\r\n\r\n", pass},
		"HTTP/1.0, chunked":             {"GET /a?chunked HTTP/1.0\r\nHost: a\r\n\r\n", behind},
		"body":                          {post, pass},
		"chunked body":                  {chunked, pass},
		"fields":                        {get, fields},
		"fields of a refusal":           {query("refuse"), fields},
		"fields, chunked":               {query("chunked"), fields},
		"writes behind":                 {get, behind},
		"writes behind what is chunked": {query("chunked"), behind},
		"trailer behind": {query("chunked"), middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			w.Header().Set("Trailer", "X-T")
			next.ServeHTTP(w, r)
			w.Header().Set("X-T", "v")
			w.Header().Set(http.TrailerPrefix+"X-U", "w")
		})},
		"recovered":     {query("panic"), recoverer},
		"not recovered": {query("panic"), fields},
		"cut":           {query("cut"), recoverer},
		"broken off":    {query("break"), recoverer},
		"own answer": {get, middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			w.Header().Set("X-Set", "1")
			http.Error(w, "no", http.StatusForbidden)
		})},
		"own answer to a body": {post, middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			http.Error(w, "no", http.StatusForbidden)
		})},
		"own answer, long": {get, middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			_, _ = io.WriteString(w, strings.Repeat("<html>", 1000))
		})},
		"own answer, flushed": {get, middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			_, _ = io.WriteString(w, "<html>")
			w.(http.Flusher).Flush()
			_, _ = io.WriteString(w, "more")
		})},
		"own answer, length": {get, middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			w.Header().Set("Content-Length", "3")
			_, err := io.WriteString(w, "four")
			_, _ = io.WriteString(w, fmt.Sprint(err)[:3])
		})},
		"own answer, too short": {get, middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			w.Header().Set("Content-Length", "30")
			_, _ = io.WriteString(w, "short")
		})},
		"no answer": {get, middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {})},
		"204":       {get, middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) { w.WriteHeader(204) })},
		"panic":     {get, middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) { panic("mine") })},
		"status first": {get, middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			w.WriteHeader(201)
			next.ServeHTTP(w, r)
		})},
		"body first": {query("chunked"), middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			_, _ = io.WriteString(w, "first ")
			next.ServeHTTP(w, r)
		})},
		"writer": {get, middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) { next.ServeHTTP(unwrapped{w}, r) })},
		"opaque": {post, middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) { next.ServeHTTP(opaque{w}, r) })},
		"recorder, then the writer": {get, middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			rec := httptest.NewRecorder()
			next.ServeHTTP(rec, r)
			w.Header().Set("X-Recorded", fmt.Sprint(rec.Code))
			next.ServeHTTP(w, r)
		})},
		"context": {get, middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), foreignKey{}, "value")))
		})},
		"deadline": {get, middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			ctx, cancel := context.WithTimeout(r.Context(), time.Second)
			defer cancel()
			next.ServeHTTP(w, r.WithContext(ctx))
		})},
		"StripPrefix": {strings.Replace(get, "/a", "/p/a%2fb?q", 1), func(next http.Handler) http.Handler { return http.StripPrefix("/p", next) }},
		"host": {get, middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			r.Host = "b.test"
			next.ServeHTTP(w, r)
		})},
		"method": {get, middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			r = r.Clone(r.Context())
			r.Method = "PUT"
			next.ServeHTTP(w, r)
		})},
		"request field": {get, middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			r.Header.Set("X-A", "2")
			next.ServeHTTP(w, r)
		})},
		"request field for another": {get, middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			r.Header.Del("Connection")
			r.Header.Del("X-A")
			r.Header.Set("X-B", "2")
			next.ServeHTTP(w, r)
		})},
		"body read": {post, middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			_, _ = io.ReadFull(r.Body, make([]byte, 2))
			next.ServeHTTP(w, r)
		})},
		"body replaced": {post, middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader("other body")), 10
			next.ServeHTTP(w, r)
		})},
		"MaxBytesHandler": {post, func(next http.Handler) http.Handler { return http.MaxBytesHandler(next, 3) }},
		"TimeoutHandler":  {get, func(next http.Handler) http.Handler { return http.TimeoutHandler(next, time.Minute, "late") }},
		"CrossOrigin":     {get, http.NewCrossOriginProtection().Handler},
		"cross origin":    {strings.Replace(post, "\r\nHost", "\r\nSec-Fetch-Site: cross-site\r\nHost", 1), http.NewCrossOriginProtection().Handler},
		"hijacked": {get, middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			c, brw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				panic(err)
			}
			defer c.Close()
			_, _ = brw.WriteString("HTTP/1.1 200 OK\r\nX-Hijacked: 1\r\n\r\n")
			_ = brw.Flush()
		})},
		"read deadline": {strings.Replace(post, "hello", "he", 1), middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(2 * time.Second))
			start := time.Now()
			b, rerr := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%v %s %v %v %v", err, b, rerr, errors.Is(rerr, os.ErrDeadlineExceeded), time.Since(start))
		})},
		"nested": {get, func(next http.Handler) http.Handler {
			return fields(&Wrap{With: middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				w.Header().Set("X-Inner", "1")
				next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), foreignKey{}, "inner")))
			}), Next: next})
		}},
		"nested, behind": {query("chunked"), func(next http.Handler) http.Handler { return behind(&Wrap{With: behind, Next: next}) }},
		"foreign inside": {get, func(next http.Handler) http.Handler {
			return fields(&Capture{Next: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(unwrapped{w}, r) })})
		}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			want, wantAfter := rawReply(t, tc.request, func(*l4test.Network) (http.Handler, bool) { return tc.with(HandlerFunc(wrapNext)), false })
			for _, outer := range []bool{false, true} {
				got, after := rawReply(t, tc.request, func(*l4test.Network) (http.Handler, bool) {
					var h http.Handler = &Wrap{With: tc.with, Next: HandlerFunc(wrapNext)}
					if outer {
						h = &Capture{Next: h}
					}
					return h, true
				})
				if strings.Contains(tc.request, "?panic") && name != "recovered" || name == "panic" {
					require.Empty(t, want) // net/http cuts the connection; we answer
					require.Contains(t, got, "HTTP/1.1 500 ")
					continue
				}
				if name == "cut" || name == "broken off" { // it must not look whole
					require.NotContains(t, got, "0\r\n\r\n")
					continue
				}
				require.Equal(t, meaning(t, want), meaning(t, got))
				require.Equal(t, wantAfter, after)
			}
		})
	}
}

// Where middleware only looks, the exchange goes on natively, over HTTP/1 and
// HTTP/2, and so do the requests behind it on the connection.
func TestWrapGoesOnNatively(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t, h2)
			s.origin("10.0.1.1:80", echo)
			var fronts []Front
			s.serve(&Server{
				OnDone: func(r *Record) { fronts = append(fronts, r.Front) },
				Handler: &Wrap{
					With: middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
						w.Header().Set("X-Set", "1")
						if r.URL.Path == "/wrapped" {
							w = unwrapped{w}
						}
						next.ServeHTTP(w, r)
					}), Next: s.proxy("10.0.1.1:80")},
			})
			for _, path := range []string{"/a", "/wrapped", "/b", "/c"} {
				a, err := s.ask(s.client, path, "body")
				require.NoError(t, err)
				require.Contains(t, a.body, "POST "+path+" ")
				require.Contains(t, a.body, "\nbody")
				require.Equal(t, "1", a.Header.Get("X-Set"))
			}
			synctest.Wait()
			native := FrontByte
			if h2 {
				native = FrontHTTP2
			}
			require.Equal(t, []Front{native, FrontStandard, native, native}, fronts)
		})
	}
}

// A body that was buffered before and is read a little inside a Wrap goes on from
// there.
func TestWrapReadsOfABufferedBody(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		s.origin("10.0.1.1:80", echo)
		return &BufferBody{Next: &Wrap{
			With: middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				b := make([]byte, 2)
				_, _ = io.ReadFull(r.Body, b)
				if r.URL.Path == "/short" {
					next.ServeHTTP(w, r)
					return
				}
				if r.ContentLength -= 2; r.URL.Path == "/back" {
					r.Body, r.ContentLength = io.NopCloser(io.MultiReader(strings.NewReader(string(b)), r.Body)), r.ContentLength+2
				}
				next.ServeHTTP(w, r)
			}), Next: s.proxy("10.0.1.1:80")}}
	}, func(s *site) {
		for path, want := range map[string]string{"/on": "llo", "/back": "hello"} {
			a, err := s.ask(s.client, path, "hello")
			require.NoError(s, err)
			require.Equal(s, "POST "+path+" 10.0.0.1\n"+want, a.body)
		}
		if a, err := s.ask(s.client, "/short", "hello"); err == nil {
			require.NotEqual(s, 200, a.StatusCode, "a body that is shorter than its length")
		}
	})
}

// A middleware may call the handler inside a Wrap again while it works: the call
// that ended last is on record.
func TestWrapCallsTwiceAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, false)
		begun, done := make(chan struct{}), make(chan struct{})
		var got Record
		s.serve(&Server{OnDone: func(r *Record) { got = *r }, Handler: &Wrap{
			With: middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				again := r.Clone(r.Context())
				again.Method = "PUT"
				go func() {
					defer close(done)
					<-begun
					next.ServeHTTP(httptest.NewRecorder(), again)
				}()
				next.ServeHTTP(w, r)
			}),
			Next: HandlerFunc(func(x *Exchange) {
				if x.Record.User = x.Method; x.Method == "GET" {
					close(begun)
					<-done
				}
				x.Respond(200, nil, x.Method)
			}),
		}})
		require.Equal(t, "GET", s.get("/").body)
		synctest.Wait()
		require.Equal(t, "GET", got.User)
	})
}

// What is inside a Wrap may serve a member in process: what that notes is not the
// exchange's.
func TestWrapAroundAMemberInProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, false)
		pool := &balance.Pool{Name: "pool"}
		require.NoError(t, pool.Set(balance.Endpoint{Name: "here", Addr: "here:1", Value: HandlerFunc(wrapNext)}))
		var got Record
		s.serve(&Server{Handler: &Wrap{With: middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) { next.ServeHTTP(w, r) }), Next: &Proxy{Pool: pool}}, OnDone: func(r *Record) { got = *r }})
		require.Equal(t, 200, s.get("/").StatusCode)
		synctest.Wait()
		require.Equal(t, "pool here 1", fmt.Sprint(got.Pool, " ", got.Server, " ", got.Tries))
		require.Equal(t, FrontByte, got.Front)
	})
}

// What a handler of a Wrap keeps is of no use once it has returned.
func TestWrapIsOverWhenItReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, false)
		var w http.ResponseWriter
		var r *http.Request
		next := HandlerFunc(wrapNext)
		s.serve(&Server{Handler: &Wrap{With: middleware(func(rw http.ResponseWriter, req *http.Request, next http.Handler) {
			if req.URL.Path == "/keep" {
				w, r = rw, req
			}
			next.ServeHTTP(rw, req)
		}), Next: next}})
		a, err := s.ask(s.client, "/keep", "body")
		require.NoError(t, err)
		require.Contains(t, a.body, "POST")
		w.Header().Set("X-Late", "1")
		_, err = io.WriteString(w, "late")
		require.Error(t, err)
		_, err = r.Body.Read(make([]byte, 1))
		require.Error(t, err)
		_, _, err = http.NewResponseController(w).Hijack()
		require.Error(t, err)
		next.ServeHTTP(w, r)
		require.Contains(t, s.get("/next").body, "GET 10.0.0.1 /next")
	})
}

// The client's leaving ends the context of what is inside a Wrap.
func TestWrapSeesClientGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, false)
		gone := make(chan time.Duration, 2)
		wait := func(ctx context.Context) {
			start := time.Now()
			<-ctx.Done()
			gone <- time.Since(start)
		}
		s.serve(&Server{Handler: &Wrap{With: middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if r.URL.Path == "/outer" {
				wait(r.Context())
				return
			}
			next.ServeHTTP(w, r)
		}), Next: HandlerFunc(func(x *Exchange) { wait(x.Context()); x.Respond(200, nil, "") })}})
		for _, path := range []string{"/outer", "/inner"} {
			c, err := s.net.DialContext(t.Context(), "tcp", "10.0.0.1:80")
			require.NoError(t, err)
			_, _ = io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: a\r\n\r\n")
			time.Sleep(time.Second)
			_ = c.Close()
			require.Equal(t, time.Second, <-gone)
		}
	})
}

// A connection that a handler of a Wrap has hijacked has what the client sent
// behind its request, and is the handler's alone once that has returned.
func TestWrapHijacked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, false)
		ended := make(chan error, 1)
		srv := &Server{Handler: &Wrap{With: middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			c, brw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				panic(err)
			}
			go func() {
				_, err := io.Copy(c, brw)
				_ = c.Close()
				ended <- err
			}()
		}), Next: HandlerFunc(wrapNext)}}
		s.serve(srv)
		c, err := s.net.DialContext(t.Context(), "tcp", "10.0.0.1:80")
		require.NoError(t, err)
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\nearly ")
		time.Sleep(time.Hour)
		require.NoError(t, srv.Close())
		_, _ = io.WriteString(c, "late\n")
		line, err := bufio.NewReader(c).ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, "early late\n", line)
		c.Close()
		require.NoError(t, <-ended)
	})
}

// A request whose fields a middleware has changed, however, is not the one that was
// handed to it.
func TestSameHeader(t *testing.T) {
	parse := func(t *testing.T, lines string) (Fields, http.Header) {
		var f Fields
		fr := framing{length: -1}
		require.Nil(t, parseFields(&f, &fr, lines+"\r\n", 100))
		h := headerOf(lines + "\r\n")
		delete(h, "Host")
		return f, h
	}
	const lines = "Host: a\r\nConnection: keep-alive\r\nx-a: 1\r\nX-B: 1\r\nX-A: 2\r\nX-D: 5\r\nx-d: 5\r\nContent-Length: 3\r\n"
	cases := map[string]struct {
		change func(h http.Header)
		same   bool
	}{
		"as it was":         {func(h http.Header) {}, true},
		"without Host":      {func(h http.Header) { h.Del("Connection") }, true}, // of the connection
		"set":               {func(h http.Header) { h.Set("X-B", "2") }, false},
		"added":             {func(h http.Header) { h.Add("X-B", "1") }, false},
		"another":           {func(h http.Header) { h.Set("X-C", "1") }, false},
		"another for one":   {func(h http.Header) { h.Del("X-B"); h.Set("X-C", "1") }, false},
		"for Connection":    {func(h http.Header) { h.Del("Connection"); h.Set("X-C", "1") }, false},
		"deleted":           {func(h http.Header) { h.Del("X-B") }, false},
		"in another order":  {func(h http.Header) { h["X-A"] = []string{"2", "1"} }, false},
		"one of two":        {func(h http.Header) { h["X-A"] = []string{"1", "1"} }, false},
		"emptied":           {func(h http.Header) { clear(h) }, false},
		"not canonical":     {func(h http.Header) { h["x-b"] = h["X-B"]; delete(h, "X-B") }, false},
		"one of two alike":  {func(h http.Header) { h["X-D"] = []string{"5"}; h.Set("X-C", "1") }, false},
		"one more instead":  {func(h http.Header) { h["X-D"] = []string{"5"}; h.Add("X-A", "3") }, false},
		"an empty one more": {func(h http.Header) { h["X-C"] = nil }, true}, // is not sent
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f, h := parse(t, lines)
			tc.change(h)
			require.Equal(t, tc.same, sameHeader(&f, h))
		})
	}
}
