// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/ratelimit"
)

// wrongFields returns the fields that the ConfigErrors of err name.
func wrongFields(err error) (fields []string) {
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range j.Unwrap() {
			fields = append(fields, wrongFields(e)...)
		}
		return fields
	}
	var c *penstock.ConfigError
	if errors.As(err, &c) {
		fields = append(fields, c.Field)
	}
	return fields
}

// TestMistakes has a literal of each kind with a mistake in it, and the path by
// which it is named.
func TestMistakes(t *testing.T) {
	next := &Deny{}
	pool := &balance.Pool{}
	split := func(s *Split, arms ...Arm) *Split {
		require.NoError(t, s.Set(arms...))
		return s
	}
	for field, wrong := range map[string]interface{ Check() error }{
		"Redirect.Status":                            &Redirect{Status: 200},
		"Redirect.Host":                              &Redirect{Host: "a/b"},
		"Redirect.Scheme":                            &Redirect{Scheme: "https:"},
		"Redirect.Port":                              &Redirect{Port: 65536},
		"Redirect.AddPrefix":                         &Redirect{AddPrefix: "old"},
		"Redirect.To":                                &Redirect{},
		"Redirect.Next":                              &Redirect{Host: "a.example", Next: next},
		"Redirect.StripPrefix":                       &Redirect{StripPrefix: "/a", To: func(*Exchange) string { return "" }},
		"Redirect.Header":                            &Redirect{Host: "a.example", Header: MakeFields("Location", "/")},
		"Rewrite.With":                               &Rewrite{Regexp: regexp.MustCompile("^/(v[0-9])/"), With: "/$1x/", Next: next},
		"ReplaceField.With":                          ReplaceField{Name: "X", Regexp: regexp.MustCompile("(?P<a>.)"), With: "${b}"},
		"Rewrite.Host":                               &Rewrite{Host: "a b", Next: next},
		"Rewrite.Method":                             &Rewrite{Method: "get", Next: next},
		"Rewrite.StripPrefix":                        &Rewrite{StripPrefix: "api", Next: next},
		"Rewrite.Regexp":                             &Rewrite{With: "/x", Next: next},
		"BasicAuth.Realm":                            &BasicAuth{Realm: `a"b`, Verify: Passwords(nil), Next: next},
		"BasicAuth.UserField":                        &BasicAuth{UserField: "X Y", Verify: Passwords(nil), Next: next},
		"Capture.Reply[0]":                           &Capture{Reply: []string{""}, Next: next},
		"FixedReply.Status":                          &FixedReply{Status: 103},
		"ErrorPages.Pages[42]":                       &ErrorPages{Pages: map[int]FixedReply{42: {}}, Next: next},
		"Monitor.Path":                               &Monitor{Path: "up", Next: next},
		"EditHeader.Request[0].SetField.Name":        &EditHeader{Request: []FieldEdit{SetField{Name: "host", Value: "a.test"}}, Next: next},
		"EditHeader.Request[0].AddField.Name":        &EditHeader{Request: []FieldEdit{AddField{Name: "Content-Length", Value: "3"}}, Next: next},
		"EditHeader.Reply[0].ReplaceField.Name":      &EditHeader{Reply: []FieldEdit{ReplaceField{Name: "Connection", Regexp: regexp.MustCompile("a")}}, Next: next},
		"EditHeader.Reply[0].SetField.Value":         &EditHeader{Reply: []FieldEdit{SetField{Name: "X", Value: "a\r\nb"}}, Next: next},
		"TrustForwarded.Prefixes[0]":                 &TrustForwarded{Prefixes: []netip.Prefix{netip.MustParsePrefix("::ffff:10.0.0.0/104")}, Next: next},
		"Limit.Key":                                  &Limit[string]{Limiter: &ratelimit.Keyed[string]{Law: ratelimit.Unlimited{}}, Next: next},
		"Limit.Policy":                               &Limit[netip.Addr]{Policy: `a"b`, Limiter: &ratelimit.Keyed[netip.Addr]{Law: ratelimit.Unlimited{}}, Next: next},
		"Gate.Places.Concurrency.Max":                &Gate{Places: &ratelimit.Concurrency{}, Next: next},
		"CircuitBreaker.Breaker":                     &CircuitBreaker{Next: next},
		"CircuitBreaker.Breaker.Share":               &CircuitBreaker{Breaker: &ratelimit.Breaker{Share: 2}, Next: next},
		"Gate.Places.Shedder.Target":                 &Gate{Places: &ratelimit.Shedder{Target: 70}, Next: next},
		"Persist.Keys[1]":                            &Persist{Pool: pool, Keys: [][]byte{make([]byte, 16), {1}}, Next: next},
		"Persist.Keys[0]":                            &Persist{Pool: pool, Keys: [][]byte{{}}, Next: next},
		"Persist.Name":                               &Persist{Pool: pool, Name: "a b", Next: next},
		"Persist.Mode":                               &Persist{Pool: pool, Mode: 9, Next: next},
		"Persist.MaxIdle":                            &Persist{Pool: pool, MaxIdle: 1, Plain: true, Next: next},
		"Persist.Domain":                             &Persist{Pool: pool, Domain: "a;b", Next: next},
		"Persist.Path":                               &Persist{Pool: pool, Path: "x", Next: next},
		"Persist.SameSite":                           &Persist{Pool: pool, SameSite: 9, Next: next},
		"Split.Keys[0]":                              split(&Split{Cookie: "a", Keys: [][]byte{{1}}}, Arm{"a", 1, next}),
		"Split.Keys":                                 split(&Split{Keys: [][]byte{make([]byte, 16)}}, Arm{"a", 1, next}),
		"Split.Arms[0].Name":                         split(&Split{Field: "X-Arm"}, Arm{"a\n", 1, next}),
		"Split.Arms":                                 &Split{},
		"Fallback":                                   Fallback{},
		"Fallback[0].Pool":                           Fallback{{Handler: next}, {Handler: next}},
		"Fallback[1].Handler":                        Fallback{{Pool: pool, Handler: next}, {}},
		"Proxy.Pool":                                 &Proxy{},
		"Proxy.Pool.Panic":                           &Proxy{Pool: &balance.Pool{Panic: 2}},
		"Proxy.Forward":                              &Proxy{Pool: pool, Forward: 9},
		"Proxy.Via":                                  &Proxy{Pool: pool, Via: "a b"},
		"Proxy.Upgrades[0]":                          &Proxy{Pool: pool, Upgrades: []string{"web socket"}},
		"Proxy.Upgrades[1]":                          &Proxy{Pool: pool, Upgrades: []string{"TLS/1.3", "TLS/"}},
		"Proxy.Retry.Statuses[0]":                    &Proxy{Pool: pool, Retry: Retry{Statuses: []int{302}}},
		"Proxy.Retry.Classes[0]":                     &Proxy{Pool: pool, Retry: Retry{Classes: []balance.Class{balance.OK}}},
		"Proxy.Retry.Classes[1]":                     &Proxy{Pool: pool, Retry: Retry{Classes: []balance.Class{balance.Reset, balance.StatusError}}},
		"Proxy.Hedge.Quantile":                       &Proxy{Pool: pool, Hedge: Hedge{Quantile: 95}},
		"Proxy.Mirror.To":                            &Proxy{Pool: pool, Mirror: &Mirror{}},
		"Proxy.Mirror.Share":                         &Proxy{Pool: pool, Mirror: &Mirror{To: next, Share: 5}},
		"Proxy.Upstream.Protocols":                   &Proxy{Pool: pool, Upstream: &Upstream{Protocols: &http.Protocols{}}},
		"Router.Order":                               &Router{Order: 9},
		"Router.NotFound.Deny.Status":                &Router{NotFound: &Deny{Status: 1}},
		"HandlerFunc":                                HandlerFunc(nil),
		"Server.Handler.Router.NotFound.Deny.Status": &Server{Handler: &Router{NotFound: &Deny{Status: 1}}},

		"Method":                   Method("get"),
		"Scheme":                   Scheme("ws"),
		"Host":                     Host("a.example:80"),
		"SNI":                      SNI("a*.example"),
		"Path":                     Path("/api/*"),
		"PathPrefix":               PathPrefix("/api/*"),
		"PathSuffix":               PathSuffix("*.png"),
		"PathPattern":              PathPattern("/api/*"),
		"Header.Name":              Header{Name: "a b"},
		"Header.Value":             Header{Name: "a", Value: "b,c", Items: true},
		"Cookie.Name":              Cookie{},
		"Cookie.Value":             Cookie{Name: "a", Value: "b;c"},
		"Query.Name":               Query{},
		"Query.Value":              Query{Name: "a", Value: "b", Test: func(string) bool { return true }},
		"ALPN":                     ALPN("http/2"),
		"JA4":                      JA4("t13d"),
		"ContentType":              ContentType("*/*"),
		"RemoteIn[0]":              RemoteIn{{}},
		"RemotePorts":              RemotePorts{2, 1},
		"LocalPort":                LocalPort(0),
		"TLS":                      TLS{Min: 0x304, Max: 0x303},
		"PathRegexp.Regexp":        PathRegexp{},
		"MatchFunc":                MatchFunc(nil),
		"All[1].Any[0].Not.Method": All{Host("a"), Any{Not(Method("get"))}},
		"Not":                      Not(nil).(not),
		"All[0]":                   All{nil},
	} {
		require.Contains(t, wrongFields(wrong.Check()), field, "%v", wrong.Check())
	}
}

