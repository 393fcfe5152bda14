// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"io"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7/internal/h2"
	"github.com/penstock-lb/penstock/ratelimit"
)

// costsLinear fails if do, which gets inputs of n bytes, costs much more than eight
// times as much for eight times the input: quadratic work costs 64 times.
func costsLinear(t *testing.T, what string, do func(n int) func()) {
	t.Helper()
	apart := 200 * time.Microsecond // for the memory that long heads need
	if raceEnabled {
		apart = 5 * time.Millisecond // it has a shadow, whose pages are fresh; a square costs more still
	}
	small, large := cost(do(4<<10)), cost(do(32<<10))
	for range 3 { // more would not be by chance
		if large <= 24*small+apart {
			return
		}
		small, large = cost(do(4<<10)), cost(do(32<<10))
	}
	t.Errorf("%s: 4 KiB cost %v, 32 KiB %v", what, small, large)
}

// cost returns how much work do is: the least of five, as the garbage collector works
// in between.
func cost(do func()) time.Duration {
	best := time.Hour
	for range 5 {
		start := cpuTime()
		do()
		best = min(best, cpuTime()-start)
	}
	return best
}

// headShapes are heads that repeat a piece in a place where something looks at
// it, up to n bytes.
var headShapes = []struct {
	name  string
	piece string // the worst that is known
	head  func(fill func(piece string) string, piece string) string
}{
	{"options", "a,", func(fill func(string) string, piece string) string {
		return "GET / HTTP/1.1\r\nHost: a\r\nConnection: " + fill(piece) + "b\r\n" + manyFields(120) + "\r\n"
	}},
	{"options that are there", "b,", func(fill func(string) string, piece string) string {
		return "GET / HTTP/1.1\r\nHost: a\r\nConnection: " + fill(piece) + "b\r\nB: c\r\n\r\n"
	}},
	{"one option", "a", func(fill func(string) string, piece string) string {
		return "GET / HTTP/1.1\r\nHost: a\r\nConnection: " + fill(piece) + "\r\n" + manyFields(120) + "\r\n"
	}},
	{"options beside fields", "a,", func(fill func(string) string, piece string) string {
		half := fill(piece)
		half = half[:len(half)/2] + "b"
		return "GET / HTTP/1.1\r\nHost: a\r\nConnection: " + half + "\r\n" + strings.Repeat("c:d\r\n", len(half)/5) + "\r\n"
	}},
	{"option lines", "Connection: x-1\r\nX-1: b\r\n", func(fill func(string) string, piece string) string {
		return "GET / HTTP/1.1\r\nHost: a\r\n" + fill(piece) + "\r\n"
	}},
	{"field lines", "Cookie: SERVER=a\r\n", func(fill func(string) string, piece string) string {
		return "GET / HTTP/1.1\r\nHost: a\r\n" + fill(piece) + "\r\n"
	}},
	{"upgrade lines", "Upgrade: a\r\n", func(fill func(string) string, piece string) string {
		return "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\n" + fill(piece) + "\r\n"
	}},
	{"path", "/a", func(fill func(string) string, piece string) string {
		return "GET /" + fill(piece) + " HTTP/1.1\r\nHost: a\r\n\r\n"
	}},
	{"path up and down", "/..", func(fill func(string) string, piece string) string {
		half := fill(piece)
		half = half[:len(half)/2]
		return "GET " + strings.Repeat("/a", len(half)/2) + half + " HTTP/1.1\r\nHost: a\r\n\r\n"
	}},
	{"query", "b&a&", func(fill func(string) string, piece string) string {
		return "GET /?" + fill(piece) + " HTTP/1.1\r\nHost: a\r\n\r\n"
	}},
	{"host", "a.", func(fill func(string) string, piece string) string {
		return "GET / HTTP/1.1\r\nHost: " + fill(piece) + "a\r\n\r\n"
	}},
	{"cookie", "SERVER=a;", func(fill func(string) string, piece string) string {
		return "GET / HTTP/1.1\r\nHost: a\r\nCookie: " + fill(piece) + "b=c\r\n\r\n"
	}},
	{"forwarded for", "10.0.0.1,", func(fill func(string) string, piece string) string {
		return "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: " + fill(piece) + "10.0.0.1\r\n\r\n"
	}},
	{"forwarded", "for=10.0.0.1,", func(fill func(string) string, piece string) string {
		return "GET / HTTP/1.1\r\nHost: a\r\nForwarded: " + fill(piece) + "for=10.0.0.1\r\n\r\n"
	}},
	{"forwarded lines", "X-Forwarded-For: 10.0.0.1\r\nForwarded: for=10.0.0.1\r\nX-Forwarded-Proto: https\r\n", func(fill func(string) string, piece string) string {
		return "GET / HTTP/1.1\r\nHost: a\r\n" + fill(piece) + "\r\n"
	}},
	{"other values", "a, ", func(fill func(string) string, piece string) string {
		part := fill(piece)
		part = part[:len(part)/4] + "b"
		return "GET / HTTP/1.1\r\nHost: a\r\nTE: " + part + "\r\nTrailer: " + part + "\r\nX-A: " + part + "\r\nAuthorization: Basic " + part + "\r\n\r\n"
	}},
}

