// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bytes"
	"io"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/ratelimit"
)

// text is a native leaf that answers with what it sees.
var text = HandlerFunc(func(x *Exchange) {
	f := MakeFields("Content-Type", "text/plain", "X-Internal-Node", "7", "Set-Cookie", "a=1", "Set-Cookie", "b=2")
	x.Respond(200, &f, x.Method+" "+x.Host+x.Path+x.Query)
})

func TestLimit(t *testing.T) {
	var over []netip.Addr
	onBoth(t, func(s *site) http.Handler {
		over = nil
		return &Limit[netip.Addr]{
			Limiter: &ratelimit.Keyed[netip.Addr]{Law: ratelimit.GCRA{Rate: ratelimit.PerSecond(2)}},
			Policy:  "client", Window: time.Second,
			OnOver: func(_ *Exchange, a netip.Addr, _ ratelimit.Decision) { over = append(over, a) },
			Next:   text,
		}
	}, func(s *site) {
		t := s.T
		a := s.get("/")
		require.Equal(t, `"client";r=1;t=1`, a.Header.Get("RateLimit"))
		require.Equal(t, `"client";q=2;w=1`, a.Header.Get("RateLimit-Policy"))
		require.Equal(t, 200, s.get("/").StatusCode)
		a = s.get("/")
		require.Equal(t, 429, a.StatusCode)
		require.Equal(t, "1", a.Header.Get("Retry-After"))
		require.Equal(t, `"client";r=0;t=1`, a.Header.Get("RateLimit"))
		require.Equal(t, "429 Too Many Requests\n", a.body)
		require.Equal(t, []netip.Addr{netip.MustParseAddr("10.9.9.9")}, over)

		other, err := s.ask(s.from("10.9.9.8"), "/", "")
		require.NoError(t, err)
		require.Equal(t, 200, other.StatusCode)
		time.Sleep(time.Second)
		require.Equal(t, 200, s.get("/").StatusCode)
	})
}

func TestLimitWaits(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		return &Limit[string]{
			Limiter: &ratelimit.Keyed[string]{Law: ratelimit.GCRA{Rate: ratelimit.PerSecond(1), MaxWait: time.Second}},
			Key:     ByHeader("X-Key"),
			Next:    text,
		}
	}, func(s *site) {
		t := s.T
		start := time.Now()
		s.get("/", "X-Key", "a")
		s.get("/", "X-Key", "a")
		require.Equal(t, time.Second, time.Since(start))
		for range 5 {
			s.get("/") // no key, no limit
		}
		require.Equal(t, time.Second, time.Since(start))
	})
}

// What failed before it reached a server is not charged.
func TestLimitRefunds(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		return &Limit[netip.Addr]{
			Limiter: &ratelimit.Keyed[netip.Addr]{Law: ratelimit.GCRA{Rate: ratelimit.PerHour(2)}},
			Next: NewRouter(
				Route{Match: Path("/deny"), Handler: &Deny{}},
				Route{Handler: s.proxy()}, // nobody there
			),
		}
	}, func(s *site) {
		t := s.T
		for range 5 {
			require.Equal(t, 503, s.get("/").StatusCode)
		}
		require.Equal(t, 403, s.get("/deny").StatusCode)
		require.Equal(t, 403, s.get("/deny").StatusCode)
		require.Equal(t, 429, s.get("/deny").StatusCode, "a rule's no is charged")
	})
}

func TestLimitInFlight(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		return &Limit[string]{
			Limiter: &ratelimit.Keyed[string]{Law: ratelimit.InFlight{Max: 1}},
			Key:     ByHost,
			Next: HandlerFunc(func(x *Exchange) {
				time.Sleep(time.Second)
				x.Respond(204, nil, "")
			}),
		}
	}, func(s *site) {
		t := s.T
		first := make(chan int)
		go func() {
			a, _ := s.ask(s.from("10.9.9.8"), "/", "")
			first <- a.StatusCode
		}()
		time.Sleep(500 * time.Millisecond)
		require.Equal(t, 429, s.get("/").StatusCode)
		require.Equal(t, 204, <-first)
		require.Equal(t, 204, s.get("/").StatusCode)
	})
}

