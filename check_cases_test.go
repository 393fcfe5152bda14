// SPDX-License-Identifier: Apache-2.0

package penstock_test

import (
	"crypto/tls"
	"math"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/balance/dns"
	"github.com/penstock-lb/penstock/health"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/ratelimit"
)

// TestMistakesOfOneKind has what the walk over all literals cannot guess.
func TestMistakesOfOneKind(t *testing.T) {
	for _, test := range []struct {
		wrong any
		field string
	}{
		{balance.Endpoint{Name: "a", Weight: 70000, Value: 1}, "Endpoint.Weight"},
		{balance.Endpoint{Addr: "a:1", MinConns: 2, MaxConns: 1}, "Endpoint.MinConns"},
		{balance.TwoChoices{N: 17}, "TwoChoices.N"},
		{&l4.ClientVerifier{CAFiles: []string{"a", ""}}, "ClientVerifier.CAFiles"},
		{&l4.ClientVerifier{CAFiles: []string{"a"}, CRLFiles: []string{""}}, "ClientVerifier.CRLFiles"},
		{&l4.ClientVerifier{CAFiles: []string{"a"}, LeafOnly: true}, "ClientVerifier.LeafOnly"},
		{&l7.ForwardClientCert{XFCC: 9, Next: &l7.Deny{}}, "ForwardClientCert.XFCC"},
		{&l7.ForwardClientCert{Subject: true, Next: &l7.Deny{}}, "ForwardClientCert.XFCC"},
		{&l7.ForwardClientCert{XFCC: l7.XFCCAppend, Next: &l7.Deny{}}, "ForwardClientCert.Trust"},
		{&l7.ForwardClientCert{XFCC: l7.XFCCSet, By: "spiffe://a,b", Next: &l7.Deny{}}, "ForwardClientCert.By"},
		{l7.JA4("t13d"), "JA4"},
		{balance.SlowStart{Aggression: 101}, "SlowStart.Aggression"},
		{balance.Locality{Share: 1.1}, "Locality.Share"},
		{&balance.Pool{WhenFull: 99}, "Pool.WhenFull"},
		{&dns.Source{Name: "a.example", Port: 99999}, "Source.Port"},
		{&dns.Source{Name: "a.example", Service: "http", Port: 80}, "Source.Port"},
		{&dns.Source{Name: "a.example", Service: "http", Proto: "sctp"}, "Source.Proto"},
		{&dns.Source{Name: "a.example", Port: 80, Servers: []string{"10.0.0.1"}}, "Source.Servers[0]"},
		{&dns.Source{Name: "a.example", Port: 80, Servers: []string{"10.0.0.1:53", "*:53"}}, "Source.Servers[1]"},

		{&dns.Source{Name: "http://a.example", Port: 80}, "Source.Name"},
		{&dns.Source{Name: "a.example:80", Port: 80}, "Source.Name"},
		{&dns.Source{Name: "10.0.0.1", Port: 80}, "Source.Name"},
		{&dns.Source{Name: "bücher.example", Port: 80}, "Source.Name"},
		{&dns.Source{Name: strings.Repeat("a", 64) + ".example", Port: 80}, "Source.Name"},
		{&dns.Source{Name: strings.Repeat("a.", 126) + "ab", Service: "http"}, "Source.Name"},
		{&dns.Source{Name: "a.example", Service: "_http"}, "Source.Service"},
		{&dns.Source{Name: "a.example", Service: "http.tcp"}, "Source.Service"},
		{&dns.Source{Name: "a.example", Port: 80, Servers: []string{"bücher.example:53"}}, "Source.Servers[0]"},
		{&dns.Source{Name: "a.example", Port: 80, MinTTL: time.Hour}, "Source.MinTTL"},

		{health.HTTP{Path: "healthy"}, "HTTP.Path"},
		{health.HTTP{Path: "/a b"}, "HTTP.Path"},
		{health.HTTP{Method: "get"}, "HTTP.Method"},
		{health.HTTP{Method: "G T"}, "HTTP.Method"},
		{health.HTTP{Path: "/%zz"}, "HTTP.Path"},
		{health.HTTP{Path: "/\x7f"}, "HTTP.Path"},
		{health.HTTP{Host: "a/b"}, "HTTP.Host"},
		{health.HTTP{Host: "a:b"}, "HTTP.Host"},
		{health.HTTP{Host: "::1"}, "HTTP.Host"},
		{health.HTTP{Header: http.Header{"Host": {"a b"}}}, "HTTP.Header.Host"},
		{health.GRPC{Host: "user@a"}, "GRPC.Host"},
		{health.HTTP{Header: http.Header{"X Y": nil}}, "HTTP.Header"},
		{health.HTTP{Header: http.Header{"X": {"a\r\nb"}}}, "HTTP.Header.X"},
		{health.HTTP{Path: "*"}, "HTTP.Path"},
		{health.Field{Name: "a b"}, "Field.Name"},
		{health.Field{Name: "a", Value: "b\r\n"}, "Field.Value"},
		{health.HTTP{Host: "a.example:99999"}, "HTTP.Host"},
		{health.HTTP{Host: "*.a.example"}, "HTTP.Host"},
		{health.HTTP{Host: "bücher.example"}, "HTTP.Host"},
		{health.GRPC{Host: "bücher.example"}, "GRPC.Host"},
		{health.HTTP{Header: http.Header{"Host": {"a", "b"}}}, "HTTP.Header.Host"},
		{health.HTTP{Fields: []health.Field{{Name: "host", Value: "a"}, {Name: "Host", Value: "b"}}}, "HTTP.Fields.Host"},
		{health.HTTP{Header: http.Header{"Content-Length": {"7"}}}, "HTTP.Header.Content-Length"},
		{health.HTTP{Fields: []health.Field{{Name: "Transfer-Encoding", Value: "chunked"}}}, "HTTP.Fields.Transfer-Encoding"},
		{health.HTTP{HTTP2: true, Header: http.Header{"Upgrade": {"x"}}}, "HTTP.Header.Upgrade"},
		{health.HTTP{Method: "CONNECT"}, "HTTP.Method"},
		{health.HTTP{Method: "HEAD", Content: health.Match{Contains: "ok"}}, "HTTP.Content"},
		{health.HTTP{MaxBytes: 3, Content: health.Match{Contains: "well"}}, "HTTP.Content.Contains"},
		{health.HTTP{Content: health.Match{Not: true}}, "HTTP.Content.Not"},
		{health.Script{Steps: []health.Step{{Expect: health.Match{Not: true}}}}, "Script.Steps[0].Expect.Not"},
		{health.Script{MaxBytes: 3, Steps: []health.Step{{Min: 4}}}, "Script.Steps[0].Min"},
		{health.Script{MaxBytes: 3, Steps: []health.Step{{Expect: health.Match{Contains: "well"}}}}, "Script.Steps[0].Expect.Contains"},
		{health.TLS{Connect: health.Connect{TLS: &tls.Config{ServerName: "a.example:443"}}}, "TLS.Connect.TLS.ServerName"},
		{health.TLS{Connect: health.Connect{TLS: &tls.Config{ServerName: "https://a.example"}}}, "TLS.Connect.TLS.ServerName"},
		{health.TLS{Connect: health.Connect{TLS: &tls.Config{ServerName: "bücher.example"}}}, "TLS.Connect.TLS.ServerName"},
		{health.TLS{Connect: health.Connect{TLS: &tls.Config{MinVersion: tls.VersionTLS13, MaxVersion: tls.VersionTLS12}}}, "TLS.Connect.TLS.MinVersion"},
		{health.LDAP{DN: "cn=a"}, "LDAP.DN"},
		{health.LDAP{Password: "a"}, "LDAP.Password"},
		{health.MySQL{User: "a\x00b"}, "MySQL.User"},
		{health.PostgreSQL{User: "a\x00b"}, "PostgreSQL.User"},
		{health.PostgreSQL{Database: "a\x00b"}, "PostgreSQL.Database"},
		{health.SMTP{Hello: "gateway.example"}, "SMTP.Hello"},
		{health.SMTP{Hello: "EHLO"}, "SMTP.Hello"},
		{health.Exec{Path: os.Args[0], Dir: "/nonexistent"}, "Exec.Dir"},
		{health.Exec{Path: os.Args[0], Env: []string{"A"}}, "Exec.Env[0]"},
		{health.Exec{Path: os.Args[0], Args: []string{"a\x00b"}}, "Exec.Args[0]"},
		{&health.Checker{Pools: []*balance.Pool{{}}, Observe: health.Observe{Errors: 3}}, "Checker.Pools[0].OnOutcome"},
		{&health.Outlier{Pool: &balance.Pool{}, Consecutive: -1, Deviation: -1}, "Outlier.Consecutive"},
		{health.Exec{}, "Exec.Path"},
		{health.Exec{Path: os.Args[0], Stop: 256}, "Exec.Stop"},
		{health.GRPC{Header: http.Header{"X Y": nil}}, "GRPC.Header"},
		{health.StatusRange{From: 200, To: 100}, "StatusRange.To"},
		{health.HeaderMatch{Name: "a b"}, "HeaderMatch.Name"},
		{health.Connect{Addr: "http://a/"}, "Connect.Addr"},
		{health.Connect{Port: 99999}, "Connect.Port"},
		{health.Connect{Addr: "unix:/x", Port: 1}, "Connect.Port"},
		{health.Connect{Proxy: 9}, "Connect.Proxy"},
		{health.Redis{Role: "replica"}, "Redis.Role"},
		{health.Redis{User: "u"}, "Redis.User"},
		{health.SMTP{StartTLS: true}, "SMTP.StartTLS"},
		{health.SMTP{Hello: "EHLO x\r\n"}, "SMTP.Hello"},
		{health.Any{}, "Any"},
		{health.All{nil}, "All[0]"},
		{health.All{health.TCP{}, health.HTTP{Path: "x"}}, "All[1].HTTP.Path"},
		{health.Observe{Action: 99}, "Observe.Action"},
		{&health.Checker{}, "Checker.Pools"},
		{&health.Checker{Pools: []*balance.Pool{{}}, Probe: health.All{health.HTTP{Path: "x"}}}, "Checker.Probe.All[0].HTTP.Path"},
		{&health.Checker{Pools: []*balance.Pool{{}}, Jitter: 0.6}, "Checker.Jitter"},
		{&health.Divided{}, "Divided.Share"},
		{&health.Divided{Of: health.HTTP{Path: "x"}, Share: &balance.Share{Of: &balance.Pool{}, Self: "a"}}, "Divided.Of.HTTP.Path"},
		{&health.Checker{Pools: []*balance.Pool{{}}, Initial: 99}, "Checker.Initial"},
		{&health.Outlier{Pool: &balance.Pool{}}, "Outlier.Pool.OnOutcome"},
		{&health.Outlier{Pool: &balance.Pool{}, MaxShare: 2}, "Outlier.MaxShare"},

		{ratelimit.Ban{After: 32767}, "Ban.After"},
		{ratelimit.Ban{For: time.Hour}, "Ban.After"},
		{ratelimit.Ban{Keep: true}, "Ban.After"},
		{&ratelimit.Concurrency{Max: 1, MaxWait: time.Second}, "Concurrency.MaxQueue"},
		{&ratelimit.Adaptive{MaxWait: time.Second}, "Adaptive.MaxQueue"},
		{ratelimit.Rate{Count: 1, Per: -time.Second}, "Rate.Per"},
		{&ratelimit.Keyed[int]{Law: ratelimit.InFlight{}}, "Keyed.Law.InFlight.Max"},
		{&ratelimit.Keyed[int]{Law: ratelimit.InFlight{Max: 1}, Max: -1}, "Keyed.Max"},
		{&ratelimit.Keyed[int]{Law: ratelimit.InFlight{Max: 1}, Max: math.MaxInt}, "Keyed.Max"},
		{&ratelimit.MemoryStore{Max: math.MaxInt}, "MemoryStore.Max"},
		{balance.Merge{}, "Merge.Sources"},
		{balance.Maglev{Size: math.MaxInt}, "Maglev.Size"},
		{&ratelimit.Adaptive{Min: 9, Max: 3}, "Adaptive.Min"},
		{&ratelimit.Leased[int]{}, "Leased.Shared"},
		{&ratelimit.Leased[int]{Shared: &ratelimit.Shared[int]{}}, "Leased.Shared.Law"},
		{&ratelimit.Leased[int]{Shared: &ratelimit.Shared[int]{Law: ratelimit.InFlight{Max: 1}}}, "Leased.Shared.Store"},
		{&ratelimit.Leased[int]{Shared: &ratelimit.Shared[int]{Law: ratelimit.InFlight{Max: 1}, Store: new(ratelimit.MemoryStore)}}, "Leased.Shared.Gateways"},
		{&ratelimit.Leased[int]{Ahead: math.NaN()}, "Leased.Ahead"},

		{&l4.Limit{Next: l4.Reject{}, PerClient: &ratelimit.Keyed[netip.Addr]{Law: ratelimit.Unlimited{}}, ClientBits: 129}, "Limit.ClientBits"},
		{l4.Bandwidth{ClientBits: 129}, "Bandwidth.ClientBits"},
		{l4.Bandwidth{All: &ratelimit.Limiter{Law: ratelimit.InFlight{Max: 1}}}, "Bandwidth.All.Limiter.Law"},
		{l4.Bandwidth{PerClient: &ratelimit.Keyed[netip.Addr]{Law: ratelimit.InFlight{Max: 1}}}, "Bandwidth.PerClient.Keyed.Law"},
		{&l4.Proxy{Pool: new(balance.Pool), BufferBytes: 64<<20 + 1}, "Proxy.BufferBytes"},
		{&l4.Proxy{Pool: new(balance.Pool), BufferBytes: math.MaxInt}, "Proxy.BufferBytes"},
		{&l4.AcceptProxy{Next: l4.Reject{}, MaxBytes: 15}, "AcceptProxy.MaxBytes"},
		{&l4.TerminateTLS{Config: &tls.Config{GetCertificate: new(l4.Certificates).Get, MinVersion: tls.VersionTLS13, MaxVersion: tls.VersionTLS12}, Next: l4.Reject{}}, "TerminateTLS.Config.MinVersion"},
		{&l4.OriginateTLS{Config: &tls.Config{ServerName: "https://a.example"}}, "OriginateTLS.Config.ServerName"},
		{&l4.OriginateTLS{Config: &tls.Config{ServerName: "bücher.example"}}, "OriginateTLS.Config.ServerName"},
		{&l4.Certificates{Except: []string{"bücher.example"}}, "Certificates.Except[0]"},
		{&l4.Certificates{Except: []string{"a.example:443"}}, "Certificates.Except[0]"},
	} {
		requireField(t, check(test.wrong), test.field)
	}
}

