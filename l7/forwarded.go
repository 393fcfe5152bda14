// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/netip"
	"strings"
)

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

// parseForwarded appends the elements of a Forwarded field to hops. It fails if
// the field is malformed (RFC 7239, section 4): a parameter without a value or
// twice in an element, an open quote, a malformed node.
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
			return "", "", "", false // open quote
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

// parseNode reads an address, with or without a port.
func parseNode(s string) (netip.Addr, bool) {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap(), true
	}
	a, err := netip.ParseAddr(strings.Trim(s, "[]"))
	return a.Unmap(), err == nil
}