// M1: fields go by name, prefix, suffix, part and expression, in requests and
// replies; others keep their order.
func TestM1_DelHeader(t *testing.T) {
	del := []FieldEdit{
		DelField{Name: "x-name"}, DelField{Prefix: "x-beg"}, DelField{Suffix: "-end"}, DelField{Contains: "sub"},
		DelField{Regexp: regexp.MustCompile(`^X-Reg[0-9]$`)},
	}
	names := []string{"X-Always", "X-Name", "X-Beg1", "X-The-End", "X-End2", "X-aSUBb", "X-Reg1", "X-Regx", "X-Last"}
	var seen []string
	onBoth(t, func(s *site) http.Handler {
		return &EditHeader{Request: del, Reply: del, Next: HandlerFunc(func(x *Exchange) {
			seen = nil
			for n := range x.Header.All() {
				if strings.HasPrefix(n, "X-") {
					seen = append(seen, n)
				}
			}
			var f Fields
			for _, n := range names {
				f.Add(n, "1")
			}
			x.Respond(200, &f, "")
		})}
	}, func(s *site) {
		t := s.T
		var fields []string
		for _, n := range names {
			fields = append(fields, n, "1")
		}
		a := s.get("/", fields...)
		want := []string{"X-Always", "X-End2", "X-Last", "X-Regx"} // as http.Header.Write sorts them
		require.ElementsMatch(t, want, seen)
		for _, n := range names {
			require.Equal(t, strings.Contains(strings.Join(want, " "), n), a.Header.Get(n) != "", n)
		}
	})
}

func TestEditHeader(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		s.origin("10.1.0.1:80", echo)
		return &EditHeader{
			Request: []FieldEdit{
				SetField{Name: "X-Env", Value: "prod"},
				SetField{Name: "X-A", Value: "unused", IfNone: true},
				AddField{Name: "X-B", From: func(x *Exchange) string { return x.Client.String() }},
				AddField{Name: "X-B", From: func(x *Exchange) string { return "" }},
				ReplaceField{Name: "Cookie", Regexp: regexp.MustCompile(`secret=[^;]*`), With: "secret=*"},
			},
			Reply: []FieldEdit{
				DelField{Name: "Content-Type"},
				FieldEditFunc(func(_ *Exchange, f *Fields) { f.Add("X-Seen", "yes") }),
			},
			Next: s.proxy("10.1.0.1:80"),
		}
	}, func(s *site) {
		t := s.T
		a := s.get("/p?q", "X-Env", "a", "X-Env", "b", "X-A", "mine", "Cookie", "a=b; secret=1; c=d")
		require.Equal(t, "GET /p?q 10.0.0.1\nCookie: a=b; secret=*; c=d\nX-A: mine\nX-B: 10.9.9.9\nX-Env: prod\n", a.body)
		require.Equal(t, "yes", a.Header.Get("X-Seen"))
	})
}

func TestReplaceFieldItems(t *testing.T) {
	f := MakeFields("Accept", "a , b;q=1,c", "Vary", "x,  y")
	x := &Exchange{}
	ReplaceField{Name: "accept", Regexp: regexp.MustCompile(`^b.*$`), With: "", Items: true}.EditFields(x, &f)
	ReplaceField{Name: "vary", Regexp: regexp.MustCompile(`^z$`), With: "w", Items: true}.EditFields(x, &f)
	require.Equal(t, "a, c", f.Get("Accept"))
	require.Equal(t, "x,  y", f.Get("Vary"), "what is not changed keeps its bytes")
}

