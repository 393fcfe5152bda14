// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"fmt"
	"iter"
	"math"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
)

// Choose calls a func to choose the handler, for example by a lookup in a [Map]
// or by load. If it returns nil the exchange goes to Default.
type Choose struct {
	By      func(x *Exchange) http.Handler
	Default http.Handler // nil means status 503

	checked
}

// ServeExchange implements [Handler].
func (h *Choose) ServeExchange(x *Exchange) {
	if next := h.By(x); next != nil {
		Serve(next, x)
		return
	}
	if h.Default != nil {
		Serve(h.Default, x)
		return
	}
	x.Error(http.StatusServiceUnavailable, endOf(l4.Denied, l4.PhaseRequest))
}

// ServeHTTP implements [http.Handler].
func (h *Choose) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(h, w, r) }

// PoolUsable matches while at least Min servers of a pool are usable: a route
// with it is skipped while its pool is down. A Min of 0 means 1.
type PoolUsable struct {
	Pool *balance.Pool
	Min  int
}

// Match implements [Matcher].
func (u PoolUsable) Match(*Exchange) bool { return u.Pool.Usable() >= max(1, u.Min) }

// Fallback uses the first choice whose pool has a usable server, or the last
// choice if none has.
type Fallback []PoolChoice

// A PoolChoice is a pool, and the handler to use while the pool has a usable server.
type PoolChoice struct {
	Pool    *balance.Pool
	Handler http.Handler // often a *Proxy to Pool
}

// ServeExchange implements [Handler].
func (f Fallback) ServeExchange(x *Exchange) {
	for i, c := range f {
		if i == len(f)-1 || c.Pool.Usable() > 0 {
			Serve(c.Handler, x)
			return
		}
	}
	x.Error(http.StatusServiceUnavailable, endOf(l4.Denied, l4.PhaseRequest))
}

// ServeHTTP implements [http.Handler].
func (f Fallback) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(f, w, r) }

// Split distributes exchanges among arms by weight, for canaries, blue/green
// deployments or A/B tests. The arm is that of the client's cookie, if Cookie is set and the
// client has one; otherwise that of the exchange's key, if Key is set and there is one;
// otherwise it is drawn at random. With Cookie, the client gets a cookie that keeps it there.
//
// When weights change, as few keys as possible move, and clients with a cookie do not move at
// all: new weights count for new clients only. To move them, take an arm out (see Set).
type Split struct {
	// Key, if set, returns a key that decides the arm: the same key gets the same
	// arm, on every gateway.
	Key func(x *Exchange) (key string, ok bool)

	Cookie string   // name of a session cookie that keeps clients on their arm, and that servers do not see; "" sets none
	Keys   [][]byte // seal the cookie, as in Persist

	Field string // reply field with the name of the arm; "" means none
	Seed  uint64 // for the random choice; 0 means at random

	checked
	chance chance
	arms   atomic.Pointer[[]Arm]
	seal   sealer
	arm    Key[string]
}

// An Arm is one side of a [Split].
type Arm struct {
	Name    string
	Weight  int // relative to the sum of all; 0 or negative means none: only clients with its cookie
	Handler http.Handler
}

// NewSplit returns a split over arms. It panics if something is wrong with
// them; [Split.Set] returns an error instead.
func NewSplit(arms ...Arm) *Split {
	var s Split
	if err := s.Set(arms...); err != nil {
		panic(err)
	}
	return &s
}

// Set replaces the arms, atomically. Clients whose arm is gone are assigned
// anew. If no arm has a weight, a name is there twice, or something is wrong with
// a handler, it returns an error, a [*penstock.ConfigError] or several joined, and
// the old arms stay.
func (s *Split) Set(arms ...Arm) error {
	c := newChecks()
	c.Once("", s, func(m *penstock.Mistakes) { (&checks{m}).arms(arms) })
	if err := c.Err(); err != nil {
		return err
	}
	list := append([]Arm(nil), arms...)
	s.arms.Store(&list)
	return nil
}

// ServeExchange implements [Handler].
func (s *Split) ServeExchange(x *Exchange) {
	a, renew := s.kept(x)
	if a == nil {
		if a = s.draw(x); a == nil {
			x.Error(http.StatusServiceUnavailable, endOf(l4.Denied, l4.PhaseRequest))
			return
		}
		renew = s.Cookie != ""
	}
	if renew {
		s.arm.Set(x, a.Name)
		x.OnReply(s)
	}
	if s.Field != "" {
		name := a.Name
		x.OnReply(ReplyFunc(func(_ *Exchange, r *Reply) { r.Header.Set(s.Field, name) }))
	}
	Serve(a.Handler, x)
}