func TestMistakesSayWhatToWrite(t *testing.T) {
	for want, m := range map[string]interface{ Check() error }{
		`PathPrefix: "/api/*" has a *, which stands for itself: write PathPrefix("/api")`: PathPrefix("/api/*"),
		`PathPrefix: "/*" has a *, which stands for itself: write PathPrefix("/")`:        PathPrefix("/*"),
		`write a PathPattern or a PathRegexp`:                                             Path("/a*/b"),
		`PathSuffix: "*.png" has a *, which stands for itself: write PathSuffix(".png")`:  PathSuffix("*.png"),
		`Method: "get" is not "GET": methods are case-sensitive`:                          Method("get"),

		`write the host alone, "a.example", and match the scheme by Scheme`:         Host("http://A.example:80/x"),
		`as in xn--bcher-kva.example for bücher.example (punycode)`:                 Host("*.bücher.example"),
		`ASCII: write the form that clients send`:                                   SNI("bücher.example"),
		`is an address without brackets: write "[::1]"`:                             Host("::1"),
		`has a bracket that is not closed`:                                          Host("[::1"),
		`write "*.a.example" for every name below it`:                               Host(".a.example"),
		`Path: "/{id}" has braces, which stand for themselves: write a PathPattern`: Path("/{id}"),
		`has braces`: PathSuffix("/{id}"),
		`PathSuffix: "/api/*" has a *, which stands for itself: write a PathPattern`: PathSuffix("/api/*"),
		`has a colon, which stands for itself: write {id}`:                           PathPattern("/a/:id"),
		`for an expression write a PathRegexp`:                                       PathPattern("/{id:[0-9]+}"),
		`PathPattern: "/{a}{b}" has a brace within an element`:                       PathPattern("/{a}{b}"),
		`PathPattern: "/a b" has a byte that must be escaped in a path`:              PathPattern("/a b"),
		`PathPattern: "/a?b" has a byte that must be escaped in a path`:              PathPattern("/a?b"),
		`Method: "*" is not a method: leave it out`:                                  Method("*"),
		`RemotePorts.To: "0-0" has no port`:                                          RemotePorts{},
		`Header.Value: " b" is never sent in this form`:                              Header{Name: "a", Value: " b"},
		`Header.Value: "b" is not looked at: Test is called instead`:                 Header{Name: "a", Value: "b", Test: func(string) bool { return true }},
		`is not "h2", as HTTP/2 over TLS is called`:                                  ALPN("h2c"),
		`write an ALPN for each`:                                                     ALPN("h2,http/1.1"),
		`is not a whole fingerprint`:                                                 JA4("t13d1516h2_8daaf6152771"),
		`longer than 255 bytes`:                                                      ALPN(strings.Repeat("a", 256)),
		`has $1x, but the expression has no such group: write ${1}x`:                 &Rewrite{Regexp: regexp.MustCompile("(a)"), With: "$1x", Next: Drop{}},
		`has $2, but the expression has no such group: a dollar is written $$`:       &Rewrite{Regexp: regexp.MustCompile("(a)"), With: "$2", Next: Drop{}},
		`Redirect.Host: "*.a.example" must be one host`:                              &Redirect{Host: "*.a.example"},
		`Redirect.Host: "http://a" must be a host, or host:port: it has a scheme`:    &Redirect{Host: "http://a"},
		`Redirect.Host: "bücher.example" must be a host, or host:port: it is not in`: &Redirect{Host: "bücher.example"},
		`Redirect.Scheme: "HTTPS" must be a scheme in lower case`:                    &Redirect{Scheme: "HTTPS"},
		`Persist.Domain: "a.example:80" must be a domain alone`:                      &Persist{Domain: "a.example:80"},
		`Persist.Domain: "bücher.example" must be a domain alone`:                    &Persist{Domain: "bücher.example"},
		`Persist.Domain: "a.example" must be left out: clients take no __Host-`:      &Persist{Name: "__Host-a", Domain: "a.example"},
		`Persist.Path: "/a" must be left out: clients take no __Host-`:               &Persist{Name: "__Host-a", Path: "/a"},
	} {
		require.ErrorContains(t, m.Check(), want)
	}
	require.ErrorContains(t, new(Split).Set(), "Split.Arms: <nil> must have an arm")
	require.ErrorContains(t, new(Split).Set(Arm{"a", 0, Drop{}}, Arm{"b", -1, Drop{}}), "must be greater than 0 for at least one arm")
	for _, m := range []interface{ Check() error }{
		Method("query"), Path("*"), Path("/a*b"), PathPrefix(""), PathPrefix("/"), PathSuffix(".tar.gz"), ContentType("image/*"), ContentType("a/b+json"), Host("*"), Host(""),
		Host("*.a.example."), Host("[::1]"), PathPattern("/v1/a:cancel/{a.b...}"), RemotePorts{To: 80}, ALPN(""), ALPN("h2"), ALPN("acme-tls/1"), JA4("t13d1516h2_8daaf6152771_b186095e22b6"),
		Header{Name: "a", Value: `"b,c"`, Items: true}, Cookie{Name: "a", Value: `"b c"`},
		&Rewrite{Regexp: regexp.MustCompile("(?P<n>a)(b)"), With: "$$1x${n}$2/$n", Next: Drop{}}, &Redirect{DropQuery: true}, &Persist{Pool: &balance.Pool{}, Domain: ".a.example", Next: Drop{}},
	} {
		require.NoError(t, m.Check(), "%v", m)
	}
}