// Edits leave all other lines alone: order, case, bytes.
func FuzzEditHeader(f *testing.F) {
	f.Add("X-A\x00 1 \x00x-a\x002\x00B\x00 c,d\x00", "x-a", "new")
	f.Fuzz(func(t *testing.T, raw, name, value string) {
		if !isToken(name) {
			return
		}
		var fields Fields
		var others []Field
		parts := strings.Split(raw, "\x00")
		for i := 0; i+1 < len(parts); i += 2 {
			if !isToken(parts[i]) {
				continue
			}
			fields.Add(parts[i], parts[i+1])
			if last := fields.list[len(fields.list)-1]; !equalFold(last.Name, name) {
				others = append(others, last)
			}
		}
		for _, e := range []FieldEdit{
			SetField{Name: name, Value: value}, AddField{Name: name, Value: value},
			ReplaceField{Name: name, Regexp: regexp.MustCompile("a"), With: "b", Items: true}, DelField{Name: name},
		} {
			e.EditFields(&Exchange{}, &fields)
			var left []Field
			for _, fd := range fields.list {
				if !equalFold(fd.Name, name) {
					left = append(left, fd)
				}
			}
			require.Equal(t, others, left, "%T", e)
		}
	})
}

func TestRewrite(t *testing.T) {
	tests := []struct {
		h    Rewrite
		in   string
		want string
	}{
		{Rewrite{StripPrefix: "/api/"}, "/api/v1?x", "GET 10.0.0.1/v1?x"},
		{Rewrite{StripPrefix: "/api"}, "/api", "GET 10.0.0.1/"},
		{Rewrite{StripPrefix: "/api"}, "/apiary", "GET 10.0.0.1/apiary"},
		{Rewrite{AddPrefix: "/new/"}, "/a%2Fb//c", "GET 10.0.0.1/new/a%2Fb//c"},
		{Rewrite{StripPrefix: "/a", AddPrefix: "/b"}, "/a/c", "GET 10.0.0.1/b/c"},
		{Rewrite{Regexp: regexp.MustCompile(`^/u/(\d+)/`), With: "/users/$1/"}, "/u/7/x?y=1", "GET 10.0.0.1/users/7/x?y=1"},
		{Rewrite{Query: func(x *Exchange) string { return "was=" + x.Query[1:] }}, "/?a", "GET 10.0.0.1/?was=a"},
		{Rewrite{Query: func(x *Exchange) string { return "" }}, "/?a", "GET 10.0.0.1/"},
		{Rewrite{Host: "inner:81"}, "/", "GET inner:81/"},
		{Rewrite{HostOf: func(x *Exchange) string { return "a." + x.Host }}, "/", "GET a.10.0.0.1/"},
		{Rewrite{Method: "PURGE"}, "/", "PURGE 10.0.0.1/"},
		{Rewrite{Path: func(x *Exchange) string { return "/a b" }}, "/", "500 Internal Server Error\n"},
		{Rewrite{Path: func(x *Exchange) string { return "//evil?" }}, "/", "500 Internal Server Error\n"},
		{Rewrite{Path: func(x *Exchange) string { return "evil" }}, "/", "500 Internal Server Error\n"},
		{Rewrite{Host: "a/b"}, "/", "500 Internal Server Error\n"},
		{Rewrite{Query: func(x *Exchange) string { return "a\r\nb" }}, "/", "500 Internal Server Error\n"},
	}
	for _, tt := range tests {
		tt.h.Next = text
		onBoth(t, func(*site) http.Handler { return &tt.h }, func(s *site) {
			t := s.T
			require.Equal(t, tt.want, s.get(tt.in).body, "%+v", tt.h)
		})
	}
}

// What is found but once is replaced as package regexp does it.
func FuzzReplaceAll(f *testing.F) {
	for _, seed := range [][3]string{
		{"^/api/", "/api/v1", "/"}, {"^/u/([0-9]+)(x)?", "/u/77/y", "/users/$1/${2}$2$$"}, {"^a*", "aab", "$0x$1_"}, {"^", "a", "b"}, {"^+a", "a", ""},
		{"^a|b", "ab", ""}, {"^(?m:^a)", "a\na", "b"}, {"^(.)(.)", "xyz", "$2$1$3"}, {"^x?", "y", "$"}, {"^(?i)A", "a", "$1é"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, expr, s, with string) {
		if len(expr) > 100 {
			return
		}
		e, err := regexp.Compile(expr)
		if err != nil {
			return
		}
		require.Equal(t, e.ReplaceAllString(s, with), replaceAll(e, s, with), "%q %q %q", expr, s, with)
	})
}

