// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// v2 makes a version 2 header from the command and family bytes and the block.
func v2(command, family byte, block string) string {
	b := append([]byte(proxyV2Signature), command, family)
	return string(binary.BigEndian.AppendUint16(b, uint16(len(block)))) + block
}

const (
	inet4 = "\x0a\x00\x00\x01\x0a\x00\x00\x02\xdd\xd5\x01\xbb" // 10.0.0.1:56789 to 10.0.0.2:443
	inet6 = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01" +
		"\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\xdd\xd5\x01\xbb"
)

func unixField(name string) string { return name + strings.Repeat("\x00", proxyUnixBytes-len(name)) }

func TestParseProxyHeader(t *testing.T) {
	for _, tt := range []struct {
		name     string
		in       string
		src, dst string // "network address", or "" for none
		local    bool
	}{
		{name: "v1 TCP4", in: "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n", src: "tcp 192.168.0.1:56324", dst: "tcp 192.168.0.11:443"},
		{name: "v1 longest TCP4", in: "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", src: "tcp 255.255.255.255:65535", dst: "tcp 255.255.255.255:65535"},
		{name: "v1 TCP6", in: "PROXY TCP6 2001:DB8::1 ::1 0 443\r\n", src: "tcp [2001:db8::1]:0", dst: "tcp [::1]:443"},
		{name: "v1 mapped is IPv4", in: "PROXY TCP6 ::ffff:10.0.0.1 ::ffff:a00:2 1 2\r\n", src: "tcp 10.0.0.1:1", dst: "tcp 10.0.0.2:2"},
		{name: "v1 UNKNOWN", in: "PROXY UNKNOWN\r\n"},
		{name: "v1 UNKNOWN, rest ignored", in: "PROXY UNKNOWN ffff:ffff what ever\r\n"},
		{name: "v1 UNKNOWN of 107 bytes", in: "PROXY UNKNOWN " + strings.Repeat("x", 107-14-2) + "\r\n"},
		{name: "v2 TCP4", in: v2(0x21, 0x11, inet4), src: "tcp 10.0.0.1:56789", dst: "tcp 10.0.0.2:443"},
		{name: "v2 UDP4", in: v2(0x21, 0x12, inet4), src: "udp 10.0.0.1:56789", dst: "udp 10.0.0.2:443"},
		{name: "v2 TCP6", in: v2(0x21, 0x21, inet6), src: "tcp [2001:db8::1]:56789", dst: "tcp [2001:db8::2]:443"},
		{name: "v2 UDP6", in: v2(0x21, 0x22, inet6), src: "udp [2001:db8::1]:56789", dst: "udp [2001:db8::2]:443"},
		{name: "v2 Unix stream", in: v2(0x21, 0x31, unixField("/run/a")+unixField("\x00b")), src: "unix /run/a", dst: "unix @b"},
		{name: "v2 Unix datagram", in: v2(0x21, 0x32, unixField("")+unixField("/b")), src: "unixgram ", dst: "unixgram /b"},
		{name: "v2 Unix, field with no NUL", in: v2(0x21, 0x31, strings.Repeat("a", 108)+unixField("/b")), src: "unix " + strings.Repeat("a", 108), dst: "unix /b"},
		{name: "v2 UNSPEC", in: v2(0x21, 0x00, "")},
		{name: "v2 LOCAL", in: v2(0x20, 0x00, ""), local: true},
		{name: "v2 LOCAL skips its block, whatever it is", in: v2(0x20, 0xff, "junk"), local: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, n, err := ParseProxyHeader([]byte(tt.in + "GET / HTTP/1.1\r\n"))
			require.NoError(t, err)
			require.Equal(t, len(tt.in), n, "the bytes after the header stay")
			require.Equal(t, tt.src, addrString(h.Source))
			require.Equal(t, tt.dst, addrString(h.Destination))
			require.Equal(t, tt.local, h.Local)
			for cut := range len(tt.in) {
				_, _, err := ParseProxyHeader([]byte(tt.in[:cut]))
				require.ErrorIs(t, err, io.ErrUnexpectedEOF, "cut after %d bytes", cut)
			}
		})
	}
}

