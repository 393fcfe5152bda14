// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"net"
	"slices"
)

// JA4 returns the JA4 fingerprint of the hello, such as
// t13d1516h2_8daaf6152771_b186095e22b6. Clients that use the same TLS library in
// the same way have the same one, whatever order they put their cipher suites and
// extensions in. It says what software a client is, not who it is, and a client
// that wants to passes for another.
//
// It begins with q if the hello has the transport parameters of QUIC, else with t.
//
// Source: FoxIO, "JA4: TLS Client Fingerprinting"
// (https://github.com/FoxIO-LLC/ja4/blob/main/technical_details/JA4.md), whose
// method for TLS clients is under the BSD 3-Clause license.
func (h *ClientHello) JA4() string {
	b := make([]byte, 0, ja4Bytes)
	transport := byte('t')
	if slices.Contains(h.Extensions, extQUIC) {
		transport = 'q'
	}
	name := byte('i')
	if slices.Contains(h.Extensions, extServerName) {
		name = 'd'
	}
	suites := withoutGREASE(h.CipherSuites)
	extensions := withoutGREASE(h.Extensions)
	b = append(b, transport)
	b = append(b, ja4Version(h.version())...)
	b = append(b, name)
	b = appendTwoDigits(b, len(suites))
	b = appendTwoDigits(b, len(extensions))
	b = appendJA4Protocol(b, h.ALPN)

	slices.Sort(suites)
	b = appendJA4Hash(append(b, '_'), suites, nil)
	extensions = slices.DeleteFunc(extensions, func(e uint16) bool { return e == extServerName || e == extALPN })
	slices.Sort(extensions)
	schemes := withoutGREASE(h.SignatureSchemes) // their order is part of it
	return string(appendJA4Hash(append(b, '_'), extensions, schemes))
}

const (
	extQUIC  = 0x39 // quic_transport_parameters (RFC 9001, section 8.2)
	ja4Bytes = 10 + 1 + 12 + 1 + 12
)

// version is the highest version offered, of whatever kind, without GREASE.
func (h *ClientHello) version() uint16 {
	if h.legacy != 0 && !slices.Contains(h.Extensions, extSupportedVersions) {
		return h.legacy
	}
	var best uint16
	for _, v := range h.Versions {
		if !isGREASE(v) {
			best = max(best, v)
		}
	}
	return best
}

func ja4Version(v uint16) string {
	switch v {
	case tls.VersionTLS13:
		return "13"
	case tls.VersionTLS12:
		return "12"
	case tls.VersionTLS11:
		return "11"
	case tls.VersionTLS10:
		return "10"
	case 0x0300: // tls.VersionSSL30 is deprecated
		return "s3"
	case 0x0002:
		return "s2"
	}
	return "00"
}

func appendTwoDigits(b []byte, n int) []byte {
	n = min(n, 99)
	return append(b, '0'+byte(n/10), '0'+byte(n%10))
}

// appendJA4Protocol appends the first and the last character of the first protocol,
// of its hexadecimal form if one of them is neither a letter nor a digit.
func appendJA4Protocol(b []byte, protocols []string) []byte {
	if len(protocols) == 0 || protocols[0] == "" {
		return append(b, "00"...)
	}
	const digits = "0123456789abcdef"
	p := protocols[0]
	first, last := p[0], p[len(p)-1]
	if !isAlphanumeric(first) || !isAlphanumeric(last) {
		first, last = digits[first>>4], digits[last&15]
	}
	return append(b, first, last)
}

func isAlphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
}

// appendJA4Hash appends the beginning of the SHA-256 of the lists, zeros if the first
// one is empty. The second is left out if it is.
func appendJA4Hash(b []byte, list []uint16, then []tls.SignatureScheme) []byte {
	if len(list) == 0 {
		return append(b, "000000000000"...)
	}
	text := make([]byte, 0, 5*(len(list)+len(then)))
	text = appendHexList(text, list)
	if len(then) > 0 {
		text = appendHexList(append(text, '_'), then)
	}
	sum := sha256.Sum256(text)
	return hex.AppendEncode(b, sum[:6])
}

func appendHexList[T ~uint16](b []byte, list []T) []byte {
	for i, v := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = hex.AppendEncode(b, []byte{byte(v >> 8), byte(v)})
	}
	return b
}

// isGREASE reports whether v is a value that clients send at random, so that servers
// go on ignoring what they do not know (RFC 8701).
func isGREASE[T ~uint16](v T) bool { return v&0x0f0f == 0x0a0a && v>>8 == v&0xff }

// withoutGREASE returns a copy.
func withoutGREASE[T ~uint16](list []T) []T {
	return slices.DeleteFunc(slices.Clone(list), isGREASE[T])
}

// KeepJA4 keeps the fingerprint of a hello for [JA4Of].
// It is for package l7: see "Machinery" in the package documentation.
func KeepJA4(hello *tls.ClientHelloInfo) {
	if c := connOf(hello.Conn); c != nil {
		c.keepJA4(helloOf(hello).JA4())
	}
}

// helloOf is a hello as crypto/tls has read it.
func helloOf(hello *tls.ClientHelloInfo) *ClientHello {
	return &ClientHello{
		ServerName: hello.ServerName, ALPN: hello.SupportedProtos, Versions: hello.SupportedVersions, Groups: hello.SupportedCurves,
		CipherSuites: hello.CipherSuites, SignatureSchemes: hello.SignatureSchemes, Extensions: hello.Extensions,
	}
}

// keepJA4 keeps the fingerprint for JA4Of and the record.
func (c *Conn) keepJA4(ja4 string) {
	c.note(func(n *noted) { n.ja4 = &ja4 })
	RecordOf(c).Note(func(r *Record) { r.JA4 = ja4 })
}

// JA4Of returns the JA4 fingerprint of the client (see [ClientHello.JA4]) of c, or of
// the connection that c wraps, as a *tls.Conn does. It is empty unless a [TerminateTLS]
// or a server of package l7 was told to make it, or a matcher has.
func JA4Of(c net.Conn) string {
	for ; c != nil; c = wrappedBy(c) {
		if conn, ok := c.(*Conn); ok {
			if n := conn.noted.Load(); n != nil && n.ja4 != nil {
				return *n.ja4
			}
		}
	}
	return ""
}

// connOf returns the innermost Conn that c is, or is a wrapper of, or nil.
func connOf(c net.Conn) (conn *Conn) {
	for ; c != nil; c = wrappedBy(c) {
		if is, ok := c.(*Conn); ok {
			conn = is
		}
	}
	return conn
}

// wrappedBy returns what c is a wrapper of, nil if it is none.
func wrappedBy(c net.Conn) net.Conn {
	if w, ok := c.(interface{ NetConn() net.Conn }); ok {
		return w.NetConn()
	}
	return nil
}
