// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"iter"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/penstock-lb/penstock/balance"
)

// Persist keeps a client on its server by a cookie. A request with a valid
// cookie prefers that server, unless an outer handler has chosen one. The pool
// uses the server while it is usable or draining. Once it is down or removed,
// the pool picks another, and the reply sets the cookie of that one. A client
// whose server was only slower than another ([Hedge]) stays with it. To move clients away
// from a server that is to be stopped, put it into maintenance, see [balance.Server.Drain].
//
//	&l7.Persist{Pool: pool, Keys: keys, Next: &l7.Proxy{Pool: pool}}
//
// Values are encrypted and authenticated: a client can neither see which server
// it is on nor choose one, a cookie of one pool is not valid for another, and
// no two values are the same, so they do not reveal the number of servers.
// Gateways that share Keys and the names of servers accept each other's
// cookies.
type Persist struct {
	Pool *balance.Pool // of the servers; its Name is part of the sealed value, so it is required with Keys

	Name string // of the cookie; "" means "SERVER"
	Mode PersistMode

	// Keys seal the values, each of 16 random bytes or more. The first seals and
	// all open: to rotate keys put the new one first, and remove the old one when
	// its cookies have expired. No keys means a random one, with cookies that are
	// valid for the lifetime of this Persist. A shorter key is not used.
	Keys [][]byte

	// Plain values are the names of the servers, for cookies that other software
	// reads or writes. A client can then choose its server.
	Plain bool

	MaxIdle time.Duration // after which an unused cookie is ignored, to a tenth; 0 or negative means no limit. Not for Plain
	MaxLife time.Duration // after which a cookie is ignored in any case; 0 or negative means no limit. Not for Plain

	Domain   string
	Path     string        // "" means "/"
	SameSite http.SameSite // 0 means Lax
	Secure   bool          // set Secure also for clients without TLS; with TLS it is always set
	Script   bool          // leave out HttpOnly

	Forward   bool // let the server see an inserted cookie of this Name; those of other Persists pass in any case
	Preserve  bool // a cookie of that name that the server sets wins
	PostOnly  bool // insert in replies to POST only
	Cacheable bool // do not add Cache-Control: private to replies that set the cookie

	Next http.Handler

	checked
	once sync.Once
	seal sealer
	seen Key[opened]
}

// PersistMode says who sets the cookie.
type PersistMode uint8

const (
	CookieInsert  PersistMode = iota // the gateway: set where needed, removed from forwarded requests
	CookieRewrite                    // the server: the gateway replaces its value
	CookiePrefix                     // the server: the gateway puts its own value and "~" before the server's, and removes them from requests
	CookiePassive                    // the server, to a server name (as Plain); the gateway only reads it
)

// ServeExchange implements [Handler].
func (p *Persist) ServeExchange(x *Exchange) {
	p.init()
	if at, ok := findCookie(&x.Header, p.name()); ok {
		value := x.Header.cookie(at)
		p.use(x, value)
		switch {
		case p.Mode == CookieInsert && !p.Forward:
			dropCookie(&x.Header, at, p.name())
		case p.Mode == CookiePrefix:
			if _, own, ok := strings.Cut(value, "~"); ok {
				replaceCookie(&x.Header, at, p.name(), own)
			}
		}
	}
	if p.Mode != CookiePassive {
		x.OnReply(p)
	}
	Serve(p.Next, x)
}

// ServeHTTP implements [http.Handler].
func (p *Persist) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(p, w, r) }

func (p *Persist) init() { p.once.Do(p.start) }

func (p *Persist) start() {
	keys := p.Keys
	if p.Pool.Name == "" {
		keys = nil // other pools without a name would accept the values
	}
	p.seal.init(keys, p.name()+"\x00"+p.Pool.Name, p.names())
}

func (p *Persist) name() string {
	if p.Name == "" {
		return "SERVER"
	}
	return p.Name
}

// use makes the exchange prefer the server that value names.
func (p *Persist) use(x *Exchange, value string) {
	if p.Mode == CookiePrefix {
		var ok bool
		if value, _, ok = strings.Cut(value, "~"); !ok {
			return
		}
	}
	if p.Plain || p.Mode == CookiePassive {
		if name, err := url.QueryUnescape(value); err == nil && p.Pool.Server(name) != nil {
			p.prefer(x, opened{name: name}, false)
		}
		return
	}
	o, ok := p.seal.open(value)
	if !ok {
		return
	}
	renew := o.old
	if p.MaxIdle > 0 || p.MaxLife > 0 {
		now := time.Now().Unix()
		if o.expired(now, p.MaxIdle, p.MaxLife) {
			return
		}
		renew = renew || p.MaxIdle > 0 && age(now, o.last.unix()) > p.MaxIdle/10
	}
	p.prefer(x, o, renew)
}