func addrString(a net.Addr) string {
	if a == nil {
		return ""
	}
	return a.Network() + " " + a.String()
}

func TestParseProxyHeaderRefuses(t *testing.T) {
	for name, in := range map[string]string{
		"another protocol":         "GET / HTTP/1.1\r\n\r\n",
		"lower case":               "proxy TCP4",
		"another word":             "PROXX",
		"another v1 family":        "PROXY UDP4 ",
		"no space after UNKNOWN":   "PROXY UNKNOWNX",
		"lone LF":                  "PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n",
		"lone CR":                  "PROXY TCP4 1.1.1.1 2.2.2.2 1 2\rX",
		"lone LF after UNKNOWN":    "PROXY UNKNOWN \n\r\n",
		"CR is byte 107":           "PROXY UNKNOWN " + strings.Repeat("x", 107-14-1) + "\r\n",
		"108 bytes":                "PROXY UNKNOWN " + strings.Repeat("x", 108-14-2) + "\r\n",
		"no end":                   "PROXY TCP4 " + strings.Repeat("1", 200),
		"two spaces":               "PROXY TCP4 1.1.1.1  2.2.2.2 1 2\r\n",
		"trailing space":           "PROXY TCP4 1.1.1.1 2.2.2.2 1 2 \r\n",
		"too few fields":           "PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n",
		"leading zero in address":  "PROXY TCP4 01.1.1.1 2.2.2.2 1 2\r\n",
		"leading zero in port":     "PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n",
		"port too large":           "PROXY TCP4 1.1.1.1 2.2.2.2 65536 2\r\n",
		"signed port":              "PROXY TCP4 1.1.1.1 2.2.2.2 +1 2\r\n",
		"empty port":               "PROXY TCP4 1.1.1.1 2.2.2.2  \r\n",
		"IPv6 in TCP4":             "PROXY TCP4 ::1 2.2.2.2 1 2\r\n",
		"IPv4 in TCP6":             "PROXY TCP6 ::1 2.2.2.2 1 2\r\n",
		"zone":                     "PROXY TCP6 fe80::1%lo ::1 1 2\r\n",
		"name":                     "PROXY TCP4 localhost 2.2.2.2 1 2\r\n",
		"v2 signature broken":      "\r\n\r\n\x00\r\nQUIX",
		"v2 version 1":             v2(0x11, 0x11, inet4),
		"v2 unknown command":       v2(0x22, 0x11, inet4),
		"v2 unknown family":        v2(0x21, 0x41, inet4),
		"v2 unknown transport":     v2(0x21, 0x13, inet4),
		"v2 half unspec":           v2(0x21, 0x10, inet4),
		"v2 addresses cut":         v2(0x21, 0x11, inet4[:11]),
		"v2 IPv6 in 12 bytes":      v2(0x21, 0x21, inet4),
		"v2 Unix cut":              v2(0x21, 0x31, unixField("/a")),
		"TLV beyond the header":    v2(0x21, 0x11, inet4+"\x02\x00\x05abc"),
		"TLV dangling byte":        v2(0x21, 0x11, inet4+"\x04\x00\x00\x02"),
		"TLV dangling two bytes":   v2(0x21, 0x11, inet4+"\x02\x00"),
		"unique id of 129 bytes":   v2(0x21, 0x11, inet4+"\x05\x00\x81"+strings.Repeat("u", 129)),
		"SSL of four bytes":        v2(0x21, 0x11, inet4+"\x20\x00\x04\x01\x00\x00\x00"),
		"SSL with a bad inner TLV": v2(0x21, 0x11, inet4+"\x20\x00\x08\x01\x00\x00\x00\x00\x21\x00\x07"),
		"wrong checksum":           v2(0x21, 0x11, inet4+"\x03\x00\x04\x00\x00\x00\x00"),
		"short checksum":           v2(0x21, 0x11, inet4+"\x03\x00\x03\x00\x00\x00"),
	} {
		t.Run(name, func(t *testing.T) {
			h, n, err := ParseProxyHeader([]byte(in))
			require.ErrorIs(t, err, ErrProxyHeader)
			require.Zero(t, n)
			require.Nil(t, h.Source)
		})
	}
}

