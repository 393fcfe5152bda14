// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bytes"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// text is a native leaf that answers with what it sees.
var text = HandlerFunc(func(x *Exchange) {
	f := MakeFields("Content-Type", "text/plain", "X-Internal-Node", "7", "Set-Cookie", "a=1", "Set-Cookie", "b=2")
	x.Respond(200, &f, x.Method+" "+x.Host+x.Path+x.Query)
})

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
				if n = http.CanonicalHeaderKey(n); strings.HasPrefix(n, "X-") { // HTTP/2 has them in lower case
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
			Allow: ClientIn(prefixes("10.9.0.0/16")), Deny: Any{ClientIn(prefixes("10.9.9.8/32")), Path("/secret")},
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
			Route{Match: Path("/forward"), Handler: &BasicAuth{Verify: check, Forward: true, Next: s.proxy("10.1.0.1:80")}},
			Route{Handler: &BasicAuth{Realm: "staff", Verify: check, UserField: "X-User", Next: s.proxy("10.1.0.1:80")}},
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
