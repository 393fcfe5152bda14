// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/textproto"
	"strings"
	"testing"

	"github.com/penstock-lb/penstock/l7/l7test"
)

// sameFields checks that net/http has the same fields as we have, leaving
// aside those that the engine owns and those that Connection names.
func sameFields(t *testing.T, ours *Fields, theirs http.Header) {
	t.Helper()
	got := make(http.Header)
	for name, v := range ours.All() {
		k := textproto.CanonicalMIMEHeaderKey(name)
		got[k] = append(got[k], v)
	}
	nominated := strings.Join(theirs["Connection"], ",")
	for name, values := range theirs {
		if k := kindOf(name); k.owned() || k == kindExpect || hasItem(nominated, name) {
			continue
		}
		if strings.Join(values, "|") != strings.Join(got[name], "|") {
			t.Fatalf("field %s: ours %q, net/http %q", name, got[name], values)
		}
		delete(got, name)
	}
	for name, values := range got {
		t.Fatalf("field %s %q: net/http does not know it", name, values)
	}
}

// What we accept, net/http understands in the same way if it accepts it, and
// a strict parser does when it is sent on.
func FuzzRequestHead(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /a?b HTTP/1.1\r\nHost: a:80\r\nContent-Length: 5\r\nX-A: b \r\n\r\n",
		"PUT http://a.test/x HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\nConnection: X-B, close\r\nX-B: c\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\nExpect: 100-continue\r\n\r\n",
		"GET / HTTP/1.0\r\nConnection: keep-alive\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n",
		"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nTE: trailers\r\n\r\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, herr := headEnd([]byte(s), 0)
		if herr != nil || n != len(s) {
			return
		}
		var x Exchange
		var fr framing
		if parseRequest(&x, &fr, s, defaultMaxFields) != nil {
			return
		}
		x.Record.Host = x.Host
		if x.Method != http.MethodConnect { // sent on only where the host asks for it
			sentOn(t, &x)
		}
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(s)))
		if err != nil {
			return
		}
		if r.Method != x.Method || r.ProtoMinor != int(x.proto) && r.ProtoMinor < 2 {
			t.Fatalf("%q: method %q, minor %d; net/http %q, %d", s, x.Method, x.proto, r.Method, r.ProtoMinor)
		}
		if r.Host != x.Host {
			t.Fatalf("%q: host %q; net/http %q", s, x.Host, r.Host)
		}
		if r.ContentLength != x.ContentLength {
			t.Fatalf("%q: length %d; net/http %d", s, x.ContentLength, r.ContentLength)
		}
		if target := x.Path + x.Query; x.Method != http.MethodConnect && target != r.RequestURI && !strings.HasSuffix(r.RequestURI, target) &&
			target != "/" && target != "*" && !strings.HasPrefix(target, "/?") {
			t.Fatalf("%q: target %q; net/http %q", s, target, r.RequestURI)
		}
		sameFields(t, &x.Header, r.Header)
	})
}

// sentOn checks the request as a server gets it with an independent parser.
func sentOn(t *testing.T, x *Exchange) {
	t.Helper()
	p := &Proxy{Forward: ForwardBoth}
	x.Remote = netip.MustParseAddrPort("192.0.2.1:1234")
	x.Scheme = "http"
	b := appendRequest(nil, x, p)
	body := ""
	switch {
	case x.ContentLength < 0:
		body = "0\r\n\r\n"
	case x.ContentLength > 1<<16:
		return
	case x.ContentLength > 0:
		body = strings.Repeat("x", int(x.ContentLength))
	}
	br := bufio.NewReader(strings.NewReader(string(b) + body + "NEXT"))
	r, err := l7test.ReadRequest(br)
	if err != nil {
		t.Fatalf("sent on as %q: %v", b, err)
	}
	if rest, _ := io.ReadAll(br); string(rest) != "NEXT" {
		t.Fatalf("sent on as %q: the body ends elsewhere, %q is left", b, rest)
	}
	if r.Method != x.Method || r.Target != x.Path+x.Query || r.Get("Host") != x.Host || r.Proto != "HTTP/1.1" {
		t.Fatalf("sent on as %q: %+v", b, r)
	}
	if v := r.Values("X-Forwarded-For"); len(v) != 1 || v[0] != "192.0.2.1" {
		t.Fatalf("sent on as %q: X-Forwarded-For %q", b, v)
	}
	for _, name := range []string{"Forwarded", "X-Forwarded-Proto"} {
		if len(r.Values(name)) != 1 {
			t.Fatalf("sent on as %q: %s %q", b, name, r.Values(name))
		}
	}
}

