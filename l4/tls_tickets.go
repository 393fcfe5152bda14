// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/penstock-lb/penstock"
)

// TicketKeys seals the session tickets of TLS servers with keys that are made
// from a shared secret and the time, so that a client resumes its session at any
// of several gateways, and after a restart:
//
//	tickets := &l4.TicketKeys{Keys: [][]byte{secret}}
//	config := &tls.Config{WrapSession: tickets.Wrap, UnwrapSession: tickets.Unwrap}
//
// Gateways that share Keys, Lifetime and Scope need nothing else to agree, but
// clocks that differ by less than a quarter of Lifetime. Without it, crypto/tls
// makes random keys, and a client that comes to another gateway begins anew.
//
// A ticket is sealed by AES-256-GCM under a key of its quarter of Lifetime, which
// is derived by HKDF-SHA256 (RFC 5869). With Keys, an attacker can decrypt
// recorded sessions of TLS 1.2 that were resumed. Those of TLS 1.3 stay secret,
// since each resumption makes a new key there (RFC 8446, section 2.2), except
// early data. So give Keys a life, too: put a new one before the others, and take
// the last away when Lifetime has gone by.
//
// A ticket that cannot be opened (of another key, too old, damaged) is none: the
// client makes a full handshake. The fields must not change once a method was
// called. All methods may be called at once.
type TicketKeys struct {
	// Keys are secrets of 32 random bytes or more. The first seals; all open, so
	// that one can be replaced: add the new one after the first on every gateway,
	// then make it the first.
	Keys [][]byte

	// Lifetime is how long a ticket can be used, at least; the most is a quarter
	// more. 0 means 24 hours; less than a minute, or more than the 7 days of RFC
	// 8446, section 4.6.1, is an error.
	Lifetime time.Duration

	// Scope keeps tickets apart that are sealed with the same Keys. What one
	// configuration has verified another has not: servers that ask for client
	// certificates of different authorities need different scopes.
	Scope string

	mu     sync.Mutex
	opened map[ticketKey]cipher.AEAD // bounded: as many as there are keys and quarters that count
	newest int64                     // the quarter for which opened was last cleared
}

// A ticketKey says which secret a key is made from, and for which quarter.
type ticketKey struct {
	secret  int
	quarter int64
}

const (
	defaultTicketLifetime = 24 * time.Hour
	maxTicketLifetime     = 7 * 24 * time.Hour
	minTicketKey          = 32
)

// Check reports what is wrong with the fields, as [penstock.ConfigError]s. Wrap
// and Unwrap return it as well, which ends the handshake.
func (k *TicketKeys) Check() error {
	var m penstock.Mistakes
	m.If(len(k.Keys) == 0, "TicketKeys.Keys", nil, "must hold one key at least, of 32 random bytes or more")
	for i, key := range k.Keys {
		m.If(len(key) < minTicketKey, fmt.Sprintf("TicketKeys.Keys[%d]", i), fmt.Sprintf("(%d bytes)", len(key)), "must have 32 random bytes or more")
		m.If(len(key) >= minTicketKey && allZero(key), fmt.Sprintf("TicketKeys.Keys[%d]", i), fmt.Sprintf("(%d bytes)", len(key)), "must be random, and is all zeros: was it never filled?")
	}
	m.If(k.Lifetime != 0 && (k.Lifetime < time.Minute || k.Lifetime > maxTicketLifetime), "TicketKeys.Lifetime", k.Lifetime, "must be between a minute and 168h, or 0 for 24h")
	return m.Err()
}

// allZero reports whether b has no other byte than 0.
func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// Wrap seals a session: a [tls.Config.WrapSession].
func (k *TicketKeys) Wrap(_ tls.ConnectionState, session *tls.SessionState) ([]byte, error) {
	if err := k.Check(); err != nil {
		return nil, err
	}
	plain, err := session.Bytes()
	if err != nil {
		return nil, err
	}
	quarter := k.quarter(time.Now())
	aead, err := k.key(0, quarter, quarter)
	if err != nil {
		return nil, err
	}
	ticket := make([]byte, ticketHead, ticketHead+len(plain)+aead.Overhead())
	binary.BigEndian.PutUint64(ticket, uint64(quarter))
	rand.Read(ticket[8:])
	return aead.Seal(ticket, ticket[8:], plain, ticket[:8]), nil
}

// A ticket is the quarter it was made in (8 bytes), a nonce (12 bytes), and the
// session sealed with both.
const ticketHead = 8 + 12

// Unwrap opens a ticket: a [tls.Config.UnwrapSession]. It returns nil for one
// that is not valid.
func (k *TicketKeys) Unwrap(ticket []byte, _ tls.ConnectionState) (*tls.SessionState, error) {
	if err := k.Check(); err != nil {
		return nil, err
	}
	if len(ticket) < ticketHead {
		return nil, nil
	}
	now, made := k.quarter(time.Now()), binary.BigEndian.Uint64(ticket)
	if made > math.MaxInt64 || int64(made) > now+1 || int64(made) < now-4 {
		return nil, nil
	}
	for i := range k.Keys {
		aead, err := k.key(i, int64(made), now)
		if err != nil {
			return nil, err
		}
		plain, err := aead.Open(nil, ticket[8:ticketHead], ticket[ticketHead:], ticket[:8])
		if err != nil {
			continue
		}
		if session, err := tls.ParseSessionState(plain); err == nil {
			return session, nil
		}
	}
	return nil, nil
}

func (k *TicketKeys) lifetime() time.Duration {
	if k.Lifetime == 0 {
		return defaultTicketLifetime
	}
	return k.Lifetime
}

// quarter numbers the quarters of Lifetime since 1970.
func (k *TicketKeys) quarter(now time.Time) int64 {
	return max(0, now.Unix()) / int64(k.lifetime()/4/time.Second)
}

// key returns the key made from a secret for a quarter. Those of quarters that no
// longer count are forgotten.
func (k *TicketKeys) key(secret int, quarter, now int64) (cipher.AEAD, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.opened == nil || k.newest != now {
		k.opened, k.newest = make(map[ticketKey]cipher.AEAD), now
	}
	id := ticketKey{secret, quarter}
	if aead := k.opened[id]; aead != nil {
		return aead, nil
	}
	info := fmt.Sprintf("penstock session ticket %v %d %s", k.lifetime(), quarter, k.Scope)
	raw, err := hkdf.Key(sha256.New, k.Keys[secret], nil, info, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(raw)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	k.opened[id] = aead
	return aead, nil
}
