// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"crypto/tls"
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// startup is a PostgreSQL packet: its length and its body.
func startup(code uint32, body string) string {
	b := binary.BigEndian.AppendUint32(nil, uint32(8+len(body)))
	return string(binary.BigEndian.AppendUint32(b, code)) + body
}

// rdp is an X.224 connection request with the variable part.
func rdp(variable string) string {
	n := 11 + len(variable)
	return string([]byte{3, 0, byte(n >> 8), byte(n), byte(n - 5), 0xE0, 0, 0, 0, 0, 0}) + variable
}

var sniffers = map[string]Matcher{
	"TLS": TLS, "HTTP1": HTTP1, "HTTP2": HTTP2, "SSH": SSH, "PostgreSQL": PostgreSQL, "Redis": Redis, "RDP": RDP, "PROXYProtocol": PROXYProtocol,
}

// TestSniffers gives every protocol to every sniffer, byte by byte: the right
// one matches, in time, the others say no before the end.
func TestSniffers(t *testing.T) {
	for _, tt := range []struct{ protocol, in string }{
		{"TLS", string(clientHello(t, &tls.Config{ServerName: "a.test"}))},
		{"TLS", "\x16\x03\x01\x02\x00\x01"},
		{"HTTP1", "GET / HTTP/1.1\r\n"},
		{"HTTP1", "\r\nPROPFIND /a?b=c HTTP/1.0\r\n"},
		{"HTTP1", "M-SEARCH * HTTP/1.1\n"},
		{"HTTP2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"},
		{"SSH", "SSH-2.0-OpenSSH_9.2\r\n"},
		{"PostgreSQL", startup(3<<16, "user\x00ann\x00\x00")},
		{"PostgreSQL", startup(3<<16|2, "user\x00ann\x00\x00")},
		{"PostgreSQL", startup(1234<<16|5679, "")},
		{"PostgreSQL", startup(1234<<16|5680, "")},
		{"PostgreSQL", startup(1234<<16|5678, "pid and key")},
		{"Redis", "*1\r\n$4\r\nPING\r\n"},
		{"Redis", "*1048576\r\n$"},
		{"RDP", rdp("")},
		{"RDP", rdp("Cookie: mstshash=ann\r\n\x01\x00\x08\x00\x03\x00\x00\x00")},
		{"PROXYProtocol", "PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n"},
		{"PROXYProtocol", v2(0x21, 0x11, inet4)},
	} {
		for name, sniff := range sniffers {
			answer := NeedMore
			for n := range len(tt.in) + 1 {
				v := sniff(&Peeked{Data: []byte(tt.in[:n])})
				if answer != NeedMore {
					require.Equal(t, answer, v, "%s of %q changes its mind after %d bytes", name, tt.in, n)
				}
				answer = v
			}
			require.Equal(t, is(name == tt.protocol), answer, "%s of %q", name, tt.in)
		}
	}
}

func TestSniffersRefuse(t *testing.T) {
	for _, tt := range []struct{ protocol, in, why string }{
		{"TLS", "\x16\x03\x01\x00\x00\x01", "empty record"},
		{"TLS", "\x16\x03\x01\x00\x05\x02", "a server's hello"},
		{"HTTP1", "GET key\r\n", "an inline command of Redis"},
		{"HTTP1", "GET /", "no line yet"},
		{"HTTP1", "GET / HTTP/2.0\r\n", "another version"},
		{"HTTP1", "GET  HTTP/1.1\r\n", "no target"},
		{"HTTP1", " / HTTP/1.1\r\n", "no method"},
		{"HTTP1", strings.Repeat("G", 33), "a method without end"},
		{"HTTP1", "GET /" + strings.Repeat("a", 16<<10), "a line without end"},
		{"PostgreSQL", startup(2<<16, ""), "protocol version 2"},
		{"PostgreSQL", "\x00\x00\x27\x11\x00\x03\x00\x00", "10001 bytes"},
		{"PostgreSQL", "\x00\x00\x00\x08\x00\x03\x00\x00", "no parameters"},
		{"PostgreSQL", "\x00\x00\x00\x09\x04\xd2\x16\x2f", "an SSLRequest of 9 bytes"},
		{"PostgreSQL", "\x00\x00\x00\x08\x04\xd2\x16\x31", "an unknown request"},
		{"Redis", "*0", "no element"},
		{"Redis", "*\r\n$", "no number"},
		{"Redis", "*12345678", "too many elements"},
		{"Redis", "*1\r\n:", "no bulk string"},
		{"RDP", "\x03\x00\x00\x0a\x05\xe0\x00\x00\x00\x00\x00", "too short"},
		{"RDP", "\x03\x00\x00\x0b\x07\xe0\x00\x00\x00\x00\x00", "lengths disagree"},
		{"RDP", "\x03\x00\x00\x0b\x06\xd0\x00\x00\x00\x00\x00", "a confirm"},
	} {
		require.NotEqual(t, Yes, sniffers[tt.protocol](&Peeked{Data: []byte(tt.in)}), tt.why)
	}
}