func FuzzReplyHead(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
		"HTTP/1.0 404 Not Found\r\nX: y\r\n\r\n",
		"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\nConnection: close, X-Hop\r\nX-Hop: z\r\n\r\n",
		"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 10\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, herr := headEnd([]byte(s), 0)
		if herr != nil || n != len(s) {
			return
		}
		var r Reply
		var fr framing
		minor, bad := parseReply(&r, &fr, s, maxReplyFields)
		if bad != nil {
			return
		}
		res, err := http.ReadResponse(bufio.NewReader(strings.NewReader(s)), nil)
		if err != nil {
			return
		}
		if res.StatusCode != r.Status || res.ProtoMinor != int(minor) && res.ProtoMinor < 2 {
			t.Fatalf("%q: %d, minor %d; net/http %d, %d", s, r.Status, minor, res.StatusCode, res.ProtoMinor)
		}
		if bodyAllowed(r.Status) {
			length := fr.length
			if fr.chunked {
				length = -1
			}
			if chunked := len(res.TransferEncoding) > 0; chunked != fr.chunked || res.ContentLength != length {
				t.Fatalf("%q: length %d, chunked %v; net/http %d, %v", s, length, fr.chunked, res.ContentLength, chunked)
			}
		}
		res.Header.Del("Connection")
		if !fr.nominated && !fr.close && !fr.keepAlive && !fr.upgrade {
			sameFields(t, &r.Header, res.Header)
		}
	})
}

// Any way of cutting the input into pieces gives the same body, and what we
// accept net/http decodes to the same bytes.
func FuzzChunked(f *testing.F) {
	for _, s := range []string{
		"5\r\nhello\r\n0\r\n\r\n", "5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nX-T: v\r\n\r\nGET",
		"00A\r\n0123456789\r\n0\r\n\r\n", "0\r\n\r\n", "5\nhello\n0\n\n", "ffffffffffffffff\r\n", "5 \r\nhello\r\n0\r\n\r\n",
	} {
		f.Add(s, uint8(1))
		f.Add(s, uint8(3))
	}
	f.Fuzz(func(t *testing.T, s string, step uint8) {
		decode := func(step int) (body []byte, used int, ok bool) {
			var d chunkDecoder
			for used < len(s) && d.state != chunkDone {
				data, n, err := d.decode([]byte(s[used:min(used+step, len(s))]))
				if err != nil {
					return body, used, false
				}
				if n == 0 {
					t.Fatalf("%q: no progress at %d", s, used)
				}
				used += n
				body = append(body, data...)
			}
			if _, err := d.fields(defaultMaxFields); d.state == chunkDone && err != nil {
				return body, used, false
			}
			return body, used, d.state == chunkDone
		}
		body, used, ok := decode(len(s) + 1)
		body2, used2, ok2 := decode(max(int(step), 1))
		if ok != ok2 || ok && (used != used2 || !bytes.Equal(body, body2)) {
			t.Fatalf("%q in steps of %d: %q, %d, %v; at once %q, %d, %v", s, step, body2, used2, ok2, body, used, ok)
		}
		if !ok {
			return
		}
		if theirs, err := io.ReadAll(httputil.NewChunkedReader(strings.NewReader(s))); err == nil && !bytes.Equal(theirs, body) {
			t.Fatalf("%q: %q; net/http %q", s, body, theirs)
		}
		strict := "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + s[:used]
		if r, err := l7test.ReadRequest(bufio.NewReader(strings.NewReader(strict))); err == nil && !bytes.Equal(r.Body, body) {
			t.Fatalf("%q: %q; strictly %q", s, body, r.Body)
		}
	})
}

func FuzzHost(f *testing.F) {
	for _, s := range []string{"a", "a.test:80", "[::1]", "[::1]:80", "a:", ":80", "a@b", "a%41", "[::1", "a,b", "a:80x", "[::ffff:1.2.3.4]:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !validHost(s) {
			return
		}
		if got := hostName(s); got == "" || hostPort(s) != "" && got+":"+hostPort(s) != s {
			t.Fatalf("%q: name %q, port %q", s, got, hostPort(s))
		}
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET http://" + s + "/ HTTP/1.1\r\nHost: " + s + "\r\n\r\n")))
		if err == nil && r.Host != s && !strings.Contains(s, "%") {
			t.Fatalf("%q: net/http takes it for %q", s, r.Host)
		}
	})
}

func FuzzForwardedFor(f *testing.F) {
	for _, s := range []string{"1.2.3.4", "1.2.3.4, 10.0.0.1", "::1, [::2]:80", "x, 10.0.0.2", ", ,", "10.0.0.1,,6.6.6.6"} {
		f.Add(s)
	}
	tf := &TrustForwarded{Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	f.Fuzz(func(t *testing.T, s string) {
		if !validValue(s) {
			return
		}
		x := &Exchange{Remote: netip.MustParseAddrPort("10.0.0.9:1")}
		x.Header = sent("X-Forwarded-For", s)
		a := tf.client(x)
		if !a.IsValid() {
			t.Fatalf("%q: no client", s)
		}
		// Whatever stands to the left of the first address that is not ours
		// changes nothing.
		y := &Exchange{Remote: x.Remote}
		y.Header = sent("X-Forwarded-For", "6.6.6.6, "+s)
		if b := tf.client(y); !tf.trusts(a) && b != a {
			t.Fatalf("%q: client %v; with another in front %v", s, a, b)
		}
	})
}
