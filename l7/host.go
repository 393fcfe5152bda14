// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"
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

// authority returns the host that the client asked for. If an HTTP/1.0 request
// has none, it is the local address of the connection (as in RFC 7230, section
// 5.5), or "" if that is not known either.
func (x *Exchange) authority() string {
	if x.Host == "" && x.Local.IsValid() {
		return x.Local.String()
	}
	return x.Host
}

// sameAuthority reports whether two valid authorities under a scheme are the
// same once they are normalised (RFC 3986, sections 6.2.2.1 and 6.2.3).
func sameAuthority(a, b, scheme string) bool {
	return equalFold(a, b) || equalFold(withoutDefaultPort(a, scheme), withoutDefaultPort(b, scheme))
}

// withoutDefaultPort returns a valid host[:port] without a port that is empty
// or the default of the scheme.
func withoutDefaultPort(s, scheme string) string {
	switch port := hostPort(s); {
	case port == "", port == "80" && equalFold(scheme, "http"), port == "443" && equalFold(scheme, "https"):
		return hostName(s)
	}
	return s
}

// sameHost reports whether the Host field of a request names the authority that its
// target, or :authority, gives: only then is the request for one entity (RFC 9110,
// section 7.2; RFC 9113, section 8.3.1). It is the same over HTTP/1 and HTTP/2.
func sameHost(method, host, authority, scheme string) bool {
	if method == http.MethodConnect {
		return sameTarget(host, authority)
	}
	return sameAuthority(host, authority, scheme)
}

// sameTarget reports whether the Host of a CONNECT is that of its target, which
// has a port (RFC 9110, section 9.3.6). CONNECT has no scheme, and so no default port,
// but clients leave out of Host those that are the defaults of http and https.
func sameTarget(host, target string) bool {
	return equalFold(host, target) || equalFold(withoutDefaultPort(host, "http"), withoutDefaultPort(target, "http")) ||
		equalFold(withoutDefaultPort(host, "https"), withoutDefaultPort(target, "https"))
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

// hostOf returns the host of a Host field in lower case, without the port and a
// trailing dot.
func hostOf(host string) string {
	end := len(host)
	upper := false
	for i := len(host) - 1; i >= 0; i-- {
		switch c := host[i]; {
		case c == ']':
			return strings.ToLower(host[:i+1])
		case c == ':':
			end = i
		case 'A' <= c && c <= 'Z':
			upper = true
		}
	}
	host = strings.TrimSuffix(host[:end], ".")
	if upper {
		host = strings.ToLower(host)
	}
	return host
}