func TestRDPCookie(t *testing.T) {
	for _, tt := range []struct {
		in, name, value string
		want            Verdict
	}{
		{rdp("Cookie: mstshash=ann\r\n"), "mstshash", "ann", Yes},
		{rdp("Cookie: msts=3640205228.15629.0000\r\n\x01\x00"), "msts", "3640205228.15629.0000", Yes},
		{rdp("Cookie: mstshash=\r\n"), "mstshash", "", Yes},
		{rdp("Cookie: other=1\r\n"), "", "", No},
		{rdp("Cookie: msts\r\n"), "", "", No},
		{rdp("Cookie: mstshash=ann"), "", "", No},
		{rdp("\x01\x00\x08\x00"), "", "", No},
		{rdp(""), "", "", No},
		{"SSH-2.0", "", "", No},
	} {
		name, value, v := RDPCookie([]byte(tt.in))
		require.Equal(t, tt.want, v, "%q", tt.in)
		require.Equal(t, tt.name, name)
		require.Equal(t, tt.value, value)
		if v != Yes {
			continue
		}
		for n := range strings.Index(tt.in, "\r\n") + 1 {
			_, _, v := RDPCookie([]byte(tt.in[:n]))
			require.Equal(t, NeedMore, v, "cut after %d bytes of %q", n, tt.in)
		}
	}
}

// peekedHello is a connection on which the client has sent its ClientHello.
func peekedHello(t *testing.T, cfg *tls.Config) *Peeked {
	return &Peeked{Conn: NewConn(&scriptConn{}), Data: clientHello(t, cfg)}
}

func TestSNI(t *testing.T) {
	m := SNI("a.test", "*.B.test", "Trailing.Test.", "*.*.c.test", "x*.test")
	for name, want := range map[string]Verdict{
		"a.test": Yes, "A.TEST": Yes, "b.a.test": No,
		"x.b.test": Yes, "X.b.Test": Yes, "b.test": No, "x.y.b.test": No,
		"trailing.test": Yes, "z.y.c.test": No, "xy.test": No, "test": No,
	} {
		require.Equal(t, want, m(peekedHello(t, &tls.Config{ServerName: name})), name)
	}
	none := peekedHello(t, &tls.Config{InsecureSkipVerify: true})
	require.Equal(t, No, m(none))
	require.Equal(t, Yes, SNI("")(none))
	require.Equal(t, No, SNI("")(peekedHello(t, &tls.Config{ServerName: "a.test"})))
	require.Equal(t, No, SNI("")(&Peeked{Conn: none.Conn, Data: []byte("GET /")}))
	require.Equal(t, NeedMore, m(&Peeked{Conn: none.Conn, Data: none.Data[:50]}))
}

func TestALPNAndVersion(t *testing.T) {
	p := peekedHello(t, &tls.Config{ServerName: "a.test", NextProtos: []string{"h2", "http/1.1"}, MaxVersion: tls.VersionTLS12})
	require.Equal(t, Yes, ALPN("http/1.1")(p))
	require.Equal(t, Yes, ALPN("postgresql", "h2")(p))
	require.Equal(t, No, ALPN("h3")(p))
	require.Equal(t, No, ALPN("h2")(&Peeked{Conn: p.Conn, Data: []byte("SSH-")}))
	require.Equal(t, Yes, TLSVersion(tls.VersionTLS10, tls.VersionTLS12)(p))
	require.Equal(t, No, TLSVersion(tls.VersionTLS13, tls.VersionTLS13)(p))
}

// TestMatchersOverTerminatedTLS shows that SNI, ALPN and TLSVersion look at the
// TLS that was ended here, not at what is inside.
func TestMatchersOverTerminatedTLS(t *testing.T) {
	cfg := testConfig(t, "a.test")
	cfg.NextProtos = []string{"h2"}
	client, server := handshaken(t, cfg, &tls.Config{ServerName: "a.test", NextProtos: []string{"h2"}, InsecureSkipVerify: true})
	defer client.Close()
	p := &Peeked{Conn: NewConn(server)}
	defer p.Conn.Close()
	require.Equal(t, Yes, SNI("A.test")(p))
	require.Equal(t, No, SNI("b.test")(p))
	require.Equal(t, Yes, ALPN("h2")(p))
	require.Equal(t, No, ALPN("http/1.1")(p))
	require.Equal(t, Yes, TLSVersion(tls.VersionTLS13, tls.VersionTLS13)(p))
	require.Equal(t, No, TLSVersion(tls.VersionTLS10, tls.VersionTLS12)(p))
}

