// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/netip"
	"strings"
)

// SetForwarded is a [FieldEdit] of requests that writes Forwarded (RFC 7239)
// with nodes of the host's choice: the other end's port, a name that tells
// nothing. It goes with a Proxy whose Forward is ForwardNone. What a client
// sent is dropped, unless [TrustForwarded] believes it: then the element is
// put behind that of others.
type SetForwarded struct {
	For func(x *Exchange) string // who sent the request; nil means the other end's address
	By  func(x *Exchange) string // who took it; nil leaves it out

	Host, Proto bool // tell the host and the scheme that were asked for
}

// EditFields implements [FieldEdit]. A node is an address, an address with a
// port, or an obfuscated name, "_" and some letters, digits or ._-; what is
// none of these becomes "unknown".
func (e SetForwarded) EditFields(x *Exchange, f *Fields) {
	var b strings.Builder
	if x.trusted {
		for v := range f.Values("Forwarded") {
			b.WriteString(v)
			b.WriteString(", ")
		}
	}
	f.Del("Forwarded")
	node := x.Remote.Addr().String()
	if e.For != nil {
		node = e.For(x)
	}
	b.WriteString("for=" + forwardedNode(node))
	if e.By != nil {
		b.WriteString(";by=" + forwardedNode(e.By(x)))
	}
	if e.Host && x.Record.Host != "" {
		b.WriteString(`;host="` + x.Record.Host + `"`)
	}
	if e.Proto {
		b.WriteString(";proto=" + x.Scheme)
	}
	f.edited = true
	f.list = append(f.list, Field{Name: "Forwarded", Value: b.String()}) // of no kind: the proxy lets it pass
}

// forwardedNode writes a node (RFC 7239, section 6), quoted unless it is an
// IPv4 address.
func forwardedNode(s string) string {
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		if a = a.Unmap(); a.Is4() {
			return a.String()
		}
		return `"[` + a.WithZone("").String() + `]"`
	}
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return `"` + netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port()).String() + `"`
	}
	if isObfuscated(s) {
		return `"` + s + `"`
	}
	return "unknown"
}

// isObfuscated reports whether s is an obfnode (RFC 7239, section 6.3).
func isObfuscated(s string) bool {
	if len(s) < 2 || s[0] != '_' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !isUnreserved(c) && c != '_' || c == '~' {
			return false
		}
	}
	return true
}

// A hop is an element of Forwarded.
type hop struct{ node, proto string }

// parseForwarded appends the elements of a Forwarded field to hops. It fails
// for what is not one (RFC 7239, section 4): a parameter without a value or
// twice in an element, a quote left open, a node that is no node.
func parseForwarded(hops []hop, v string) ([]hop, bool) {
	for v = trimOWS(v); v != ""; {
		var h hop
		seen := 0 // bits: for, by, host, proto
		for v != "" && v[0] != ',' {
			if v[0] == ';' {
				v = v[1:]
				continue
			}
			name, value, rest, ok := forwardedPair(v)
			if !ok {
				return hops, false
			}
			v = rest
			bit := 0
			switch strings.ToLower(name) {
			case "for":
				bit, h.node = 1, value
				ok = isNode(value)
			case "by":
				bit, ok = 2, isNode(value)
			case "host":
				bit, ok = 4, validHost(value)
			case "proto":
				bit, h.proto = 8, strings.ToLower(value)
				ok = isToken(value)
			}
			if !ok || seen&bit != 0 {
				return hops, false
			}
			seen |= bit
		}
		hops = append(hops, h)
		v = trimOWS(strings.TrimPrefix(v, ","))
	}
	return hops, true
}

// forwardedPair cuts "name=value" off v, which ends at a semicolon, a comma
// with or without space before it, or the end.
func forwardedPair(v string) (name, value, rest string, ok bool) {
	name, rest, ok = strings.Cut(v, "=")
	if !ok || !isToken(name) {
		return "", "", "", false
	}
	if strings.HasPrefix(rest, `"`) {
		var b strings.Builder
		i := 1
		for ; i < len(rest) && rest[i] != '"'; i++ {
			if rest[i] == '\\' {
				if i++; i == len(rest) {
					return "", "", "", false
				}
			}
			b.WriteByte(rest[i])
		}
		if i == len(rest) {
			return "", "", "", false // the quote is left open
		}
		value, rest = b.String(), rest[i+1:]
	} else {
		i := 0
		for i < len(rest) && class[rest[i]]&isTokenByte != 0 {
			i++
		}
		if i == 0 {
			return "", "", "", false
		}
		value, rest = rest[:i], rest[i:]
	}
	rest = strings.TrimLeft(rest, " \t")
	return name, value, rest, rest == "" || rest[0] == ';' || rest[0] == ','
}

// isNode reports whether s is a node, with or without a port (RFC 7239,
// section 6). An IPv6 address has brackets.
func isNode(s string) bool {
	if strings.EqualFold(s, "unknown") || isObfuscated(s) {
		return true
	}
	if name, port, ok := strings.Cut(s, ":"); ok && (strings.EqualFold(name, "unknown") || isObfuscated(name)) {
		return isObfuscated(port) || port != "" && len(port) <= 5 && all(port, isDigitByte)
	}
	if _, ok := parseNode(s); !ok {
		return false
	}
	return s[0] == '[' || strings.Count(s, ":") <= 1
}

// standard finds the client among the elements of Forwarded, from the right,
// and the scheme that it was told of with. A node that is no address, or a
// field that is not valid, is as far as it goes.
func (t *TrustForwarded) standard(x *Exchange) (client netip.Addr, scheme string) {
	client = x.Remote.Addr()
	var room [8]hop
	hops := room[:0]
	for v := range x.Header.Values("Forwarded") {
		var ok bool
		if hops, ok = parseForwarded(hops, v); !ok {
			hops = hops[:0] // what stands left of it cannot be told from it
		}
	}
	for i := len(hops) - 1; i >= 0; i-- {
		if p := hops[i].proto; httpScheme(p) != "" {
			scheme = p
		}
		a, ok := parseNode(hops[i].node)
		if !ok {
			return client, scheme
		}
		if client = a; !t.trusts(a) {
			return client, scheme
		}
	}
	return client, scheme
}
