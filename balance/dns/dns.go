// SPDX-License-Identifier: Apache-2.0

// Package dns finds the endpoints of a pool in the DNS: the addresses of a name (A and
// AAAA), or the servers of a service (SRV).
//
//	src := &dns.Source{Name: "web.internal.example", Port: 8080}
//	err := pool.Follow(ctx, src)
//
// It queries the name servers itself, since the resolver of package net does not
// return how long an answer is valid. For a test, Servers of the Source names a name server
// of its own, and DialContext reaches one in memory.
package dns

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"net"
	"reflect"
	"slices"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/balance"
)

var (
	// ErrNoName means that the name does not exist, or has no records of the kind.
	ErrNoName = errors.New("dns: no such name")
	// ErrNoAnswer means that no name server gave a usable answer in time.
	ErrNoAnswer = errors.New("dns: no answer")
)

// A Source watches a name and is a [balance.Source]. It queries again when the shortest TTL of
// the answer has passed. It also does so after Retry if a connect to a server of the pool has
// failed or a server is found down (see [balance.Doubts]); while that returns the same servers,
// the pauses grow. The fields must not change once Watch is called.
//
// Of SRV records (RFC 2782), each priority is a tier, the lowest number Tier 0 and the next one
// Tier 1, and weights are shares of their tier: the addresses of a target divide its own among
// them. An endpoint is named by its address, and has the target as its label "target".
//
// If one query fails, such as that for the IPv6 addresses or for one target of a service, its
// last answer is kept for Hold, and the answers of the others are not affected; its error is
// reported once. If no name server answers, or they say that the name does not exist, the last
// set is kept for Hold, and after that the set is empty. A pool follows an empty set only with
// [balance.Pool.AllowEmpty]: without it the addresses of a removed name stay for ever.
// [balance.Pool.SourceState] and Explain report that, and since when.
//
// A record that no server can be reached by is left out, and reported: an SRV record with
// port 0, and an address that is 0.0.0.0 or ::, as name servers with a blocklist answer. A
// connection to such an address reaches this machine (RFC 1122, section 3.2.1.3, and RFC 4291,
// section 2.5.2, have it only as a source). If nothing is left, that counts as no answer.
type Source struct {
	Name    string // a full domain name: there is no search list
	Port    int    // of all servers; SRV records bring their own
	Service string // such as "http": look up the SRV records of _Service._Proto.Name; empty means the addresses of Name
	Proto   string // "tcp" or "udp"; empty means "tcp"
	Network string // "ip4" or "ip6" for addresses of one family; empty means "ip", which is both

	Servers []string      // name servers, "host:port"; none means those of /etc/resolv.conf
	Timeout time.Duration // for one question to one name server; 0 means 2s
	Tries   int           // times that all name servers are asked before it is a failure; 0 means 2

	MinTTL time.Duration // 0 means 1s
	MaxTTL time.Duration // 0 means 5min
	Retry  time.Duration // after a failure, of a question or of a server; 0 means 5s
	Hold   time.Duration // of the last good answers; 0 means 1h, negative means no limit
	Jitter float64       // largest random reduction of the time until the next query, as a fraction of it; 0 means 0.1, negative means none
	Seed   uint64        // of the jitter; 0 means seeded at random. The ids of queries are always random, since they must not be guessed

	Edit        func(*balance.Endpoint)                                           // changes each endpoint, such as its limits; nil means none
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error) // to a name server, "udp" or "tcp"; nil means net.Dialer
}

// Watch implements [balance.Source]. It returns only when ctx ends, or if the Source
// cannot work at all.
func (s *Source) Watch(ctx context.Context, update func([]balance.Endpoint, error)) error {
	c, err := s.client()
	if err != nil {
		return err
	}
	seed := s.Seed
	if seed == 0 {
		seed = rand.Uint64()
	}
	w := &watcher{src: s, client: c, update: update, rng: rand.New(rand.NewPCG(seed, seed)), doubt: s.retry()}
	w.mem.hold = or(s.Hold, time.Hour)
	for {
		asked, doubts := time.Now(), balance.Doubts(ctx)
		ttl := w.look(ctx)
		if ctx.Err() != nil || !w.wait(ctx, ttl, asked, doubts) {
			return context.Cause(ctx)
		}
	}
}