func TestRedirect(t *testing.T) {
	tests := []struct {
		h      Redirect
		host   string
		in     string
		status int
		want   string
	}{
		{Redirect{Scheme: "https"}, "a.example:8080", "/x?y", 302, "https://a.example/x?y"},
		{Redirect{Scheme: "https", Status: 308}, "[::1]:80", "/", 308, "https://[::1]/"},
		{Redirect{Host: "www.example", Status: 301}, "example", "//evil/x", 301, "http://www.example//evil/x"},
		{Redirect{StripPrefix: "/old", AddPrefix: "/new", Status: 307}, "a", "/old/x", 307, "http://a/new/x"},
		{Redirect{StripPrefix: "/old"}, "a", "/old", 302, "http://a/"},
		{Redirect{AppendSlash: true, DropQuery: true, Status: 303}, "a", "/x?y", 303, "http://a/x/"},
		{Redirect{To: func(x *Exchange) string { return "https://b" + x.Path }, Status: 999}, "a", "/x?y", 302, "https://b/x"},
		{Redirect{To: func(x *Exchange) string { return "" }}, "a", "/x", 404, ""},
		{Redirect{To: func(x *Exchange) string { return "" }, Next: text}, "a", "/x", 200, ""},
	}
	for _, tt := range tests {
		onBoth(t, func(*site) http.Handler { return &tt.h }, func(s *site) {
			t := s.T
			a := s.get(tt.in, "Host", tt.host)
			require.Equal(t, tt.status, a.StatusCode)
			require.Equal(t, tt.want, a.Header.Get("Location"))
		})
	}
	h := &Redirect{Header: MakeFields("Set-Cookie", "a=b")}
	onBoth(t, func(*site) http.Handler { return h }, func(s *site) {
		t := s.T
		for range 2 {
			require.Equal(t, []string{"a=b"}, s.get("/").Header.Values("Set-Cookie"))
		}
	})
	require.Equal(t, 1, h.Header.Len(), "a reply does not change what it was made from")
}

// R13: exactly that status, those fields, that body; an empty error page
// closes the connection.
func TestR13_Answers(t *testing.T) {
	onBoth(t, func(*site) http.Handler {
		fixed := &FixedReply{Status: 418, Header: MakeFields("Content-Type", "x/y", "X-One", "1"), Body: "short and stout"}
		return &ErrorPages{
			Pages: map[int]FixedReply{
				403: {Header: MakeFields("Content-Type", "text/html"), Body: "<p>no</p>"},
				410: {},
			},
			Next: NewRouter(
				Route{Match: Path("/fixed"), Handler: fixed},
				Route{Match: Path("/deny"), Handler: &Deny{}},
				Route{Match: Path("/gone"), Handler: &Deny{Status: 410}},
				Route{Match: Path("/drop"), Handler: Drop{}},
			),
		}
	}, func(s *site) {
		t := s.T
		a := s.get("/fixed")
		require.Equal(t, 418, a.StatusCode)
		require.Equal(t, "short and stout", a.body)
		require.Equal(t, "x/y", a.Header.Get("Content-Type"))
		require.Equal(t, "1", a.Header.Get("X-One"))

		a = s.get("/deny")
		require.Equal(t, 403, a.StatusCode)
		require.Equal(t, "<p>no</p>", a.body)
		require.Equal(t, "404 Not Found\n", s.get("/else").body)
		for _, target := range []string{"/gone", "/drop"} {
			_, err := s.ask(s.client, target, "")
			require.Error(t, err, target)
		}
	})
}

// A body that nobody read does not disturb the next request.
func TestUnreadBody(t *testing.T) {
	onBoth(t, func(*site) http.Handler { return &Deny{} }, func(s *site) {
		t := s.T
		for range 3 {
			a, err := s.ask(s.client, "/", strings.Repeat("x", 3000))
			require.NoError(t, err)
			require.Equal(t, 403, a.StatusCode)
		}
	})
}