// TestNilPointersInInterfaces has fields that may be left out, which such a pointer is
// not: it is there, and fails when it is used.
func TestNilPointersInInterfaces(t *testing.T) {
	ok := &l7.FixedReply{}
	var route7 l7.Router
	err := route7.Set(l7.Route{Name: "a", Match: l7.Path("/"), Handler: (*l7.Proxy)(nil)})
	requireField(t, err, "Router.Routes[0].Handler")
	for _, test := range []struct {
		wrong any
		field string
	}{
		{&balance.Pool{Policy: (*balance.Maglev)(nil)}, "Pool.Policy"},
		{(&balance.Pool{}).WithPolicy((*balance.Maglev)(nil)), "Pool.Policy"},
		{&health.Checker{Pools: []*balance.Pool{{}}, Probe: (*health.HTTP)(nil)}, "Checker.Probe"},
		{&health.Checker{Pools: []*balance.Pool{{}}, Probe: health.All{(*health.HTTP)(nil)}}, "Checker.Probe.All[0]"},
		{&ratelimit.Shared[int]{Law: ratelimit.InFlight{Max: 1}, Store: (*ratelimit.MemoryStore)(nil)}, "Shared.Store"},
		{&l4.Server{Handler: (*l4.Proxy)(nil)}, "Server.Handler"},
		{&l4.Router{Default: (*l4.Proxy)(nil)}, "Router.Default"},
		{&l4.Router{Routes: []l4.Route{{Handler: (*l4.Proxy)(nil)}}}, "Router.Routes[0].Handler"},
		{&l4.Limit{Next: l4.Reject{}, Refuse: (*l4.Proxy)(nil)}, "Limit.Refuse"},
		{&l4.Limit{Next: l4.Reject{}, All: (*ratelimit.Limiter)(nil)}, "Limit.All"},
		{&l4.Limit{Next: l4.Reject{}, PerClient: (*ratelimit.Keyed[netip.Addr])(nil)}, "Limit.PerClient"},
		{&l4.Throttle{Next: l4.Reject{}, In: l4.Bandwidth{All: (*ratelimit.Limiter)(nil)}}, "Throttle.In.Bandwidth.All"},
		{&l4.AcceptProxy{Next: l4.Reject{}, Others: (*l4.Proxy)(nil)}, "AcceptProxy.Others"},
		{&l4.AcceptPostgreSQL{Next: l4.Reject{}, Plain: (*l4.Proxy)(nil)}, "AcceptPostgreSQL.Plain"},
		{&l7.Server{Handler: l7.HandlerFunc(nil)}, "Server.Handler"},
		{&l7.Server{Handler: (*l7.Proxy)(nil)}, "Server.Handler"},
		{&l7.Router{NotFound: (*l7.Proxy)(nil)}, "Router.NotFound"},
		{&l7.Redirect{Next: (*l7.Proxy)(nil)}, "Redirect.Next"},
		{&l7.Access{Refuse: (*l7.Deny)(nil), Next: ok}, "Access.Refuse"},
		{&l7.Gate{Places: &ratelimit.Concurrency{Max: 1}, Refuse: (*l7.Deny)(nil), Next: ok}, "Gate.Refuse"},
		{&l7.CircuitBreaker{Breaker: new(ratelimit.Breaker), Refuse: (*l7.Deny)(nil), Next: ok}, "CircuitBreaker.Refuse"},
		{&l7.Choose{By: func(*l7.Exchange) http.Handler { return nil }, Default: (*l7.Deny)(nil)}, "Choose.Default"},
	} {
		requireField(t, check(test.wrong), test.field)
	}
}

