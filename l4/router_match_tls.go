// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"slices"
	"strings"
)

// SNI matches a TLS client that asks for one of the names: by its ClientHello,
// or, if the TLS of the connection was ended here, by what was said then.
//
// Case does not matter. A name whose first label is * stands for any one label
// in its place, as in a certificate (RFC 9525, section 6.3): *.a.test takes
// b.a.test, neither a.test nor c.b.a.test. Anywhere else a * is an ordinary
// character. An empty name takes clients that send none.
func SNI(names ...string) Matcher {
	set := make(map[string]bool, len(names))
	for _, n := range names {
		set[canonicalName(n)] = true
	}
	return func(p *Peeked) Verdict {
		name, v := serverName(p)
		if v != Yes {
			return v
		}
		name = canonicalName(name)
		return is(set[name] || set[wildcardOf(name)])
	}
}

func serverName(p *Peeked) (string, Verdict) {
	if state := p.Conn.TLS(); state != nil {
		return state.ServerName, Yes
	}
	h, v := p.Hello()
	if v != Yes {
		return "", v
	}
	return h.ServerName, Yes
}

// canonicalName is name in the one form in which names are compared.
func canonicalName(name string) string {
	return strings.ToLower(strings.TrimSuffix(name, "."))
}

// wildcardOf is the name with * for its first label; "*" for a name of one
// label or less, which no name sent can equal.
func wildcardOf(name string) string {
	if i := strings.IndexByte(name, '.'); i > 0 {
		return "*" + name[i:]
	}
	return "*"
}

// ALPN matches a TLS client that offers at least one of the protocols, as in
// [RFC 7301]: "h2", "http/1.1", "postgresql". If the TLS of the connection was
// ended here, it is the protocol that was agreed on that counts.
//
// [RFC 7301]: https://www.rfc-editor.org/rfc/rfc7301
func ALPN(protocols ...string) Matcher {
	return func(p *Peeked) Verdict {
		if state := p.Conn.TLS(); state != nil {
			return is(slices.Contains(protocols, state.NegotiatedProtocol))
		}
		h, v := p.Hello()
		if v != Yes {
			return v
		}
		return is(slices.ContainsFunc(h.ALPN, func(s string) bool { return slices.Contains(protocols, s) }))
	}
}

// TLSVersion matches a TLS client whose highest version is from lowest to highest,
// both included: [tls.VersionTLS10] to [tls.VersionTLS13]. If the TLS of the
// connection was ended here, it is the version in use that counts.
func TLSVersion(lowest, highest uint16) Matcher {
	return func(p *Peeked) Verdict {
		if state := p.Conn.TLS(); state != nil {
			return is(lowest <= state.Version && state.Version <= highest)
		}
		h, v := p.Hello()
		if v != Yes {
			return v
		}
		best := h.MaxVersion()
		return is(lowest <= best && best <= highest)
	}
}

// JA4 matches a TLS client that has one of the fingerprints: by its ClientHello, or, if
// the TLS of the connection was ended here, by the one that was kept then
// ([TerminateTLS.JA4]). A matcher of your own that looks at a part of it calls
// [Peeked.JA4].
func JA4(fingerprints ...string) Matcher {
	return func(p *Peeked) Verdict {
		ja4, v := p.JA4()
		if v != Yes {
			return v
		}
		return is(slices.Contains(fingerprints, ja4))
	}
}

func is(match bool) Verdict {
	if match {
		return Yes
	}
	return No
}