func TestTarpit(t *testing.T) {
	pit := &Tarpit{Delay: time.Minute, Max: 1}
	onBoth(t, func(*site) http.Handler { return pit }, func(s *site) {
		t := s.T
		start := time.Now()
		held := make(chan int)
		go func() {
			a, _ := s.ask(s.from("10.9.9.8"), "/", "")
			held <- a.StatusCode
		}()
		time.Sleep(time.Second)
		require.Equal(t, 500, s.get("/").StatusCode)
		require.Equal(t, time.Second, time.Since(start), "there is one place")
		require.Equal(t, 500, <-held)
		require.Equal(t, time.Minute, time.Since(start))
	})
	require.Zero(t, pit.held.Load())
}

func TestAccess(t *testing.T) {
	onBoth(t, func(*site) http.Handler {
		return &Access{
			Allow: ClientIn(prefixes("10.9.0.0/16")), Deny: Or{ClientIn(prefixes("10.9.9.8/32")), Path("/secret")},
			Next: text,
		}
	}, func(s *site) {
		t := s.T
		for _, tt := range []struct {
			from, path string
			want       int
		}{{"10.9.9.9", "/", 200}, {"10.9.9.9", "/secret", 403}, {"10.9.9.8", "/", 403}, {"10.8.0.1", "/", 403}} {
			a, err := s.ask(s.from(tt.from), tt.path, "")
			require.NoError(t, err)
			require.Equal(t, tt.want, a.StatusCode, "%+v", tt)
		}
	})
}

// R15: the path of the monitor, and no other spelling of it.
func TestR15_Monitor(t *testing.T) {
	ill := false
	onBoth(t, func(*site) http.Handler {
		ill = false
		return &Monitor{Path: "/_alive", Fail: func() bool { return ill }, Next: &FixedReply{Status: 404}}
	}, func(s *site) {
		t := s.T
		require.Equal(t, 200, s.get("/_alive").StatusCode)
		require.Equal(t, 200, s.get("/_alive?x").StatusCode)
		require.Equal(t, 404, s.get("/_Alive").StatusCode)
		ill = true
		require.Equal(t, 503, s.get("/_alive").StatusCode)
		c, err := s.net.DialContext(t.Context(), "tcp", "10.0.0.1:80")
		require.NoError(t, err)
		defer c.Close()
		ill = false
		_, err = io.WriteString(c, "GET http://a/_alive HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		require.NoError(t, err)
		reply, err := io.ReadAll(c)
		require.NoError(t, err)
		require.True(t, bytes.HasPrefix(reply, []byte("HTTP/1.1 200 ")), "absolute form: %s", reply)
	})
}

func TestBasicAuth(t *testing.T) {
	check, err := HTPasswd(strings.NewReader("# staff\nann:hash(one)\n\nbob:hash(t:wo)\n"),
		func(hash, password string) bool { return hash == "hash("+password+")" })
	require.NoError(t, err)
	onBoth(t, func(s *site) http.Handler {
		s.origin("10.1.0.1:80", echo)
		return NewRouter(
			Route{Match: Path("/forward"), Handler: &BasicAuth{Check: check, Forward: true, Next: s.proxy("10.1.0.1:80")}},
			Route{Handler: &BasicAuth{Realm: "staff", Check: check, UserField: "X-User", Next: s.proxy("10.1.0.1:80")}},
		)
	}, func(s *site) {
		t := s.T
		login := func(user, password string) string {
			r := http.Request{Header: http.Header{}}
			r.SetBasicAuth(user, password)
			return r.Header.Get("Authorization")
		}
		a := s.get("/")
		require.Equal(t, 401, a.StatusCode)
		require.Equal(t, `Basic realm="staff", charset="UTF-8"`, a.Header.Get("WWW-Authenticate"))
		for _, v := range []string{login("ann", "two"), login("eve", "one"), login("eve", "t:wo"), "Basic !", "Bearer x", "basic", "Basic " + "YW5u"} {
			require.Equal(t, 401, s.get("/", "Authorization", v).StatusCode, v)
		}
		a = s.get("/", "Authorization", login("bob", "t:wo"), "X-User", "root", "X-User", "admin")
		require.Equal(t, "GET / 10.0.0.1\nX-User: bob\n", a.body)
		a = s.get("/forward", "Authorization", login("ann", "one"))
		require.Equal(t, "GET /forward 10.0.0.1\nAuthorization: "+login("ann", "one")+"\n", a.body)
	})
	_, err = HTPasswd(strings.NewReader("ann"), nil)
	require.EqualError(t, err, "l7: line 1 of the password file is not user:hash")

	plain := Passwords(map[string]string{"ann": "one"})
	require.True(t, plain("ann", "one"))
	require.False(t, plain("ann", "two"))
	require.False(t, plain("eve", ""))
}

func TestRequestID(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		s.origin("10.1.0.1:80", echo)
		return &RequestID{Reply: true, Next: s.proxy("10.1.0.1:80")}
	}, func(s *site) {
		t := s.T
		a := s.get("/", "X-Request-Id", "forged")
		id := a.Header.Get("X-Request-Id")
		require.Regexp(t, "^[0-9a-f]{32}$", id)
		require.Contains(t, a.body, "X-Request-Id: "+id+"\n")
		require.NotEqual(t, id, s.get("/").Header.Get("X-Request-Id"))
	})
	h := &RequestID{Field: "X-Trace", Next: HandlerFunc(func(*Exchange) {})}
	for _, tt := range []struct {
		id   string
		kept bool
	}{{"a-1", true}, {"", false}, {"a b", false}, {strings.Repeat("a", 129), false}} {
		x := get("h", "/", "X-Trace", tt.id)
		x.trusted = true
		h.ServeExchange(x)
		require.Equal(t, tt.kept, x.Header.Get("X-Trace") == tt.id, tt.id)
	}
}

