// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/netip"
	"strings"
)

// validHost reports whether s is uri-host [ ":" port ] (RFC 9112, section 3.2),
// not empty.
func validHost(s string) bool {
	host := s
	if s != "" && s[0] == '[' {
		i := strings.IndexByte(s, ']')
		if i < 0 {
			return false
		}
		a, err := netip.ParseAddr(s[1:i])
		if err != nil || !a.Is6() || a.Zone() != "" {
			return false
		}
		if host = s[i+1:]; host == "" {
			return true
		}
		return host[0] == ':' && validPort(host[1:])
	}
	if i := strings.IndexByte(s, ':'); i >= 0 {
		if !validPort(s[i+1:]) {
			return false
		}
		host = s[:i]
	}
	if host == "" || !all(host, isHostByte) {
		return false
	}
	for i := 0; i < len(host); i++ {
		if host[i] == '%' && (i+2 >= len(host) || class[host[i+1]]&class[host[i+2]]&isHexByte == 0) {
			return false
		}
	}
	return true
}

func validPort(s string) bool {
	n := 0
	for i := 0; i < len(s); i++ {
		if class[s[i]]&isDigitByte == 0 {
			return false
		}
		if n = n*10 + int(s[i]-'0'); n > 65535 {
			return false
		}
	}
	return true
}

// hostPort returns the port of a valid host[:port], or "".
func hostPort(s string) string {
	if i := strings.LastIndexByte(s, ':'); i >= 0 && strings.IndexByte(s[i:], ']') < 0 {
		return s[i+1:]
	}
	return ""
}

// hostName returns a valid host[:port] without the port.
func hostName(s string) string {
	if i := strings.LastIndexByte(s, ':'); i >= 0 && strings.IndexByte(s[i:], ']') < 0 {
		return s[:i]
	}
	return s
}
