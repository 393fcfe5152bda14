// SPDX-License-Identifier: Apache-2.0

// Package dns finds the endpoints of a pool in the DNS: the addresses of a name (A and
// AAAA), or the servers of a service (SRV).
//
//	src := &dns.Source{Name: "web.internal.example", Port: 8080}
//	err := pool.Follow(ctx, src)
//
// It asks the name servers itself, as the resolver of package net does not tell how
// long an answer is valid.
package dns

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/balance"
)

var (
	// ErrNoName means that the name does not exist, or has no records of the kind.
	ErrNoName = errors.New("dns: no such name")
	// ErrNoAnswer means that no name server gave a usable answer in time.
	ErrNoAnswer = errors.New("dns: no answer")
)

// A Source watches a name and is a [balance.Source]. It asks again when the shortest
// TTL of the answer has passed. Its fields must not change once Watch is called.
//
// If a name server fails or says that the name does not exist, the last set stays for
// Hold; then the source says that there is none. (A pool follows that only with
// [balance.Pool.AllowEmpty].)
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
	Retry  time.Duration // after a failure; 0 means 5s
	Hold   time.Duration // of the last good set; 0 means 1h, negative means for ever
	Jitter float64       // of the time until the next question, as a part of it, which only makes it shorter; 0 means 0.1, negative means none
	Seed   uint64        // of the jitter; 0 means seeded at random. The ids of questions are always random, as nobody must guess them

	Edit        func(*balance.Endpoint)                                           // has the last word on each endpoint, such as its limits; nil means none
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
	rng := rand.New(rand.NewPCG(seed, seed))
	var good time.Time // of the last answer
	known := false
	for {
		eps, ttl, err := s.lookup(ctx, c)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil:
			good, known = time.Now(), true
			update(eps, nil)
			ttl = min(max(ttl, or(s.MinTTL, time.Second)), or(s.MaxTTL, 5*time.Minute))
		default:
			update(nil, err)
			if hold := or(s.Hold, time.Hour); known && hold > 0 && time.Since(good) >= hold {
				known = false
				update(nil, nil)
			}
			ttl = or(s.Retry, 5*time.Second)
		}
		t := time.NewTimer(s.shorten(ttl, rng))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		}
	}
}

// shorten applies the jitter, so that a fleet does not ask all at once.
func (s *Source) shorten(d time.Duration, rng *rand.Rand) time.Duration {
	part := s.Jitter
	if part == 0 {
		part = 0.1
	}
	return d - time.Duration(rng.Float64()*min(max(part, 0), 1)*float64(d))
}

// lookup returns the endpoints and how long they are valid.
func (s *Source) lookup(ctx context.Context, c *client) ([]balance.Endpoint, time.Duration, error) {
	var eps []balance.Endpoint
	var ttl time.Duration
	var err error
	if s.Service == "" {
		eps, ttl, err = s.addresses(ctx, c)
	} else {
		eps, ttl, err = s.services(ctx, c)
	}
	if err != nil {
		return nil, 0, err
	}
	if s.Edit != nil {
		for i := range eps {
			s.Edit(&eps[i])
		}
	}
	return eps, ttl, nil
}

// addresses makes one endpoint of each address of the name.
func (s *Source) addresses(ctx context.Context, c *client) ([]balance.Endpoint, time.Duration, error) {
	addrs, ttl, err := c.addresses(ctx, s.Name, s.Network)
	if err != nil {
		return nil, 0, err
	}
	eps := make([]balance.Endpoint, len(addrs))
	for i, a := range addrs {
		eps[i] = balance.Endpoint{Addr: net.JoinHostPort(a.String(), fmt.Sprint(s.Port))}
	}
	return eps, ttl, nil
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
