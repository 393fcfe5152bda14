// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"fmt"
	"net/netip"
	"strings"
)

// Host matches the request's host, such as "example.com"; case, a port and a
// trailing dot are ignored. "*.example.com" matches every name below
// example.com, at any depth, and not example.com itself. "*" and "" match every
// host.
type Host string

// Match implements [Matcher].
func (h Host) Match(x *Exchange) bool {
	want, have := h.clean(), hostOf(x.Host)
	if suffix, ok := strings.CutPrefix(want, "*"); ok {
		return suffix == "" || len(have) > len(suffix) && strings.HasSuffix(have, suffix)
	}
	return want == have
}

// clean returns the pattern in normalized form.
func (h Host) clean() string {
	if h == "" {
		return "*"
	}
	return strings.ToLower(strings.TrimSuffix(string(h), "."))
}

func (h Host) problem() string {
	s := h.clean()
	rest, wild := strings.CutPrefix(s, "*")
	_, afterScheme, scheme := strings.Cut(s, "://")
	_, notIPv6 := netip.ParseAddr(s)
	switch {
	case s == "*":
	case scheme:
		host, _, _ := strings.Cut(afterScheme, "/")
		return fmt.Sprintf("has a scheme: write the host alone, %q, and match the scheme by Scheme", hostOf(host))
	case strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 }):
		return "is not in ASCII: write the form that clients send, as in xn--bcher-kva.example for bücher.example (punycode)"
	case notIPv6 == nil && strings.Contains(s, ":"):
		return fmt.Sprintf("is an address without brackets: write %q", "["+s+"]")
	case strings.HasPrefix(s, "[") && !strings.Contains(s, "]"):
		return "has a bracket that is not closed"
	case wild && rest[0] != '.', strings.Contains(rest, "*"):
		return "has a * that is not its first label"
	case rest == "" || rest == "." || strings.Contains(rest, ".."):
		return "has an empty label"
	case rest[0] == '.' && !wild:
		return fmt.Sprintf("has an empty label: write %q for every name below it", "*"+rest)
	case hostOf(rest) != rest:
		return "has a port; match it with LocalPort"
	case !strings.HasPrefix(rest, "[") && !all(rest, isHostByte):
		return "has a byte that no host has"
	}
	return ""
}