// TestProxyHeaderChecksum pins the bytes of one header, computed by hand with
// the polynomial of RFC 4960, Appendix B, and shows that no bit is left out.
func TestProxyHeaderChecksum(t *testing.T) {
	h := ProxyHeader{
		Source:      net.TCPAddrFromAddrPort(netip.MustParseAddrPort("10.0.0.1:56789")),
		Destination: net.TCPAddrFromAddrPort(netip.MustParseAddrPort("10.0.0.2:443")),
		TLVs:        []TLV{{TLVAuthority, []byte("a.test")}, {Type: TLVCRC32C}, {0xE0, nil}},
	}
	b, err := h.AppendBinary(nil)
	require.NoError(t, err)
	at := bytes.Index(b, []byte("\x03\x00\x04")) + 3
	sum := binary.BigEndian.Uint32(b[at:])
	zeroed := bytes.Clone(b)
	clear(zeroed[at : at+4])
	require.Equal(t, slowCRC32C(zeroed), sum)

	got, n, err := ParseProxyHeader(b)
	require.NoError(t, err)
	require.Equal(t, len(b), n)
	require.Equal(t, []byte("a.test"), must(got.TLV(TLVAuthority)))
	require.Equal(t, []byte{}, must(got.TLV(0xE0)), "an empty extension is present")
	_, ok := got.TLV(0xE1)
	require.False(t, ok, "a missing one is absent")

	for i := range len(b) * 8 {
		bad := bytes.Clone(b)
		bad[i/8] ^= 1 << (i % 8)
		_, _, err := ParseProxyHeader(bad)
		// The command bit makes it LOCAL, whose block is discarded unseen; a
		// bit of the type makes the checksum another extension.
		if i != 12*8 && i/8 != at-3 {
			require.Error(t, err, "bit %d flipped", i)
		}
	}
}

// slowCRC32C is the checksum bit by bit.
func slowCRC32C(b []byte) uint32 {
	crc := ^uint32(0)
	for _, c := range b {
		crc ^= uint32(c)
		for range 8 {
			if crc&1 != 0 {
				crc = crc>>1 ^ 0x82F63B78
			} else {
				crc >>= 1
			}
		}
	}
	return ^crc
}

func must[T any](v T, ok bool) T {
	if !ok {
		panic("absent")
	}
	return v
}