// M3 and M11: each form of normalisation.
func TestM3_Normalize(t *testing.T) {
	tests := []struct {
		h        Normalize
		in, want string
	}{
		{Normalize{DecodeUnreserved: true}, "/%41%2f%7E?%61=%26", "/A%2f~?a=%26"},
		{Normalize{DecodeUnreserved: true}, "/%zz%4", "/%zz%4"},
		{Normalize{DecodeUnreserved: true, Strict: true}, "/%zz", "400"},
		{Normalize{DecodeUnreserved: true}, "/%7%41%%411%%7a", "/%7%41%%411%z"},
		{Normalize{UpperHex: true}, "/%2f%c3?%aF", "/%2F%C3?%AF"},
		{Normalize{UpperHex: true, Strict: true}, "/?a=%g0", "400"},
		{Normalize{MergeSlashes: true}, "//a///b/?//", "/a/b/?//"},
		{Normalize{DotSegments: true}, "/a/./b/../c", "/a/c"},
		{Normalize{DotSegments: true}, "/a/b/..", "/a/"},
		{Normalize{DotSegments: true}, "/a/.", "/a/"},
		{Normalize{DotSegments: true}, "/../../a", "/a"},
		{Normalize{DotSegments: true}, "/..", "/"},
		{Normalize{DotSegments: true}, "/a/%2e%2E/b", "/b"},
		{Normalize{DotSegments: true}, "/a/.../..b/c..", "/a/.../..b/c.."},
		{Normalize{DotSegments: true}, "/a//../b", "/a/b"},
		{Normalize{DotSegments: true, Strict: true}, "/a/../../b", "400"},
		{Normalize{DotSegments: true, Strict: true}, "/a/../b", "/b"},
		{Normalize{SortQuery: true}, "/?b=1&a=2&b=0&a", "/?a=2&a&b=1&b=0"},
		{Normalize{}, "/%41//../?b&a", "/%41//../?b&a"},
	}
	for _, tt := range tests {
		x := get("h", tt.in)
		got := "400"
		if tt.h.normalize(x) {
			got = x.Path + x.Query
		}
		require.Equal(t, tt.want, got, "%+v of %s", tt.h, tt.in)
	}
	onBoth(t, func(*site) http.Handler {
		return &Normalize{MergeSlashes: true, DotSegments: true, Strict: true, Next: text}
	}, func(s *site) {
		t := s.T
		require.Equal(t, "GET 10.0.0.1/b", s.get("//a/../b").body)
		require.Equal(t, 400, s.get("/../b").StatusCode)
	})
}

