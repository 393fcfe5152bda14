// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"fmt"
	"net/http"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/penstock-lb/penstock"
)

// The methods below return what is wrong with a literal and with the literals
// in its fields, each mistake a [*penstock.ConfigError]. A [Server] calls them
// before it serves. Under another server the outermost handler does at the
// first request, which is answered 500.

// Check returns what is wrong with h and its handler.
func (h *BasicAuth) Check() error { return checkAll(h) }

func (h *BasicAuth) check(c *checks) {
	c.Need("BasicAuth.Verify", h.Verify, "must be a func that checks passwords, such as one from Passwords")
	c.If(strings.ContainsAny(h.Realm, `"\`) || !validValue(h.Realm), "BasicAuth.Realm", h.Realm, "must not hold quotes, backslashes or control characters")
	c.name("BasicAuth.UserField", h.UserField, true)
	c.next("BasicAuth.Next", h.Next)
}

// Check returns what is wrong with h and its handler.
func (h *LimitBody) Check() error { return checkAll(h) }

func (h *LimitBody) check(c *checks) {
	c.next("LimitBody.Next", h.Next)
}

// Check returns what is wrong with h and its handler.
func (h *BufferBody) Check() error { return checkAll(h) }

func (h *BufferBody) check(c *checks) {
	c.If(h.MaxBytes < 0, "BufferBody.MaxBytes", h.MaxBytes, notNegative)
	c.If(h.AtLeast < 0, "BufferBody.AtLeast", h.AtLeast, notNegative)
	c.next("BufferBody.Next", h.Next)
}

// Check returns what is wrong with h and its handler.
func (h *Capture) Check() error { return checkAll(h) }

func (h *Capture) check(c *checks) {
	for i, name := range h.Request {
		c.name(fmt.Sprintf("Capture.Request[%d]", i), name, false)
	}
	for i, name := range h.Reply {
		c.name(fmt.Sprintf("Capture.Reply[%d]", i), name, false)
	}
	c.If(h.Max < 0, "Capture.Max", h.Max, notNegative)
	c.next("Capture.Next", h.Next)
}

// Check returns what is wrong with h.
func (h *FixedReply) Check() error { return checkAll(h) }

func (h *FixedReply) check(c *checks) { c.status("FixedReply.Status", h.Status) }

// Check returns what is wrong with h.
func (h *Deny) Check() error { return checkAll(h) }

func (h *Deny) check(c *checks) { c.status("Deny.Status", h.Status) }

// Check returns what is wrong with h.
func (h *Tarpit) Check() error { return checkAll(h) }

func (h *Tarpit) check(c *checks) { c.status("Tarpit.Status", h.Status) }

// Check returns what is wrong with h, its breaker and its handlers.
func (h *CircuitBreaker) Check() error { return checkAll(h) }

func (h *CircuitBreaker) check(c *checks) {
	c.Need("CircuitBreaker.Breaker", h.Breaker, "must be a breaker, such as new(ratelimit.Breaker)")
	c.in("CircuitBreaker.Breaker", h.Breaker)
	c.optional("CircuitBreaker.Refuse", h.Refuse)
	c.next("CircuitBreaker.Next", h.Next)
}

// Check returns what is wrong with h, its matchers and its handlers.
func (h *Access) Check() error { return checkAll(h) }

func (h *Access) check(c *checks) {
	c.matcher("Access.Allow", h.Allow)
	c.matcher("Access.Deny", h.Deny)
	c.optional("Access.Refuse", h.Refuse)
	c.next("Access.Next", h.Next)
}

// Check returns what is wrong with h and its handler.
func (h *Monitor) Check() error { return checkAll(h) }

func (h *Monitor) check(c *checks) {
	c.prefix("Monitor.Path", h.Path)
	c.next("Monitor.Next", h.Next)
}

// Check returns what is wrong with h and its handler.
func (h *ErrorPages) Check() error { return checkAll(h) }

func (h *ErrorPages) check(c *checks) {
	for status := range h.Pages {
		c.status(fmt.Sprintf("ErrorPages.Pages[%d]", status), status)
	}
	c.next("ErrorPages.Next", h.Next)
}

// Check returns what is wrong with h, its edits and its handler.
func (h *EditHeader) Check() error { return checkAll(h) }

func (h *EditHeader) check(c *checks) {
	for i, e := range h.Request {
		field := fmt.Sprintf("EditHeader.Request[%d]", i)
		c.Need(field, e, "must be an edit")
		c.in(field, e)
	}
	for i, e := range h.Reply {
		field := fmt.Sprintf("EditHeader.Reply[%d]", i)
		c.Need(field, e, "must be an edit")
		c.in(field, e)
	}
	c.next("EditHeader.Next", h.Next)
}

// Check returns what is wrong with s.
func (s SetField) Check() error {
	c := newChecks()
	c.editable("SetField.Name", s.Name)
	c.If(!validValue(s.Value), "SetField.Value", s.Value, "must not hold control characters")
	return c.Err()
}

// Check returns what is wrong with a.
func (a AddField) Check() error {
	c := newChecks()
	c.editable("AddField.Name", a.Name)
	c.If(!validValue(a.Value), "AddField.Value", a.Value, "must not hold control characters")
	return c.Err()
}

// Check returns what is wrong with d.
func (d DelField) Check() error {
	c := newChecks()
	c.name("DelField.Name", d.Name, true)
	c.If(d == DelField{}, "DelField.Name", nil, "must have a criterion: Name, Prefix or another one")
	return c.Err()
}

// Check returns what is wrong with e.
func (e ReplaceField) Check() error {
	c := newChecks()
	c.editable("ReplaceField.Name", e.Name)
	c.Need("ReplaceField.Regexp", e.Regexp, "must be an expression")
	c.template("ReplaceField.With", e.Regexp, e.With)
	return c.Err()
}

// Check returns what is wrong with t and its handler.
func (t *TrustForwarded) Check() error { return checkAll(t) }

func (t *TrustForwarded) check(c *checks) {
	c.prefixes("TrustForwarded.Prefixes", t.Prefixes)
	c.next("TrustForwarded.Next", t.Next)
}

// Check returns what is wrong with g, its places and its handlers.
func (g *Gate) Check() error { return checkAll(g) }

func (g *Gate) check(c *checks) {
	c.Need("Gate.Places", g.Places, "must be a counter, such as a ratelimit.Concurrency")
	c.in("Gate.Places", g.Places)
	c.optional("Gate.Refuse", g.Refuse)
	c.next("Gate.Next", g.Next)
}

// Check returns what is wrong with l, its limiter and its handlers.
func (l *Limit[K]) Check() error { return checkAll(l) }

func (l *Limit[K]) check(c *checks) {
	c.Need("Limit.Limiter", l.Limiter, "must be a limiter, such as a ratelimit.Keyed")
	c.in("Limit.Limiter", l.Limiter)
	if _, ok := any(netip.Addr{}).(K); l.Key == nil && !ok {
		var key K
		c.If(true, "Limit.Key", nil, fmt.Sprintf("must be a func: without one the key is the client's netip.Addr, and here keys are %T", key))
	}
	c.If(strings.ContainsAny(l.Policy, "\"\\;,\r\n"), "Limit.Policy", l.Policy, "must be the name of a policy, without quotes, semicolons and commas")
	c.If(l.Window < 0, "Limit.Window", l.Window, notNegative)
	c.optional("Limit.Refuse", l.Refuse)
	c.next("Limit.Next", l.Next)
}

// Check returns what is wrong with h and its handler.
func (h *Normalize) Check() error { return checkAll(h) }

func (h *Normalize) check(c *checks) { c.next("Normalize.Next", h.Next) }

// Check returns what is wrong with h and its handler.
func (h *Redirect) Check() error { return checkAll(h) }

func (h *Redirect) check(c *checks) {
	c.If(!slices.Contains([]int{0, 301, 302, 303, 307, 308}, h.Status), "Redirect.Status", h.Status, "must be 301, 302, 303, 307 or 308, or 0 for 302")
	c.If(h.Scheme != "" && (!isScheme(h.Scheme) || strings.ToLower(h.Scheme) != h.Scheme), "Redirect.Scheme", h.Scheme, `must be a scheme in lower case and without its colon, such as "https"`)
	c.host("Redirect.Host", h.Host)
	const unused = "must be left out: To makes the whole location"
	c.If(h.To != nil && h.Host != "", "Redirect.Host", h.Host, unused)
	c.If(h.To != nil && h.Scheme != "", "Redirect.Scheme", h.Scheme, unused)
	c.If(h.Port < 0 || h.Port > 65535, "Redirect.Port", h.Port, "must be a port, from 1 to 65535, or 0")
	c.If(h.To != nil && h.Port != 0, "Redirect.Port", h.Port, unused)
	c.If(h.To != nil && h.StripPrefix != "", "Redirect.StripPrefix", h.StripPrefix, unused)
	c.If(h.To != nil && h.AddPrefix != "", "Redirect.AddPrefix", h.AddPrefix, unused)
	c.If(h.To == nil && h.Host == "" && h.Port == 0 && h.Scheme == "" && h.StripPrefix == "" && h.AddPrefix == "" && !h.AppendSlash && !h.DropQuery && h.Header.Len() == 0,
		"Redirect.To", nil, "must be set, or another field that changes the location: otherwise clients are redirected to the same URL")
	c.If(h.To == nil && h.Next != nil, "Redirect.Next", nil, "must be left out, or come with To: without it everything is sent elsewhere")
	c.If(h.Header.Has("Location"), "Redirect.Header", "Location", "must not be there: the fields above make it")
	c.prefix("Redirect.StripPrefix", h.StripPrefix)
	c.prefix("Redirect.AddPrefix", h.AddPrefix)
	c.optional("Redirect.Next", h.Next)
}

// isScheme is RFC 3986, section 3.1.
func isScheme(s string) bool {
	for i := range len(s) {
		c := lower(s[i])
		if !('a' <= c && c <= 'z') && (i == 0 || class[c]&isDigitByte == 0 && indexByte("+-.", c) < 0) {
			return false
		}
	}
	return s != ""
}

// Check returns what is wrong with h and its handler.
func (h *RequestID) Check() error { return checkAll(h) }

func (h *RequestID) check(c *checks) {
	c.name("RequestID.Field", h.Field, true)
	c.next("RequestID.Next", h.Next)
}

// Check returns what is wrong with h and its handler.
func (h *Rewrite) Check() error { return checkAll(h) }

func (h *Rewrite) check(c *checks) {
	c.prefix("Rewrite.StripPrefix", h.StripPrefix)
	c.prefix("Rewrite.AddPrefix", h.AddPrefix)
	c.If(h.Regexp == nil && h.With != "", "Rewrite.Regexp", nil, "must be the expression that With replaces")
	c.template("Rewrite.With", h.Regexp, h.With)
	c.host("Rewrite.Host", h.Host)
	c.If(h.Host != "" && h.HostOf != nil, "Rewrite.Host", h.Host, "must be left out: HostOf is called instead")
	if h.Method != "" {
		c.In("Rewrite.Method", Method(h.Method))
	}
	c.next("Rewrite.Next", h.Next)
}

// Check returns what is wrong with h and its handler.
func (h *HashBy[K]) Check() error { return checkAll(h) }

func (h *HashBy[K]) check(c *checks) {
	c.Need("HashBy.Key", h.Key, "must be a func, such as ByClient")
	c.If(!hashable[K](), "HashBy.Key", reflect.TypeFor[K](), "must return strings, numbers or addresses: pointers differ from process to process")
	c.next("HashBy.Next", h.Next)
}

// Check returns what is wrong with s, its table and its handler.
func (s *Stick) Check() error { return checkAll(s) }

func (s *Stick) check(c *checks) {
	c.Need("Stick.Key", s.Key, "must be a func, such as one from ByCookie")
	c.in("Stick.Table", s.Table)
	c.in("Stick.ByAddr", s.ByAddr)
	c.next("Stick.Next", s.Next)
}

// Check returns what is wrong with t.
func (t *StickTable) Check() error {
	var m penstock.Mistakes
	m.If(t.Max < 0, "StickTable.Max", t.Max, notNegative)
	return m.Err()
}

// Check returns what is wrong with p, its pool and its handler.
func (p *Persist) Check() error { return checkAll(p) }

func (p *Persist) check(c *checks) {
	c.Need("Persist.Pool", p.Pool, "must be the pool of the servers")
	c.in("Persist.Pool", p.Pool)
	c.name("Persist.Name", p.Name, true)
	c.If(p.Mode > CookiePassive, "Persist.Mode", uint8(p.Mode), "must be a constant of type l7.PersistMode")
	c.keys("Persist.Keys", p.Keys)
	c.If(len(p.Keys) > 0 && p.Pool != nil && p.Pool.Name == "", "Persist.Pool.Name", "", "must not be empty: it distinguishes the cookies of pools that share Keys")
	if p.Plain || p.Mode == CookiePassive {
		const reason = "must be left out: a plain value has no times"
		c.If(p.MaxIdle != 0, "Persist.MaxIdle", p.MaxIdle, reason)
		c.If(p.MaxLife != 0, "Persist.MaxLife", p.MaxLife, reason)
	}
	c.domain("Persist.Domain", p.Domain)
	if strings.HasPrefix(p.Name, "__Host-") {
		const reason = "must be left out: clients take no __Host- cookie with it (RFC 6265bis, section 4.1.3.2)"
		c.If(p.Domain != "", "Persist.Domain", p.Domain, reason)
		c.If(p.Path != "" && p.Path != "/", "Persist.Path", p.Path, reason)
	}
	c.If(!cookieAttr(p.Path) || p.Path != "" && p.Path[0] != '/', "Persist.Path", p.Path, "must begin with a slash, without semicolons, spaces or control characters")
	c.If(p.SameSite < 0 || p.SameSite > http.SameSiteNoneMode, "Persist.SameSite", int(p.SameSite), "must be a constant of type http.SameSite")
	c.next("Persist.Next", p.Next)
}

// Check returns what is wrong with w and its handler.
func (w *Wrap) Check() error { return checkAll(w) }

func (w *Wrap) check(c *checks) {
	c.Need("Wrap.With", w.With, "must be middleware of net/http")
	c.next("Wrap.Next", w.Next)
}

// host adds a mistake if a field holds something that no request can be for; "" is
// right.
func (c *checks) host(field, host string) {
	c.If(host != "" && strings.Contains(host, "*"), field, host, "must be one host: a * stands for itself")
	if host != "" && !validHost(host) {
		reason := "must be a host, or host:port"
		bare := host
		if !strings.Contains(host, "://") {
			bare = hostOf(host)
		}
		if what := Host(bare).problem(); what != "" {
			reason += ": it " + what
		}
		c.If(true, field, host, reason)
	}
}

// domain adds a mistake for what is no domain of a cookie (RFC 6265, section 5.2.3).
func (c *checks) domain(field, domain string) {
	c.If(domain != "" && (!validHost(domain) || !cookieAttr(domain) || hostPort(domain) != "" || strings.Contains(domain, "*")), field, domain,
		"must be a domain alone, such as example.com, in ASCII")
}

// template adds a mistake if what takes the place of an expression has a group that the
// expression has not: nothing would stand there.
func (c *checks) template(field string, e *regexp.Regexp, with string) {
	if e == nil {
		return
	}
	for rest := with; ; {
		_, after, ok := strings.Cut(rest, "$")
		if !ok {
			return
		}
		if rest = after; strings.HasPrefix(rest, "$") {
			rest = rest[1:]
			continue
		}
		inner := strings.TrimPrefix(rest, "{")
		name := inner[:len(inner)-len(strings.TrimLeft(inner, groupBytes))]
		n, err := strconv.Atoi(name)
		switch {
		case name == "", err == nil && n <= e.NumSubexp(), e.SubexpIndex(name) >= 0:
			continue
		}
		reason := fmt.Sprintf("has $%s, but the expression has no such group: a dollar is written $$", name)
		if digits := name[:len(name)-len(strings.TrimLeft(name, "0123456789"))]; digits != "" && digits != name {
			reason = fmt.Sprintf("has $%s, but the expression has no such group: write ${%s}%s", name, digits, name[len(digits):])
		}
		c.If(true, field, with, reason)
	}
}

const groupBytes = "0123456789_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