func TestLogic(t *testing.T) {
	say := func(v Verdict) Matcher { return func(*Peeked) Verdict { return v } }
	open, final := &Peeked{}, &Peeked{Final: true}
	for _, tt := range []struct {
		m    Matcher
		want Verdict
	}{
		{All(), Yes},
		{All(say(Yes), say(Yes)), Yes},
		{All(say(Yes), say(NeedMore)), NeedMore},
		{All(say(NeedMore), say(No), say(Yes)), No},
		{Any(), No},
		{Any(say(No), say(No)), No},
		{Any(say(No), say(NeedMore)), NeedMore},
		{Any(say(NeedMore), say(Yes)), Yes},
		{Not(say(Yes)), No},
		{Not(say(No)), Yes},
		{Not(say(NeedMore)), NeedMore},
		{FirstBytes("a", "bc"), NeedMore},
	} {
		require.Equal(t, tt.want, tt.m(open))
	}
	require.Equal(t, Yes, Not(say(NeedMore))(final))
	require.Equal(t, "no, need more, yes", No.String()+", "+NeedMore.String()+", "+Yes.String())
	require.Equal(t, Yes, FirstBytes("a", "bc")(&Peeked{Data: []byte("bcd")}))
	require.Equal(t, No, FirstBytes("a", "bc")(&Peeked{Data: []byte("bd")}))
}

func TestPrefixes(t *testing.T) {
	s := MustParsePrefixes("10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::ffff:198.51.100.0/120", "fe80::1")
	for a, want := range map[string]bool{
		"10.1.2.3": true, "11.1.2.3": false, "192.0.2.7": true, "192.0.2.8": false,
		"::ffff:10.1.2.3": true, "198.51.100.9": true, "198.51.101.9": false,
		"2001:db8:1::": true, "2001:db9::": false, "fe80::1%eth0": true, "::1": false,
	} {
		require.Equal(t, want, s.Contains(netip.MustParseAddr(a)), a)
	}
	require.False(t, s.Contains(netip.Addr{}))
	require.False(t, Prefixes{}.Contains(netip.MustParseAddr("10.1.2.3")))
	require.True(t, MustParsePrefixes("0.0.0.0/0").Contains(netip.MustParseAddr("::ffff:1.2.3.4")))
	require.False(t, MustParsePrefixes("::/0").Contains(netip.MustParseAddr("1.2.3.4")), "another family")
	require.True(t, s.ContainsAddr(&net.TCPAddr{IP: net.IPv4(10, 0, 0, 1)}))
	require.False(t, s.ContainsAddr(&net.UnixAddr{Name: "10.0.0.1"}))
	require.False(t, s.ContainsAddr(nil))
	for _, bad := range []string{"", "10.0.0.0/33", "10.0.0", "::ffff:10.0.0.0/64", "a.test"} {
		_, err := ParsePrefixes(bad)
		require.Error(t, err, bad)
	}
	require.Panics(t, func() { MustParsePrefixes("x") })
}

func FuzzSniffers(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	f.Add([]byte(rdp("Cookie: mstshash=ann\r\n")))
	f.Add([]byte(startup(3<<16, "user\x00ann\x00\x00")))
	f.Add([]byte("*1\r\n$4\r\nPING\r\n"))
	f.Add([]byte("\x16\x03\x01\x02\x00\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		step := 1 + len(b)/256
		for name, sniff := range sniffers {
			last := NeedMore
			for n := 0; n <= len(b); n += step {
				v := sniff(&Peeked{Data: b[:n:n]})
				require.True(t, last == NeedMore || v == last, "%s changes its mind after %d bytes of %q", name, n, b)
				last = v
			}
		}
		var last Verdict = NeedMore
		for n := 0; n <= len(b); n += step {
			_, _, v := RDPCookie(b[:n:n])
			require.True(t, last == NeedMore || v == last, "RDPCookie after %d bytes of %q", n, b)
			last = v
		}
	})
}

// A request line that trickles in is looked at once: bytes that were seen are
// not looked at again, which the test would notice as it puts line ends there.
func TestHTTP1LooksAtEachByteOnce(t *testing.T) {
	line := []byte("\r\nGET /" + strings.Repeat("a", 8000) + " HTTP/1.1\r\n")
	var p Peeked
	for n := 20; n < len(line); n++ {
		p.Data = append(p.Data, line[len(p.Data):n]...)
		if v := HTTP1(&p); v != NeedMore {
			t.Fatalf("after %d bytes: %v; want %v", n, v, NeedMore)
		}
		p.Data[n-5] = '\n'
	}
	p.Data = line
	require.Equal(t, Yes, HTTP1(&p))
}