func TestServeRefusesAWrongTree(t *testing.T) {
	n := l4test.NewNetwork()
	ln, err := n.Listen("tcp", "front:80")
	require.NoError(t, err)
	s := &Server{Handler: &BufferBody{Next: &Limit[netip.Addr]{Next: &Proxy{}}}}
	require.EqualError(t, s.Serve(ln), `penstock: Server.Handler.BufferBody.Next.Limit.Limiter: <nil> must be a limiter, such as a ratelimit.Keyed
penstock: Server.Handler.BufferBody.Next.Limit.Next.Proxy.Pool: <nil> must be the pool of servers`)
	_, err = n.DialContext(t.Context(), "tcp", "front:80")
	require.Error(t, err, "the listener is closed")
}

// TestCheckOfATreeThatLeadsBack has a router whose route hands on to it again.
func TestCheckOfATreeThatLeadsBack(t *testing.T) {
	var r Router
	back := &Rewrite{AddPrefix: "/v2", Next: &r}
	require.NoError(t, r.Set(Route{Match: PathPrefix("/v1"), Handler: back}, Route{Handler: &Deny{}}))
	require.NoError(t, r.Check())
	back.Host = "a b"
	require.Equal(t, []string{"Router.Routes[0].Handler.Rewrite.Host"}, wrongFields(r.Check()))

	// By way of a Fallback, which is a slice.
	f := Fallback{{Pool: &balance.Pool{}, Handler: &r}, {Handler: &Deny{}}}
	require.NoError(t, r.Set(Route{Handler: f}))
	require.NoError(t, r.Check())
	f[1].Handler = (*Proxy)(nil)
	require.Equal(t, []string{"Router.Routes[0].Handler.Fallback[1].Handler"}, wrongFields(r.Check()))
}