// prefer makes the exchange prefer the server of a cookie, unless an outer
// handler has chosen one.
func (p *Persist) prefer(x *Exchange, o opened, renew bool) {
	first := x.Balance.Prefer == ""
	if first {
		x.Balance.Prefer, x.cookie = o.name, p
	}
	if o.old = renew; !first || renew {
		p.seen.Set(x, o)
	}
}

// named returns the server that the client's cookie names, or "", and the rest
// of the cookie's content.
func (p *Persist) named(x *Exchange) (string, opened) {
	o, noted := p.seen.Get(x)
	switch {
	case x.cookie == p:
		return x.Balance.Prefer, o
	case noted:
		return o.name, o
	}
	return "", o
}

// expired reports whether a value is too old, or from more than a day in the future.
func (o opened) expired(now int64, idle, life time.Duration) bool {
	first, last := o.first.unix(), o.last.unix()
	return idle > 0 && age(now, last) > idle || life > 0 && age(now, first) > life ||
		age(last, now) > 24*time.Hour || age(first, now) > 24*time.Hour
}

func age(now, then int64) time.Duration { return time.Duration(now-then) * time.Second }

func (p *Persist) names() iter.Seq[string] {
	return func(yield func(string) bool) {
		for s := range p.Pool.All() {
			if !yield(s.Name()) {
				return
			}
		}
	}
}

// EditReply implements [ReplyEditor].
func (p *Persist) EditReply(x *Exchange, r *Reply) {
	if r.Server == nil {
		return
	}
	if p.Mode != CookieInsert {
		p.change(r)
		return
	}
	name, old := p.named(x)
	kept := name == r.Server.Name() || x.hedgedFor(name)
	if kept && !old.old || p.PostOnly && x.Method != http.MethodPost || p.Preserve && setsCookie(&r.Header, p.name()) {
		return
	}
	first := int64(0)
	if kept {
		first = old.first.unix()
	} else {
		name = r.Server.Name()
	}
	r.Header.Add("Set-Cookie", p.line(x, p.value(name, first)))
	if !p.Cacheable && !hasItem(r.Header.Get("Cache-Control"), "private") && !hasItem(r.Header.Get("Cache-Control"), "no-store") {
		r.Header.Add("Cache-Control", "private")
	}
}

// value returns the value for a server. A first of 0 means now.
func (p *Persist) value(name string, first int64) string {
	if p.Plain {
		return url.QueryEscape(name)
	}
	now := time.Now().Unix()
	if first == 0 {
		first = now
	}
	return p.seal.seal(name, first, now)
}

func (p *Persist) line(x *Exchange, value string) string {
	c := http.Cookie{
		Name: p.name(), Value: value, Path: p.Path, Domain: p.Domain,
		Secure: p.Secure || x.Scheme == "https", HttpOnly: !p.Script, SameSite: p.SameSite,
	}
	if c.Path == "" {
		c.Path = "/"
	}
	if c.SameSite == 0 {
		c.SameSite = http.SameSiteLaxMode
	}
	return c.String()
}

// change rewrites cookies set by the server.
func (p *Persist) change(r *Reply) {
	r.Header.Edit(func(name, value string) string {
		if !equalFold(name, "Set-Cookie") {
			return value
		}
		pair, attrs, more := strings.Cut(value, ";")
		cookie, own, ok := strings.Cut(pair, "=")
		if !ok || trimOWS(cookie) != p.name() {
			return value
		}
		ours := p.value(r.Server.Name(), 0)
		if p.Mode == CookiePrefix {
			ours += "~" + trimOWS(own)
		}
		if more {
			attrs = ";" + attrs
		}
		return cookie + "=" + ours + attrs
	})
}

// setsCookie reports whether a reply sets a cookie of that name.
func setsCookie(f *Fields, name string) bool {
	for v := range f.Values("Set-Cookie") {
		if n, _, ok := strings.Cut(v, "="); ok && trimOWS(n) == name {
			return true
		}
	}
	return false
}