func manyFields(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("X-Field-" + strconv.Itoa(i) + ": v\r\n")
	}
	return b.String()
}

// A looker is a handler that looks into a head.
type looker struct {
	name string
	h    Handler
}

// lookers are the handlers of ours that look into a head, and what is done to
// send one on.
func lookers(t testing.TB) []looker {
	pool := &balance.Pool{Name: "p"}
	if err := pool.Set(balance.Endpoint{Name: "a", Addr: "a:1"}, balance.Endpoint{Name: "b", Addr: "b:1"}); err != nil {
		t.Fatal(err)
	}
	server := pool.Server("a")
	leaf := HandlerFunc(func(x *Exchange) {
		if len(x.editors) > 0 {
			x.edit(&Reply{Status: 200, Server: server, Header: x.Header.Clone()})
		}
	})
	var hosts, paths Map[int]
	hosts.Set(Entry[int]{"a", 1}, Entry[int]{strings.Repeat("a.", 400) + "b", 2})
	paths.Set(Entry[int]{"/b", 1}, Entry[int]{strings.Repeat("/a", 400) + "b", 2}, Entry[int]{strings.Repeat("/a", 20000) + "b", 2})
	proxy := &Proxy{Forward: ForwardBoth, Via: "gw"}
	none := func(string) bool { return false }
	word := regexp.MustCompile(`^(a|b)$`)
	edits := []FieldEdit{
		SetField{Name: "X-B", Value: "v"}, AddField{Name: "X-B", Value: "w"}, DelField{Prefix: "X-Internal-", Contains: "secret", Suffix: "-z"},
		DelField{Name: "X-B"}, ReplaceField{Name: "X-A", Regexp: word, With: "c", Items: true}, SetForwarded{Host: true, Proto: true},
	}
	ours := prefixes("10.0.0.0/8")
	split := NewSplit(Arm{"a", 1, leaf}, Arm{"b", 2, leaf})
	split.Key, split.Cookie = ByQuery("z"), "SERVER"
	deep := strings.Repeat("/a", 70)
	routes := []Route{
		{Match: All{Host("*." + strings.Repeat("a.", 70) + "a"), PathPrefix(deep)}, Handler: leaf},
		{Match: All{Host("*.a.a"), PathPattern("/{a}/{b}/{rest...}")}, Handler: leaf},
		{Match: PathPrefix(deep + "/b"), Handler: leaf},
		{Match: Any{Path("/x"), PathRegexp{regexp.MustCompile(`^(/a)*$`)}, HostRegexp{word}}, Handler: leaf},
		{Match: All{PathSuffix("/zz"), Header{Name: "X-A", Test: none, Items: true}}, Handler: leaf},
		{Match: PathPrefix("/"), Handler: leaf},
	}
	for i := range 10 { // small maps do not hash
		n := strconv.Itoa(i)
		routes = slices.Insert(routes, 0, Route{Match: All{Host("*." + strings.Repeat("a.", 70) + n), PathPrefix(deep + n)}, Handler: leaf}, Route{Match: PathPrefix(deep + n), Handler: leaf})
	}
	deny := Any{
		Query{Name: "z", Value: "z"}, Cookie{Name: "z"}, Header{Name: "X-A", Test: none, Items: true}, Header{Name: "Cookie", Test: none},
		ContentType("x/*"), ClientIn(prefixes("127.0.0.0/8")),
	}
	return []looker{
		{"Proxy", HandlerFunc(func(x *Exchange) {
			c := &h2Conn{host: new(upHost)}
			c.names, c.h2 = make(map[string]h2Name), h2.New(h2ClientConfig(defaultUpStreams))
			two := &h2Stream{conn: c, method: "GET"}
			if err := c.begin(two); err != nil {
				t.Fatal(err)
			}
			c.writeRequest(two, x, string(appendRequest(nil, x, proxy)))
			x.newRequest(bg)
		})},
		{"Map", HandlerFunc(func(x *Exchange) {
			hosts.Domain(x.Host)
			paths.Prefix(x.Path)
			paths.Suffix(x.Path)
		})},
		{"EditHeader", &EditHeader{Request: edits, Reply: edits, Next: leaf}},
		{"Persist", &Persist{Pool: pool, Keys: [][]byte{testKey}, Next: leaf}},
		{"Persist rewrite", &Persist{Pool: pool, Mode: CookieRewrite, Keys: [][]byte{testKey}, Next: leaf}},
		{"Persist prefix", &Persist{Pool: pool, Mode: CookiePrefix, Keys: [][]byte{testKey}, Next: leaf}},
		{"Stick", &Stick{Key: ByCookie("SERVER"), Next: leaf}},
		{"HashBy", &HashBy[string]{Key: ByPath, Next: leaf}},
		{"Split", split},
		{"Router", NewRouter(routes...)},
		{"Access", &Access{Deny: deny, Next: leaf}},
		{"Limit", &Limit[string]{Limiter: freeLimiter(), Key: ByHost, Next: leaf}},
		{"Capture", &Capture{Request: []string{"Cookie", "X-A"}, Reply: []string{"Cookie"}, Next: leaf}},
		{"BasicAuth", &BasicAuth{Verify: func(_, _ string) bool { return true }, Next: leaf}},
		{"RequestID", &RequestID{Reply: true, Next: leaf}},
		{"Rewrite", &Rewrite{StripPrefix: "/b", AddPrefix: "/a", Regexp: word, With: "$1", Next: leaf}},
		{"Redirect", &Redirect{StripPrefix: "/a", AddPrefix: "/b", AppendSlash: true}},
		{"Normalize", &Normalize{DecodeUnreserved: true, UpperHex: true, MergeSlashes: true, SortQuery: true, DefaultPort: true, Next: leaf}},
		{"Normalize dots", &Normalize{DotSegments: true, Next: leaf}},
		{"TrustForwarded", &TrustForwarded{Prefixes: ours, Next: leaf}},
		{"TrustForwarded standard", &TrustForwarded{Prefixes: ours, Standard: true, Next: leaf}},
	}
}