func TestM11_DefaultPort(t *testing.T) {
	for _, tt := range []struct{ scheme, host, want string }{
		{"http", "a:80", "a"}, {"http", "a:443", "a:443"}, {"https", "a:443", "a"}, {"https", "[::1]:443", "[::1]"}, {"http", "a:8080", "a:8080"},
	} {
		x := &Exchange{Scheme: tt.scheme, Host: tt.host, Path: "/"}
		require.True(t, (&Normalize{DefaultPort: true}).normalize(x))
		require.Equal(t, tt.want, x.Host)
	}
}

// Normalising twice is normalising once, and never makes a target that cannot
// be sent.
func FuzzNormalize(f *testing.F) {
	f.Add("/a/%2e%2e/%41//b", "?b&a")
	f.Fuzz(func(t *testing.T, path, query string) {
		x := &Exchange{Method: "GET", Scheme: "http", Path: "/" + path, Query: "?" + query}
		if !targetOK(x) {
			return
		}
		h := &Normalize{DecodeUnreserved: true, UpperHex: true, MergeSlashes: true, DotSegments: true, SortQuery: true}
		require.True(t, h.normalize(x))
		require.True(t, targetOK(x), "%q %q", x.Path, x.Query)
		require.False(t, hasDots(x.Path), x.Path)
		once := x.Path + x.Query
		require.True(t, h.normalize(x))
		require.Equal(t, once, x.Path+x.Query)
	})
}

// stalling is a body that stops for long after some bytes.
type stalling struct {
	first string
	stop  time.Duration
	last  string
}

func (b *stalling) Read(p []byte) (int, error) {
	switch {
	case b.first != "":
		n := copy(p, b.first)
		b.first = b.first[n:]
		return n, nil
	case b.last == "":
		return 0, io.EOF
	}
	time.Sleep(b.stop)
	b.stop = 0
	n := copy(p, b.last)
	b.last = b.last[n:]
	return n, nil
}

// H12: a body is waited for, up to a time and a size; with a threshold it is
// passed on when that is there.
func TestH12_BufferBody(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		s.origin("10.1.0.1:80", echo)
		to := s.proxy("10.1.0.1:80")
		return NewRouter(
			Route{Match: Path("/all"), Handler: &BufferBody{MaxBytes: 2000, Timeout: 100 * time.Millisecond, Next: to}},
			Route{Match: Path("/some"), Handler: &BufferBody{AtLeast: 1000, Timeout: 100 * time.Millisecond, Next: to}},
		)
	}, func(s *site) {
		t := s.T
		post := func(path string, body io.Reader, length int64) (int, string) {
			req, err := http.NewRequestWithContext(t.Context(), "POST", "http://10.0.0.1"+path, body)
			require.NoError(t, err)
			req.ContentLength = length
			resp, err := s.client.Do(req)
			require.NoError(t, err)
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			return resp.StatusCode, string(text)
		}
		first, last := strings.Repeat("a", 1000), "b"
		for _, length := range []int64{1001, -1} {
			status, text := post("/all", &stalling{first, 10 * time.Millisecond, last}, length)
			require.Equal(t, 200, status)
			require.True(t, strings.HasSuffix(text, first+last))
			status, _ = post("/all", &stalling{first, time.Second, last}, length)
			require.Equal(t, 408, status)
			status, text = post("/some", &stalling{first, time.Second, last}, length)
			require.Equal(t, 200, status)
			require.True(t, strings.HasSuffix(text, first+last))
			status, _ = post("/some", &stalling{first[1:], time.Second, last}, length)
			require.Equal(t, 408, status)
			status, _ = post("/all", strings.NewReader(strings.Repeat("a", 2001)), min(length, 1)*2001)
			require.Equal(t, 413, status)
			status, text = post("/some", strings.NewReader("short"), min(length, 1)*5)
			require.Equal(t, 200, status)
			require.True(t, strings.HasSuffix(text, "\nshort"))
		}
		time.Sleep(time.Second) // for the client's stalled writes
	})
}
