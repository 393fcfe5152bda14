// SPDX-License-Identifier: Apache-2.0

package l4

import "bytes"

// TLS matches a client that begins with a TLS handshake: one record with a
// ClientHello (RFC 8446, sections 4 and 5.1), of which six bytes are looked at.
func TLS(p *Peeked) Verdict { return sniffTLS(p.Data) }

// HTTP1 matches a client that begins with an HTTP/1 request: the whole request
// line must be there, up to 16 KiB, since other protocols have a GET as well
// (RFC 9112, section 3). One empty line before it is skipped.
func HTTP1(p *Peeked) Verdict { return sniffHTTP1(p.Data, &p.noLine) }

// HTTP2 matches the preface of HTTP/2 without TLS (RFC 9113, section 3.4).
func HTTP2(p *Peeked) Verdict { return startsWith(p.Data, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") }

// SSH matches a client that speaks SSH (RFC 4253, section 4.2). Most clients
// speak at once, but some wait for the server: give the Router a Silence.
func SSH(p *Peeked) Verdict { return startsWith(p.Data, "SSH-") }

// PostgreSQL matches a client of PostgreSQL: a StartupMessage of version 3, or a
// request for TLS, GSSAPI or a cancellation. One that begins with
// TLS at once (sslnegotiation=direct) is matched by ALPN("postgresql").
//
// Source: PostgreSQL 18 documentation, section 54.7 (message formats).
func PostgreSQL(p *Peeked) Verdict { return sniffPostgreSQL(p.Data) }

// Redis matches a client that sends a command as a RESP array of bulk strings,
// as all client libraries do; not one that types inline commands.
//
// Source: https://redis.io/docs/latest/develop/reference/protocol-spec/
func Redis(p *Peeked) Verdict { return sniffRedis(p.Data) }

// RDP matches a Remote Desktop client: an X.224 connection request in a TPKT
// packet ([MS-RDPBCGR], section 2.2.1.1). [RDPCookie] reads what is in it.
func RDP(p *Peeked) Verdict { return sniffRDP(p.Data) }

// PROXYProtocol matches a connection that begins with the signature of a PROXY header:
// to reject what only a trusted proxy may send. Headers are read by [AcceptProxy],
// which is told where to expect them and does not guess.
func PROXYProtocol(p *Peeked) Verdict {
	return max(startsWith(p.Data, proxyV2Signature), startsWith(p.Data, "PROXY "))
}

// FirstBytes matches a client that begins with one of the strings.
func FirstBytes(any ...string) Matcher {
	return func(p *Peeked) Verdict {
		v := No
		for _, s := range any {
			v = max(v, startsWith(p.Data, s))
		}
		return v
	}
}

func startsWith(b []byte, s string) Verdict {
	switch {
	case !mayBegin(b, s):
		return No
	case len(b) < len(s):
		return NeedMore
	}
	return Yes
}

func sniffTLS(b []byte) Verdict {
	n, err := recordLen(b[:min(len(b), recordHeaderBytes)])
	switch {
	case len(b) < recordHeaderBytes && mayBegin(b, "\x16\x03"):
		return NeedMore
	case err != nil || n < 1:
		return No
	case len(b) == recordHeaderBytes:
		return NeedMore
	}
	return is(b[recordHeaderBytes] == typeClientHello)
}

const (
	maxMethodBytes      = 32
	maxRequestLineBytes = 16 << 10
)

// sniffHTTP1 keeps in noLine how many bytes are known to hold no end of the
// request line, so that a client that sends byte by byte costs no more than
// one that does not.
func sniffHTTP1(b []byte, noLine *int) Verdict {
	if v := startsWith(b, "\r\n"); v != No && len(b) > 0 {
		if v == NeedMore {
			return NeedMore
		}
		b = b[2:]
	}
	method := 0
	for method < len(b) && isToken(b[method]) {
		method++
	}
	switch {
	case method > maxMethodBytes:
		return No
	case method == len(b):
		return NeedMore
	case method == 0 || b[method] != ' ':
		return No
	}
	from := min(*noLine, len(b))
	end := bytes.IndexByte(b[from:], '\n')
	switch {
	case end < 0 && len(b) >= maxRequestLineBytes:
		return No
	case end < 0:
		*noLine = len(b)
		return NeedMore
	}
	if end += from; end >= maxRequestLineBytes {
		return No
	}
	line := bytes.TrimSuffix(b[:end], []byte("\r"))
	i := bytes.LastIndexByte(line, ' ')
	return is(i > method+1 && len(line)-i == len(" HTTP/1.1") && bytes.HasPrefix(line[i:], []byte(" HTTP/1.")))
}

// isToken reports whether c may be in a method (RFC 9110, section 5.6.2).
func isToken(c byte) bool {
	switch {
	case 'A' <= c && c <= 'Z', 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		return true
	}
	return bytes.IndexByte([]byte("!#$%&'*+-.^_`|~"), c) >= 0
}

func sniffPostgreSQL(b []byte) Verdict {
	_, _, v := postgresStart(b)
	return v
}

// A postgresKind is what a client of PostgreSQL may begin with.
type postgresKind uint8

const (
	postgresSession postgresKind = iota // a StartupMessage
	postgresCancel                      // a CancelRequest
	postgresSSL                         // an SSLRequest: may TLS begin?
	postgresGSS                         // a GSSENCRequest: may GSSAPI encryption begin?
)

// postgresStart reads the first packet of a client of PostgreSQL, n bytes long, as
// soon as its first 8 bytes are there. Source: PostgreSQL 18 documentation, section
// 54.7 (message formats).
func postgresStart(b []byte) (kind postgresKind, n int, v Verdict) {
	const (
		maxStartupBytes = 10000 // what the server takes
		requests        = 1234  // the "version" of requests other than a start
		cancel          = 5678
		ssl             = 5679
		gssenc          = 5680
	)
	if !mayBegin(b, "\x00\x00") {
		return 0, 0, No
	}
	if len(b) < 8 {
		return 0, 0, NeedMore
	}
	n = int(b[2])<<8 | int(b[3])
	major, minor := int(b[4])<<8|int(b[5]), int(b[6])<<8|int(b[7])
	switch {
	case major == 3:
		return postgresSession, n, is(n > 8 && n <= maxStartupBytes)
	case major == requests && minor == cancel: // the key has been longer since version 3.2
		return postgresCancel, n, is(n >= 16 && n <= maxStartupBytes)
	case major == requests && minor == ssl:
		return postgresSSL, n, is(n == 8)
	case major == requests && minor == gssenc:
		return postgresGSS, n, is(n == 8)
	}
	return 0, 0, No
}

func sniffRedis(b []byte) Verdict {
	if len(b) == 0 {
		return NeedMore
	}
	if b[0] != '*' {
		return No
	}
	digits := 1
	for digits < len(b) && '0' <= b[digits] && b[digits] <= '9' {
		digits++
	}
	switch {
	case digits > 1+7, digits > 1 && b[1] == '0': // at most 1024 * 1024 elements
		return No
	case digits == len(b):
		return NeedMore
	case digits == 1:
		return No
	}
	return startsWith(b[digits:], "\r\n$")
}

func sniffRDP(b []byte) Verdict {
	_, _, v := rdpRequest(b)
	return v
}

// rdpRequest is the variable part of the connection request at the start of b.
func rdpRequest(b []byte) (variable []byte, whole bool, v Verdict) {
	const tpktBytes, x224Bytes = 4, 7
	if !mayBegin(b, "\x03\x00") {
		return nil, false, No
	}
	if len(b) < tpktBytes+x224Bytes {
		return nil, false, NeedMore
	}
	n := int(b[2])<<8 | int(b[3])
	// The length indicator leaves out its own byte; 0xE0 is a connection
	// request of class 0.
	if n < tpktBytes+x224Bytes || int(b[4]) != n-tpktBytes-1 || b[5] != 0xE0 || b[10] != 0 {
		return nil, false, No
	}
	return b[tpktBytes+x224Bytes : min(n, len(b))], len(b) >= n, Yes
}

// RDPCookie returns what a Remote Desktop client says for the sake of a load
// balancer: name "msts" with a routing token, or "mstshash" with the beginning
// of the user's name ([MS-RDPBCGR], sections 2.2.1.1 and 3.2.5.3.1). b is how
// the connection begins. The verdict is No if there is no such cookie, NeedMore
// if b ends before it does.
func RDPCookie(b []byte) (name, value string, v Verdict) {
	variable, whole, v := rdpRequest(b)
	if v != Yes {
		return "", "", v
	}
	cookie, _, found := bytes.Cut(variable, []byte("\r\n"))
	if !found && !whole {
		if mayBegin(variable, "Cookie: msts") {
			return "", "", NeedMore
		}
		return "", "", No
	}
	cookie, ok := bytes.CutPrefix(cookie, []byte("Cookie: "))
	n, val, ok2 := bytes.Cut(cookie, []byte("="))
	if !found || !ok || !ok2 || string(n) != "msts" && string(n) != "mstshash" {
		return "", "", No
	}
	return string(n), string(val), Yes
}