func freeLimiter() *ratelimit.Keyed[string] {
	return &ratelimit.Keyed[string]{Law: ratelimit.GCRA{Rate: ratelimit.Rate{Count: 1 << 30, Per: time.Second}}}
}

// headCosts fails if the head of a shape costs more than in proportion to its
// length, to parse or in one of the handlers.
func headCosts(t *testing.T, list []looker, shape int, piece string) {
	s := &headShapes[shape]
	head := func(n int) string {
		return s.head(func(piece string) string { return strings.Repeat(piece, n/len(piece)) }, piece)
	}
	costsLinear(t, s.name, func(n int) func() {
		b := []byte(head(n))
		return func() { parseInPieces(b) }
	})
	for _, l := range list {
		costsLinear(t, s.name+" in "+l.name, func(n int) func() {
			x := &Exchange{Scheme: "http", Remote: netip.MustParseAddrPort("10.0.0.1:1")}
			if parseRequest(x, new(framing), head(n), 0) != nil {
				return func() {}
			}
			x.Client, x.Record.Host = x.Remote.Addr(), x.Host
			return func() {
				again := *x
				again.Header = x.Header.Clone()
				again.down = &noClient{x: &again, ctx: bg}
				Serve(l.h, &again)
			}
		})
	}
}

func parseInPieces(head []byte) {
	var scan headScan
	for at := 0; at < len(head); at += 100 {
		_, _ = headEnd(head[:at], max(0, at-100))
		_ = scan.hopeless(head[:at])
	}
	_ = parseRequest(new(Exchange), new(framing), string(head), 0)
}

// Whatever a head consists of, the parser and all handlers take time in
// proportion to its length.
func TestHeadCostIsLinear(t *testing.T) {
	list := lookers(t)
	for i := range headShapes {
		headCosts(t, list, i, headShapes[i].piece)
	}
}

