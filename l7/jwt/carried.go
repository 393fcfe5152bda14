// SPDX-License-Identifier: Apache-2.0

package jwt

import (
	"net/url"
	"strings"

	"github.com/penstock-lb/penstock/l7"
)

// carried looks for the token in all places where a request may have it. A server might
// read another one of two, so a request with more than one is not valid (RFC 6750,
// section 2).
func (h *Verify) carried(x *l7.Exchange) (token string, n int) {
	take := func(t string) { token, n = t, n+1 }
	if h.Header != "" || h.Cookie == "" && h.Query == "" {
		name := h.Header
		if name == "" {
			name = "Authorization"
		}
		for v := range x.Header.Values(name) {
			if t, ok := bearer(v); ok {
				take(t)
			} else if h.Header != "" && !strings.EqualFold(name, "Authorization") {
				take(v)
			} else {
				n++ // other credentials, which are no token
			}
		}
	}
	if h.Cookie != "" {
		for line := range x.Header.Values("Cookie") {
			for pair := range strings.SplitSeq(line, ";") {
				if name, value, ok := strings.Cut(strings.TrimSpace(pair), "="); ok && strings.TrimSpace(name) == h.Cookie {
					take(strings.TrimSpace(value))
				}
			}
		}
	}
	if h.Query != "" {
		eachQuery(x.Query, func(raw, name, value string) {
			if name == h.Query {
				take(value)
			}
		})
	}
	return token, n
}

// bearer returns the token of credentials of that scheme (RFC 6750, section 2.1).
func bearer(v string) (string, bool) {
	const scheme = "bearer "
	if len(v) < len(scheme) || !strings.EqualFold(v[:len(scheme)], scheme) {
		return "", false
	}
	return strings.Trim(v[len(scheme):], " "), true
}

// eachQuery calls do for each parameter, as it came and decoded. One that cannot be
// decoded is as it came.
func eachQuery(query string, do func(raw, name, value string)) {
	for raw := range strings.SplitSeq(strings.TrimPrefix(query, "?"), "&") {
		name, value, _ := strings.Cut(raw, "=")
		do(raw, unescaped(name), unescaped(value))
	}
}

func unescaped(s string) string {
	if t, err := url.QueryUnescape(s); err == nil {
		return t
	}
	return s
}

// hide removes the token from what goes on to the servers, unless it is forwarded, and
// from the record.
func (h *Verify) hide(x *l7.Exchange) {
	if h.Query != "" && x.Record.Query != "" {
		x.Record.Query = h.withoutQuery(x.Record.Query, h.Query+"=*")
	}
	if h.Forward {
		return
	}
	switch {
	case h.Header != "":
		x.Header.Del(h.Header)
	case h.Cookie == "" && h.Query == "":
		x.Header.Del("Authorization")
	}
	if h.Query != "" {
		x.Query = h.withoutQuery(x.Query, "")
	}
	if h.Cookie != "" && x.Header.Has("Cookie") {
		x.Header.Edit(func(name, value string) string {
			if strings.EqualFold(name, "Cookie") {
				return withoutCookie(value, h.Cookie)
			}
			return value
		})
		x.Header.DelFunc(func(name, value string) bool { return value == "" && strings.EqualFold(name, "Cookie") })
	}
}

// withoutQuery returns the query with instead in the place of the token; "" removes it.
func (h *Verify) withoutQuery(query, instead string) string {
	if !strings.Contains(unescaped(query), h.Query) {
		return query
	}
	var b strings.Builder
	found := false
	eachQuery(query, func(raw, name, _ string) {
		if name == h.Query {
			if found = true; instead == "" {
				return
			}
			raw = instead
		}
		if b.Len() == 0 {
			b.WriteByte('?')
		} else {
			b.WriteByte('&')
		}
		b.WriteString(raw)
	})
	if !found {
		return query
	}
	return b.String()
}

// withoutCookie returns a line of cookies without those of that name. The bytes of
// others stay.
func withoutCookie(line, name string) string {
	keep := ""
	found := false
	for pair := range strings.SplitSeq(line, ";") {
		if n, _, _ := strings.Cut(pair, "="); strings.TrimSpace(n) == name {
			found = true
			continue
		}
		if len(keep) > 0 {
			keep += ";"
		}
		keep += pair
	}
	if !found {
		return line
	}
	return strings.TrimSpace(keep)
}