// kept returns the arm that the client's cookie names, and whether the cookie is
// sealed with an old key.
func (s *Split) kept(x *Exchange) (a *Arm, old bool) {
	if s.Cookie == "" {
		return nil, false
	}
	at, ok := findCookie(&x.Header, s.Cookie)
	if !ok {
		return nil, false
	}
	value := x.Header.cookie(at)
	dropCookie(&x.Header, at, s.Cookie)
	s.init()
	o, ok := s.seal.open(value)
	if !ok {
		return nil, false
	}
	for i, arms := 0, s.list(); i < len(arms); i++ {
		if arms[i].Name == o.name {
			return &arms[i], o.old
		}
	}
	return nil, false
}

func (s *Split) init() { s.seal.init(s.Keys, s.Cookie+"\x00split", s.names()) }

func (s *Split) list() []Arm {
	if p := s.arms.Load(); p != nil {
		return *p
	}
	return nil
}

func (s *Split) names() iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, a := range s.list() {
			if !yield(a.Name) {
				return
			}
		}
	}
}

// draw returns an arm by key or at random, or nil if none has a weight. Each
// arm gets a score from its weight and a number in (0, 1). The number depends
// on the key and the arm, not on the list, so clients stay on their arm when
// the list changes (weighted rendezvous hashing: Schindelhauer and Schomaker,
// 2005).
func (s *Split) draw(x *Exchange) *Arm {
	seed := s.chance.uint64(s.Seed)
	if s.Key != nil {
		if key, ok := s.Key(x); ok {
			seed = balance.Hash(key)
		}
	}
	var best *Arm
	highest := 0.0
	for i, arms := 0, s.list(); i < len(arms); i++ {
		a := &arms[i]
		if a.Weight <= 0 {
			continue
		}
		u := (float64(mix(seed^balance.Hash(a.Name))>>11) + 0.5) / (1 << 53)
		if bid := float64(a.Weight) / -math.Log(u); best == nil || bid > highest {
			best, highest = a, bid
		}
	}
	return best
}

// EditReply implements [ReplyEditor]: it sets the cookie.
func (s *Split) EditReply(x *Exchange, r *Reply) {
	name, ok := s.arm.Get(x)
	if !ok {
		return
	}
	s.init()
	now := time.Now().Unix()
	c := http.Cookie{
		Name: s.Cookie, Value: s.seal.seal(name, now, now), Path: "/",
		HttpOnly: true, Secure: x.Scheme == "https", SameSite: http.SameSiteLaxMode,
	}
	r.Header.Add("Set-Cookie", c.String())
}

// ServeHTTP implements [http.Handler].
func (s *Split) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(s, w, r) }

// Check returns what is wrong with h and its default.
func (h *Choose) Check() error { return checkAll(h) }

func (h *Choose) check(c *checks) {
	c.Need("Choose.By", h.By, "must be the func that chooses")
	c.optional("Choose.Default", h.Default)
}

// Check returns what is wrong with f, its pools and its handlers.
func (f Fallback) Check() error { return checkAll(f) }

func (f Fallback) check(c *checks) {
	c.If(len(f) == 0, "Fallback", nil, "must have a choice")
	for i, choice := range f {
		if i < len(f)-1 { // the pool of the last is not used
			c.Need(fmt.Sprintf("Fallback[%d].Pool", i), choice.Pool, "must be the pool to check for a usable server")
		}
		c.in(fmt.Sprintf("Fallback[%d].Pool", i), choice.Pool)
		c.next(fmt.Sprintf("Fallback[%d].Handler", i), choice.Handler)
	}
}

// Check returns what is wrong with s and its arms.
func (s *Split) Check() error { return checkAll(s) }

func (s *Split) check(c *checks) {
	c.name("Split.Cookie", s.Cookie, true)
	c.keys("Split.Keys", s.Keys)
	c.name("Split.Field", s.Field, true)
	c.If(s.arms.Load() == nil, "Split.Arms", nil, "must be set: use NewSplit, or call Set")
	c.If(len(s.Keys) > 0 && s.Cookie == "", "Split.Keys", nil, "must be left out, or come with the Cookie that they seal")
	if s.arms.Load() != nil {
		c.arms(s.list())
	}
	for i, a := range s.list() {
		c.If(s.Field != "" && !validValue(a.Name), fmt.Sprintf("Split.Arms[%d].Name", i), a.Name, "must not hold control characters: Field tells it")
	}
}

func (c *checks) arms(arms []Arm) {
	names := make(map[string]bool, len(arms))
	weight := false
	for i, a := range arms {
		weight = weight || a.Weight > 0
		at := fmt.Sprintf("Split.Arms[%d]", i)
		c.If(names[a.Name], at+".Name", a.Name, "must differ from the others: cookies hold it")
		names[a.Name] = true
		c.next(at+".Handler", a.Handler)
	}
	c.If(len(arms) == 0, "Split.Arms", nil, "must have an arm: without one everything is answered 503")
	c.If(len(arms) > 0 && !weight, "Split.Arms[0].Weight", 0, "must be greater than 0 for at least one arm: otherwise clients without a cookie get none")
}