// So do replies and trailers.
func TestReplyCostIsLinear(t *testing.T) {
	for _, piece := range []string{"Connection: a,a,a\r\nX-A: b\r\n", "Connection: x-a\r\nX-A: b\r\n", "Upgrade: a\r\n", "WWW-Authenticate: a b\r\n"} {
		costsLinear(t, piece, func(n int) func() {
			head := "HTTP/1.1 401 No\r\n" + strings.Repeat(piece, n/len(piece)) + "\r\n"
			return func() {
				var r Reply
				if _, err := parseReply(&r, new(framing), head, 0); err != nil {
					t.Fatal(err)
				}
				logsIn(&r)
			}
		})
		costsLinear(t, "a trailer of "+piece, func(n int) func() {
			d := chunkDecoder{trailer: []byte(strings.Repeat(piece, n/len(piece)) + "\r\n")}
			return func() {
				if _, err := d.fields(0); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// A client that sends its head byte by byte costs no more for each byte the
// longer the head is.
func TestHeadThatTricklesCostsLinearTime(t *testing.T) {
	costsLinear(t, "trickle", func(n int) func() {
		head := "GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("a:b\r\n", n/5) + "\r\n"
		return func() {
			ln := &listenOnce{ready: make(chan net.Conn, 1), done: make(chan struct{})}
			srv := &Server{Handler: &FixedReply{}, MaxHeaderBytes: -1, MaxFields: -1}
			served := make(chan error, 1)
			go func() { served <- srv.Serve(ln) }()
			c := &trickling{head: head, ended: make(chan struct{})}
			ln.ready <- c
			<-c.ended
			_ = srv.Close()
			<-served
		}
	})
}

// trickling is a connection whose client sends byte by byte.
type trickling struct {
	net.Conn
	head  string
	ended chan struct{}
	once  sync.Once
}

func (c *trickling) Read(p []byte) (int, error) {
	if c.head == "" {
		return 0, io.EOF
	}
	n := copy(p, c.head[:1])
	c.head = c.head[n:]
	return n, nil
}
func (c *trickling) Write(p []byte) (int, error)      { return len(p), nil }
func (c *trickling) SetDeadline(time.Time) error      { return nil }
func (c *trickling) SetReadDeadline(time.Time) error  { return nil }
func (c *trickling) SetWriteDeadline(time.Time) error { return nil }
func (c *trickling) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 1} }
func (c *trickling) LocalAddr() net.Addr              { return c.RemoteAddr() }
func (c *trickling) Close() error                     { c.once.Do(func() { close(c.ended) }); return nil }

// listenOnce gives one connection.
type listenOnce struct {
	ready chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *listenOnce) Accept() (net.Conn, error) {
	select {
	case c := <-l.ready:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *listenOnce) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *listenOnce) Addr() net.Addr { return &net.TCPAddr{} }

// FuzzHeadCost looks for a piece that costs more the more often it is
// repeated.
func FuzzHeadCost(f *testing.F) {
	for i, s := range headShapes {
		f.Add(s.piece, uint8(i))
	}
	f.Add("%2e%2E/", uint8(7))
	f.Add("x\"=,;", uint8(13))
	list := lookers(f)
	f.Fuzz(func(t *testing.T, piece string, shape uint8) {
		if piece == "" || len(piece) > 256 {
			return
		}
		headCosts(t, list, int(shape)%len(headShapes), piece)
	})
}

// BenchmarkUnsendable is what it costs to check what handlers have written,
// beside writing the request.
func BenchmarkUnsendable(b *testing.B) {
	x := &Exchange{Scheme: "http", Remote: netip.MustParseAddrPort("10.0.0.1:1")}
	head := "GET /a/b?c HTTP/1.1\r\nHost: a.test\r\n" + manyFields(19) + "\r\n"
	if err := parseRequest(x, new(framing), head, 0); err != nil {
		b.Fatal(err)
	}
	x.begin(FrontByte)
	b.Run("check", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if x.unsendable() != nil {
				b.Fatal("not sendable")
			}
		}
	})
	b.Run("write", func(b *testing.B) {
		var buf []byte
		p := &Proxy{}
		b.ReportAllocs()
		for b.Loop() {
			buf = appendRequest(buf[:0], x, p)
		}
	})
}

// BenchmarkHeadCost doubles its input: what it costs for each byte stays.
func BenchmarkHeadCost(b *testing.B) {
	for _, s := range headShapes {
		for n := 4 << 10; n <= 32<<10; n *= 2 {
			b.Run(strings.ReplaceAll(s.name, " ", "-")+"/"+strconv.Itoa(n>>10)+"KiB", func(b *testing.B) {
				head := []byte(s.head(func(piece string) string { return strings.Repeat(piece, n/len(piece)) }, s.piece))
				b.SetBytes(int64(len(head)))
				b.ReportAllocs()
				for b.Loop() {
					parseInPieces(head)
				}
			})
		}
	}
}