func TestProxyHeaderAppend(t *testing.T) {
	tcp := func(s string) net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s)) }
	udp := func(s string) net.Addr { return net.UDPAddrFromAddrPort(netip.MustParseAddrPort(s)) }
	for _, tt := range []struct {
		name string
		h    ProxyHeader
		want string
	}{
		{"v1", ProxyHeader{Version: 1, Source: tcp("1.2.3.4:5"), Destination: tcp("6.7.8.9:10")}, "PROXY TCP4 1.2.3.4 6.7.8.9 5 10\r\n"},
		{"v1 IPv6", ProxyHeader{Version: 1, Source: tcp("[::1]:5"), Destination: tcp("[2001:db8::]:10")}, "PROXY TCP6 ::1 2001:db8:: 5 10\r\n"},
		{"v1 of two families", ProxyHeader{Version: 1, Source: tcp("[::1]:5"), Destination: tcp("6.7.8.9:10")}, "PROXY TCP6 ::1 ::ffff:6.7.8.9 5 10\r\n"},
		{"v1 of mapped addresses", ProxyHeader{Version: 1, Source: tcp("[::ffff:1.2.3.4]:5"), Destination: tcp("6.7.8.9:10")}, "PROXY TCP4 1.2.3.4 6.7.8.9 5 10\r\n"},
		{"v1 drops the zone", ProxyHeader{Version: 1, Source: tcp("[fe80::1%lo]:5"), Destination: tcp("[::1]:10")}, "PROXY TCP6 fe80::1 ::1 5 10\r\n"},
		{"v1 of nothing", ProxyHeader{Version: 1}, "PROXY UNKNOWN\r\n"},
		{"v1 of a nil address", ProxyHeader{Version: 1, Source: (*net.TCPAddr)(nil), Destination: tcp("6.7.8.9:10")}, "PROXY UNKNOWN\r\n"},
		{"v1 of UDP", ProxyHeader{Version: 1, Source: udp("1.2.3.4:5"), Destination: udp("6.7.8.9:10")}, "PROXY UNKNOWN\r\n"},
		{"v2", ProxyHeader{Source: tcp("10.0.0.1:56789"), Destination: tcp("10.0.0.2:443")}, v2(0x21, 0x11, inet4)},
		{"v2 UDP", ProxyHeader{Source: udp("10.0.0.1:56789"), Destination: udp("10.0.0.2:443")}, v2(0x21, 0x12, inet4)},
		{"v2 IPv6 UDP", ProxyHeader{Source: udp("[2001:db8::1]:56789"), Destination: udp("[2001:db8::2]:443")}, v2(0x21, 0x22, inet6)},
		{"v2 of TCP and UDP", ProxyHeader{Source: udp("10.0.0.1:56789"), Destination: tcp("10.0.0.2:443")}, v2(0x21, 0x00, "")},
		{"v2 Unix", ProxyHeader{Source: &net.UnixAddr{Name: "@a", Net: "unix"}, Destination: &net.UnixAddr{Name: "/b", Net: "unix"}}, v2(0x21, 0x31, unixField("\x00a")+unixField("/b"))},
		{"v2 local", ProxyHeader{Local: true, Source: tcp("10.0.0.1:1"), TLVs: []TLV{{Type: 0xE0}}}, v2(0x20, 0x00, "")},
		{"v2 with TLVs", ProxyHeader{TLVs: []TLV{{TLVALPN, []byte("h2")}, {0xE1, []byte("foo")}, {0xE2, nil}}}, v2(0x21, 0x00, "\x01\x00\x02h2\xe1\x00\x03foo\xe2\x00\x00")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, err := tt.h.AppendBinary([]byte("before"))
			require.NoError(t, err)
			require.Equal(t, hex.Dump([]byte("before"+tt.want)), hex.Dump(b))
		})
	}
	for name, h := range map[string]ProxyHeader{
		"version":        {Version: 3},
		"TLV too long":   {TLVs: []TLV{{0xE0, make([]byte, 1<<16)}}},
		"all too long":   {TLVs: []TLV{{0xE0, make([]byte, 1<<15)}, {0xE0, make([]byte, 1<<15)}}},
		"unique id":      {TLVs: []TLV{{TLVUniqueID, make([]byte, 129)}}},
		"two checksums":  {TLVs: []TLV{{Type: TLVCRC32C}, {Type: TLVCRC32C}}},
		"path too long":  {Source: &net.UnixAddr{Name: strings.Repeat("p", 109)}, Destination: &net.UnixAddr{}},
		"SSL bad length": {TLVs: []TLV{ProxySSL{TLVs: []TLV{{0x28, make([]byte, 1<<16-6)}}}.Extension()}},
	} {
		b, err := h.AppendBinary([]byte("before"))
		require.Error(t, err, name)
		require.Equal(t, "before", string(b), name)
	}
}