// TestProtocolsThatNeedTLS pins that HTTP2 for servers without TLS is found: they would get
// HTTP/1, although the caller has most likely meant h2c.
func TestProtocolsThatNeedTLS(t *testing.T) {
	over := new(http.Protocols)
	over.SetHTTP2(true)
	require.EqualError(t, (&Upstream{Protocols: over}).Check(),
		`penstock: Upstream.Protocols: "{HTTP2}" must have UnencryptedHTTP2 where TLS is nil (h2c): HTTP2 is that over TLS, and servers would get HTTP/1`)
	for _, u := range []*Upstream{
		{Protocols: over, TLS: func(*balance.Server) *tls.Config { return new(tls.Config) }},
		{Protocols: over, Dial: l4test.NewNetwork().DialContext}, // which may return a tls.Conn
		{Protocols: over, ProtocolsOf: func(*balance.Server) *http.Protocols { return nil }},
	} {
		require.NoError(t, u.Check())
	}
}

func TestRouterSetNamesItsMistakes(t *testing.T) {
	var r Router
	require.NoError(t, r.Set(Route{Handler: &Deny{}}))
	err := r.Set(Route{Match: PathPrefix("/api/*"), Handler: &Proxy{}}, Route{Match: Method("GET")}, Route{Handler: &Deny{}, Priority: 1})
	require.ElementsMatch(t, []string{"Router.Routes[0].Match", "Router.Routes[0].Handler.Proxy.Pool", "Router.Routes[1].Handler", "Router.Routes[2].Priority"}, wrongFields(err))
	var re *RouteError
	require.ErrorAs(t, err, &re)
	require.Len(t, r.table.Load().routes, 1, "the old table stays")
	require.Panics(t, func() { NewRouter(Route{}) })
}

