// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/netip"
	"strconv"
)

// Forward selects the fields that tell a server the client's address, its scheme, and
// the host that it asked for. Such fields from the client are dropped, in all
// spellings, unless [TrustForwarded] has found that they come from a trusted proxy.
// Fields that a handler sets, also one of net/http inside a native one, are sent
// unchanged in place of ours, whatever the mode. A line that middleware of net/http sets to
// just what the client has sent cannot be told from the client's, and is dropped.
type Forward uint8

const (
	ForwardX        Forward = iota // X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host
	ForwardStandard                // Forwarded (RFC 7239)
	ForwardBoth                    // all four
	ForwardNone                    // none
)

// appendRequest appends the head of the request as it is sent to a server.
func appendRequest(b []byte, x *Exchange, p *Proxy) []byte {
	b = append(b, x.Method...)
	b = append(b, ' ')
	if x.Path == "" {
		b = append(b, x.Host...) // CONNECT
	}
	b = append(b, x.Path...)
	b = append(b, x.Query...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	if x.Host != "" {
		b = append(b, x.Host...)
	} else {
		b = append(b, x.authority()...) // many servers refuse an empty one
	}
	b = append(b, "\r\n"...)
	for i := range x.Header.list {
		fd := &x.Header.list[i]
		if fd.kind != kindOther && (fd.kind.owned() || fd.kind == kindExpect || fd.kind == kindForwarded && !(x.trusted && p.Forward != ForwardNone)) {
			continue
		}
		if fd.kind == kindForwarded && x.joins(p.Forward, fd.Name) {
			continue // joined below
		}
		if fd.kind == kindTrailer && x.ContentLength >= 0 {
			continue // HTTP/1 has no trailer after a body of known length
		}
		b = append(b, fd.Name...)
		b = append(b, ": "...)
		b = append(b, fd.Value...)
		b = append(b, "\r\n"...)
	}
	b = appendForwarded(b, x, p.Forward)
	if p.Via != "" {
		b = append(b, "Via: "...)
		b = append(b, x.viaVersion()...)
		b = append(append(b, p.Via...), "\r\n"...)
	}
	switch {
	case x.ContentLength > 0:
		b = append(b, "Content-Length: "...)
		b = append(strconv.AppendInt(b, x.ContentLength, 10), "\r\n"...)
	case x.ContentLength < 0:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	case bodyExpected(x.Method):
		b = append(b, "Content-Length: 0\r\n"...)
	}
	if x.expect {
		b = append(b, "Expect: 100-continue\r\n"...)
	}
	switch {
	case x.upgrade != "":
		b = append(b, "Connection: Upgrade\r\nUpgrade: "...)
		b = append(b, x.upgrade...)
		b = append(b, "\r\n"...)
	case x.trailers && x.lastOne:
		b = append(b, "Connection: close, TE\r\nTE: trailers\r\n"...)
	case x.trailers:
		b = append(b, "Connection: TE\r\nTE: trailers\r\n"...)
	case x.lastOne:
		b = append(b, "Connection: close\r\n"...)
	}
	return append(b, "\r\n"...)
}

// viaVersion names the protocol of the request for Via.
func (x *Exchange) viaVersion() string {
	switch x.proto {
	case 0:
		return "1.0 "
	case 1:
		return "1.1 "
	}
	return strconv.Itoa(int(x.proto)) + ".0 "
}

// joins reports whether a forwarding field is rewritten, with its trusted
// values first.
func (x *Exchange) joins(mode Forward, name string) bool {
	if equalFold(name, "forwarded") {
		return x.tellsStandard(mode)
	}
	return x.tellsX(mode) && (equalFold(name, "x-forwarded-for") || equalFold(name, "x-forwarded-proto") || equalFold(name, "x-forwarded-host"))
}

// tellsX reports whether the X-Forwarded fields are written: because of the
// mode, or because there are such fields that are trusted.
func (x *Exchange) tellsX(mode Forward) bool {
	return mode == ForwardX || mode == ForwardBoth ||
		mode == ForwardStandard && x.trusted && !x.rfc7239 && x.Header.Has("X-Forwarded-For")
}

// tellsStandard is tellsX for Forwarded.
func (x *Exchange) tellsStandard(mode Forward) bool {
	return mode == ForwardStandard || mode == ForwardBoth ||
		mode == ForwardX && x.trusted && x.rfc7239 && x.Header.Has("Forwarded")
}

// appendForwarded appends the forwarding fields.
func appendForwarded(b []byte, x *Exchange, mode Forward) []byte {
	if x.tellsX(mode) {
		b = appendX(b, x)
	}
	if x.tellsStandard(mode) {
		b = appendStandard(b, x)
	}
	return b
}

// foundClient reports whether a trusted proxy has named a client: in Forwarded
// if rfc7239 is set, else in X-Forwarded-For.
func (x *Exchange) foundClient(rfc7239 bool) bool {
	return x.trusted && x.rfc7239 == rfc7239 && x.Client.IsValid() && x.Client != x.Remote.Addr()
}

// claimed returns the host that the client asked for, and how it spoke: what a proxy
// of ours has said of that counts.
func (x *Exchange) claimed() (host, proto string) {
	host, proto = x.Record.Host, x.Scheme
	if x.trusted {
		host = cmpOr(x.Header.lastClaim("X-Forwarded-Host"), host)
		proto = cmpOr(x.Header.lastClaim("X-Forwarded-Proto"), proto)
	}
	return host, proto
}

// appendX appends the X-Forwarded fields, each on one line.
func appendX(b []byte, x *Exchange) []byte {
	host, proto := x.claimed()
	h := &x.Header
	if a := x.Remote.Addr(); a.IsValid() && !h.setByHost("X-Forwarded-For") {
		b = append(b, "X-Forwarded-For: "...)
		if x.trusted {
			for v := range x.Header.claims("X-Forwarded-For") {
				b = append(append(b, v...), ", "...)
			}
		}
		if x.foundClient(true) {
			b = append(x.Client.AppendTo(b), ", "...)
		}
		b = append(a.AppendTo(b), "\r\n"...)
	}
	if !h.setByHost("X-Forwarded-Proto") {
		b = append(b, "X-Forwarded-Proto: "...)
		b = append(append(b, proto...), "\r\n"...)
	}
	if host != "" && !h.setByHost("X-Forwarded-Host") {
		b = append(b, "X-Forwarded-Host: "...)
		b = append(append(b, host...), "\r\n"...)
	}
	return b
}

// appendStandard appends Forwarded (RFC 7239, section 4).
func appendStandard(b []byte, x *Exchange) []byte {
	if x.Header.setByHost("Forwarded") {
		return b
	}
	b = append(b, "Forwarded: "...)
	if x.trusted {
		for v := range x.Header.claims("Forwarded") {
			b = append(append(b, v...), ", "...)
		}
	}
	if x.foundClient(false) { // RFC 7239, section 7.4
		b = append(appendNode(append(b, "for="...), x.Client), ", "...)
	}
	b = appendNode(append(b, "for="...), x.Remote.Addr())
	if x.Record.Host != "" {
		b = append(b, `;host="`...)
		b = append(append(b, x.Record.Host...), '"')
	}
	b = append(b, ";proto="...)
	return append(append(b, x.Scheme...), "\r\n"...)
}

// appendNode appends a node (RFC 7239, section 6).
func appendNode(b []byte, a netip.Addr) []byte {
	switch {
	case !a.IsValid():
		return append(b, "unknown"...)
	case a.Is4():
		return a.AppendTo(b)
	}
	return append(a.AppendTo(append(b, `"[`...)), `]"`...)
}