// TestLimitsThatMayRefuseEverything are no mistakes: somebody has said so.
func TestLimitsThatMayRefuseEverything(t *testing.T) {
	require.NoError(t, ratelimit.GCRA{Rate: ratelimit.Rate{Count: -1}}.Check())
	require.NoError(t, ratelimit.InFlight{Max: -1}.Check())
	require.NoError(t, (&ratelimit.Concurrency{Max: -1}).Check())
	require.NoError(t, (&ratelimit.Keyed[int]{LawOf: func(int) ratelimit.Law { return nil }}).Check())
	var c ratelimit.Concurrency
	require.Error(t, c.Check())
	c.SetMax(3)
	require.NoError(t, c.Check())
}

// TestWrongAddresses tells apart what a dial could use from what it could not.
func TestWrongAddresses(t *testing.T) {
	long := strings.Repeat("a", 107)
	for addr, write := range map[string]string{
		"http://a.example/api":    `write "a.example:80"`,
		"https://u:p@a.example":   `write "a.example:443"`,
		"http://[::1]:8080/":      `write "[::1]:8080"`,
		"http://a.example:8080?x": `write "a.example:8080"`,
		"a.example:99999":         "from 1 to 65535",
		"a.example:0":             "from 1 to 65535",
		"a.example:-1":            "from 1 to 65535",
		"a.example:+80":           "from 1 to 65535",
		"a.example:80/api":        "from 1 to 65535",
		"a.example/api:80":        "a name or an address",
		"a b:80":                  "a name or an address",
		"a.example":               "host:port or unix:/path",
		"::1:80":                  "host:port or unix:/path",
		":80":                     "host:port or unix:/path",
		"*:80":                    "such as 127.0.0.1",
		"*.a.example:80":          "letters, digits",
		"300.1.1.1:80":            "four numbers",
		"10.0.0.256:80":           "four numbers",
		"10.0.0.01:80":            "four numbers",
		"10.0.1:80":               "four numbers",
		"10.0.0.0.1:80":           "four numbers",
		"[::g]:80":                "no address of IPv6",
		"[1:2:3]:80":              "no address of IPv6",
		"a..example:80":           "parts of a name",
		".a.example:80":           "parts of a name",
		"a.example..:80":          "parts of a name",
		"a,b:80":                  "letters, digits",
		"${HOST}:80":              "letters, digits",
		"a\x00b:80":               "letters, digits",
		"unix:":                   "a path",
		"unix:/a\x00b":            "without NUL",
		"unix:/" + long:           "at most 107 bytes",
		"bücher.example:80":       "punycode",
		"例え.example:80":           "punycode",
	} {
		err := balance.Endpoint{Addr: addr}.Check()
		requireField(t, err, "Endpoint.Addr")
		require.ErrorContains(t, err, write)
	}
	for _, addr := range []string{"a.example:80", "10.0.0.1:65535", "[::1]:1", "[fe80::1%eth0]:80", "a.example:http", "unix:/run/x.sock", "unix:@x",
		"a.example.:80", "a_b:80", "1:80", "1.a:80", "xn--bcher-kva.example:80", "0.0.0.0:80", "[::]:80"} {
		require.NoError(t, balance.Endpoint{Addr: addr}.Check(), addr)
	}
}

// TestPoolSetNamesAllMistakes is the way by which those of an endpoint reach the
// host.
func TestPoolSetNamesAllMistakes(t *testing.T) {
	p := balance.Pool{Panic: 2, Policy: balance.Ring{Points: -1}}
	err := p.Set(balance.Endpoint{Addr: "a:99999", Tier: -1})
	for _, field := range []string{"Pool.Panic", "Pool.Policy.Ring.Points", "Endpoints[0].Addr", "Endpoints[0].Tier"} {
		requireField(t, err, field)
	}
	err = (&balance.Pool{}).Follow(t.Context(), balance.Poll{Interval: -time.Second})
	requireField(t, err, "Follow.src.Poll.Func")
	requireField(t, err, "Follow.src.Poll.Interval")
	requireField(t, (&balance.Pool{}).Follow(t.Context(), nil), "Follow.src")
	requireField(t, (&balance.Pool{}).WithPolicy(balance.TwoChoices{N: 99}).Check(), "Pool.Policy.TwoChoices.N")
}