func TestSplitSetNamesItsMistakes(t *testing.T) {
	s := NewSplit(Arm{"a", 1, Drop{}})
	require.Equal(t, []string{"Split.Arms[0].Handler", "Split.Arms[1].Name", "Split.Arms[1].Handler.Proxy.Pool"}, wrongFields(s.Set(Arm{"b", 1, nil}, Arm{"b", 1, &Proxy{}})))
	require.Equal(t, "a", s.list()[0].Name, "the old arms stay")
	require.Panics(t, func() { NewSplit(Arm{}) })
}

// logTo has the default logger write to a buffer until the test ends.
func logTo(t *testing.T) *bytes.Buffer {
	var b bytes.Buffer
	old := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&b, nil)))
	t.Cleanup(func() { slog.SetDefault(old) })
	return &b
}

// TestFirstRequestNamesTheMistake is the same under a server of the host's, where
// nobody calls Serve.
func TestFirstRequestNamesTheMistake(t *testing.T) {
	log := logTo(t)
	for name, h := range map[string]http.Handler{
		"EditHeader.Next.Proxy.Pool": &EditHeader{Next: &Proxy{}},
		"Proxy.Pool":                 &Proxy{},
		"Limit.Limiter":              &Limit[netip.Addr]{Next: &Deny{}},
		"Redirect.Status":            &Redirect{Status: 200},
		"HashBy.Key":                 &HashBy[string]{Next: &Deny{}},
	} {
		for range 2 {
			log.Reset()
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
			require.Equal(t, 500, w.Code, name)
			require.Contains(t, log.String(), name+":")
		}
	}
	mux := http.NewServeMux() // which a check cannot look into
	mux.Handle("/", &EditHeader{Next: &Proxy{}})
	x := newStandardExchange(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil), nil)
	log.Reset()
	x.run(HandlerFunc(func(x *Exchange) { Serve(mux, x) }))
	require.Contains(t, log.String(), "EditHeader.Next.Proxy.Pool:")
}

// TestHandlerIsCheckedOnce changes a handler where that is not allowed, to see
// that it is not looked at again.
func TestHandlerIsCheckedOnce(t *testing.T) {
	h := &EditHeader{Next: &Deny{}}
	get := func() int {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		return w.Code
	}
	require.Equal(t, 403, get())
	h.Request = []FieldEdit{SetField{Name: "X", Value: "\n"}}
	require.Equal(t, 403, get())
	require.Zero(t, testing.AllocsPerRun(100, func() { _ = firstUse(h) }))
}

type silent struct{}

func (silent) ServeExchange(*Exchange)                            {}
func (h silent) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(h, w, r) }

// TestHandlerThatDoesNotAnswerIsNamed has a native handler that returns without
// a reply, behind another.
func TestHandlerThatDoesNotAnswerIsNamed(t *testing.T) {
	log := logTo(t)
	onBoth(t, func(*site) http.Handler { return &EditHeader{Next: silent{}} }, func(s *site) {
		log.Reset()
		require.Equal(s, 500, s.get("/").StatusCode)
		require.Contains(s, log.String(), "l7.silent returned without a reply")
	})
	onBoth(t, func(*site) http.Handler { return HandlerFunc(func(x *Exchange) { Serve(nil, x) }) }, func(s *site) {
		log.Reset()
		require.Equal(s, 500, s.get("/").StatusCode)
		require.Contains(s, log.String(), "a handler is nil")
	})
}

func TestTransportNamesItsMistake(t *testing.T) {
	tr := &Transport{}
	for range 2 {
		body := &closing{Reader: strings.NewReader("x")}
		req, err := http.NewRequest("POST", "http://a.example/", body)
		require.NoError(t, err)
		_, err = tr.RoundTrip(req)
		require.Contains(t, wrongFields(err), "Transport.Pool")
		require.True(t, body.closed)
	}
}

func TestTransportNamesThePoolThatHasNoServer(t *testing.T) {
	for name, want := range map[string]string{
		"users": `l7: no reply: pool "users": balance: no usable server`,
		"":      "l7: no reply: balance: no usable server",
	} {
		req, err := http.NewRequest("GET", "http://a.example/", nil)
		require.NoError(t, err)
		_, err = (&Transport{Pool: &balance.Pool{Name: name}}).RoundTrip(req)
		require.ErrorIs(t, err, balance.ErrNoServer)
		require.EqualError(t, err, want)
	}
}

type closing struct {
	io.Reader
	closed bool
}

func (c *closing) Close() error { c.closed = true; return nil }