// A watcher is the state of one Watch.
type watcher struct {
	src    *Source
	client *client
	update func([]balance.Endpoint, error)
	rng    *rand.Rand
	mem    memory

	wrong error     // in a record of the last answer
	known bool      // a set has been told that still holds
	good  time.Time // when a question was answered last
	last  []balance.Endpoint

	doubt  time.Duration // shortest time until doubts have it look again
	doubts bool          // they have
}

// look asks and tells. It returns after what time to do so again.
func (w *watcher) look(ctx context.Context) time.Duration {
	eps, ttl, err := w.round(ctx)
	if ctx.Err() != nil {
		return 0
	}
	if err != nil || !w.mem.fresh {
		if w.update(nil, cmp.Or(err, w.mem.err)); w.known && w.mem.hold > 0 && time.Since(w.good) >= w.mem.hold {
			w.known = false
			w.update(nil, nil)
		}
		return w.src.retry()
	}
	if w.mem.newFailure {
		w.update(nil, w.mem.err)
	}
	if w.doubts && reflect.DeepEqual(eps, w.last) {
		w.doubt = min(2*w.doubt, w.src.maxTTL())
	} else {
		w.doubt = w.src.retry()
	}
	w.good, w.last = time.Now(), slices.Clone(eps)
	for i := range eps { // Edit may change them
		eps[i].Labels = maps.Clone(eps[i].Labels)
	}
	if w.tell(eps); w.wrong != nil {
		w.update(nil, w.wrong)
	}
	ttl = min(max(ttl, or(w.src.MinTTL, time.Second)), w.src.maxTTL())
	if n := w.mem.fails; n > 0 {
		ttl = min(ttl, w.src.retry()<<min(n-1, 10))
	}
	return ttl
}

// tell tells a set.
func (w *watcher) tell(eps []balance.Endpoint) {
	if w.src.Edit != nil {
		for i := range eps {
			w.src.Edit(&eps[i])
		}
	}
	w.known = true
	w.update(eps, nil)
}

// wait waits for that long, or less if there are doubts about the servers. It reports
// whether ctx has not ended.
func (w *watcher) wait(ctx context.Context, ttl time.Duration, asked time.Time, doubts <-chan struct{}) bool {
	ttl = w.shorten(ttl)
	t := time.NewTimer(ttl)
	defer t.Stop()
	due := time.Now().Add(ttl)
	w.doubts = false
	for {
		select {
		case <-t.C:
			return true
		case <-doubts:
			doubts, w.doubts = nil, true
			if soon := asked.Add(w.shorten(w.doubt)); soon.Before(due) {
				t.Reset(time.Until(soon))
			}
		case <-ctx.Done():
			return false
		}
	}
}

// shorten applies the jitter, so that a fleet does not ask all at once.
func (w *watcher) shorten(d time.Duration) time.Duration {
	part := w.src.Jitter
	if part == 0 {
		part = 0.1
	}
	return d - time.Duration(w.rng.Float64()*min(max(part, 0), 1)*float64(d))
}

func (s *Source) retry() time.Duration { return or(s.Retry, 5*time.Second) }

func (s *Source) maxTTL() time.Duration { return or(s.MaxTTL, 5*time.Minute) }

// kinds returns the types of address records to ask for.
func (s *Source) kinds() []dnsmessage.Type {
	switch s.Network {
	case "ip4":
		return []dnsmessage.Type{dnsmessage.TypeA}
	case "ip6":
		return []dnsmessage.Type{dnsmessage.TypeAAAA}
	}
	return []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA}
}

// client returns what asks the name servers.
func (s *Source) client() (*client, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	c := &client{servers: s.Servers, timeout: or(s.Timeout, 2*time.Second), tries: s.Tries, dial: s.DialContext}
	if c.tries <= 0 {
		c.tries = 2
	}
	if c.dial == nil {
		c.dial = new(net.Dialer).DialContext
	}
	if len(c.servers) == 0 {
		var err error
		if c.servers, err = systemServers(); err != nil {
			return nil, &penstock.ConfigError{Field: "Source.Servers", Value: s.Servers, Reason: "is empty, and so is the system's list: " + err.Error()}
		}
	}
	return c, nil
}

// service returns the name that the SRV records have.
func (s *Source) service() string {
	proto := s.Proto
	if proto == "" {
		proto = "tcp"
	}
	return "_" + s.Service + "._" + proto + "." + s.Name
}

// or returns d, or the default if d is 0.
func or(d, none time.Duration) time.Duration {
	if d == 0 {
		return none
	}
	return d
}