func TestTLSExtensions(t *testing.T) {
	cs := &tls.ConnectionState{
		Version: tls.VersionTLS13, CipherSuite: tls.TLS_AES_128_GCM_SHA256, ServerName: "a.test", NegotiatedProtocol: "h2",
		PeerCertificates: []*x509.Certificate{{Subject: pkix.Name{CommonName: "Ann"}}},
		VerifiedChains:   [][]*x509.Certificate{{}},
	}
	b, err := (&ProxyHeader{TLVs: TLSExtensions(cs)}).AppendBinary(nil)
	require.NoError(t, err)
	h, _, err := ParseProxyHeader(b)
	require.NoError(t, err)
	require.Equal(t, "h2", string(must(h.TLV(TLVALPN))))
	require.Equal(t, "a.test", string(must(h.TLV(TLVAuthority))))
	s, ok := h.SSL()
	require.True(t, ok)
	require.EqualValues(t, ProxyClientSSL|ProxyClientCertConn|ProxyClientCertSess, s.Client)
	require.Zero(t, s.Verify, "the certificate was verified")
	require.Equal(t, "TLSv1.3", string(must(s.TLV(TLVSSLVersion))))
	require.Equal(t, "TLS_AES_128_GCM_SHA256", string(must(s.TLV(TLVSSLCipher))))
	require.Equal(t, "Ann", string(must(s.TLV(TLVSSLCommonName))))

	cs.DidResume, cs.VerifiedChains = true, nil
	h = ProxyHeader{TLVs: TLSExtensions(cs)}
	s, _ = h.SSL()
	require.EqualValues(t, ProxyClientSSL|ProxyClientCertSess, s.Client)
	require.NotZero(t, s.Verify)
}

func FuzzParseProxyHeader(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\nGET /"))
	f.Add([]byte("PROXY TCP6 ::1 ::ffff:1.2.3.4 1 2\r\n"))
	f.Add([]byte("PROXY UNKNOWN what\r\n"))
	f.Add([]byte(v2(0x20, 0, "junk")))
	f.Add([]byte(v2(0x21, 0x22, inet6+"\x02\x00\x01a\xe0\x00\x00")))
	f.Add([]byte(v2(0x21, 0x32, unixField("@a")+unixField("\x00\x00b"))))
	// A path that begins with @ once came back as an abstract name.
	f.Add([]byte(v2(0x21, 0x31, unixField("@a")+unixField("@"))))
	sum, _ := (&ProxyHeader{TLVs: []TLV{{Type: TLVCRC32C}, ProxySSL{Client: 1}.Extension()}}).AppendBinary(nil)
	f.Add(sum)
	f.Fuzz(func(t *testing.T, b []byte) {
		in := bytes.Clone(b)
		h, n, err := ParseProxyHeader(b)
		require.Equal(t, in, b, "the input is left as it was")
		if err != nil {
			require.Zero(t, n)
			return
		}
		require.LessOrEqual(t, n, len(b))
		if h.Version == 1 {
			require.LessOrEqual(t, n, proxyV1MaxBytes)
		}
		for cut := 0; cut < n; cut += 1 + n/256 { // never complete early, and never wrong early
			_, _, err := ParseProxyHeader(b[:cut])
			require.ErrorIs(t, err, io.ErrUnexpectedEOF, "cut after %d of %d", cut, n)
		}
		out, err := h.AppendBinary(nil)
		require.NoError(t, err)
		again, m, err := ParseProxyHeader(out)
		require.NoError(t, err)
		require.Equal(t, len(out), m)
		for i := range h.TLVs {
			if h.TLVs[i].Type == TLVCRC32C {
				// Mapped addresses are written as IPv4: the sum differs.
				h.TLVs[i].Value, again.TLVs[i].Value = nil, nil
			}
		}
		require.Equal(t, h, again)
	})
}

func BenchmarkParseProxyHeader(b *testing.B) {
	for name, in := range map[string]string{
		"v1": "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
		"v2": v2(0x21, 0x11, inet4),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := ParseProxyHeader([]byte(in)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Extensions of three bytes take one piece of memory together, however many there are.
func TestManyExtensionsAreCheap(t *testing.T) {
	b := append([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x00\xea\x60"), bytes.Repeat([]byte{0xe0, 0, 0}, 20_000)...)
	h, n, err := ParseProxyHeader(b)
	require.NoError(t, err)
	require.Len(t, h.TLVs, 20_000)
	require.Equal(t, len(b), n)
	require.LessOrEqual(t, testing.AllocsPerRun(10, func() { ParseProxyHeader(b) }), 4.0)
}
