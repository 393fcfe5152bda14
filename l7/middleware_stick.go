// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/penstock-lb/penstock/balance"
)

// HashBy has a hash policy (balance.Maglev, Ring, Rendezvous) choose the
// server by a key: the same key, the same server, as long as it is there, on every
// gateway. An exchange without a key is balanced like any other. Of two HashBy
// around each other the outer one decides, where it finds a key.
//
// K may be a string, a number, a bool, netip.Addr, netip.Prefix (by its
// address), netip.AddrPort, or an array or struct of these: a key must be the
// same value in every process, as no pointer, interface or channel is.
type HashBy[K comparable] struct {
	Key  func(x *Exchange) (key K, ok bool) // ByClient, ByHeader(...), ...
	Next http.Handler

	checked
}

// ServeExchange implements [Handler].
func (h *HashBy[K]) ServeExchange(x *Exchange) {
	if k, ok := h.Key(x); ok && x.Balance.Key == 0 {
		if hash, ok := hashOf(k); ok {
			x.Balance.Key = hash
		}
	}
	Serve(h.Next, x)
}

// ServeHTTP implements [http.Handler].
func (h *HashBy[K]) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(h, w, r) }

// Stick keeps all that has one key on one server, by remembering in a table
// which server answered it. Key is asked once, before what is inside. A server
// that a handler around it has chosen, by a cookie for example, stays chosen. It needs no cookie, and tables can be shared by
// pools whose servers have the same names.
type Stick struct {
	Key func(x *Exchange) (key string, ok bool) // exchanges without one are not remembered

	// Table remembers; nil means a StickTable of this Stick. Several may share
	// one, and its keys.
	Table StickStore

	// ByAddr, if set, remembers the address of the server, not its name, and
	// takes the server of this pool that has it.
	ByAddr *balance.Pool

	Next http.Handler

	checked
	own StickTable
}

// A StickStore remembers servers by key, of at most 256 bytes; what is kept of
// a key must be a copy (strings.Clone). Methods may be called at once by
// several goroutines, and should not block for long: they are asked for every
// exchange. Errors are the store's own affair: what it cannot find is not
// known. The nested module redisstick has one for Redis.
type StickStore interface {
	Lookup(key string) (server string, ok bool)
	Remember(key, server string)
}

func (s *Stick) table() StickStore {
	if s.Table == nil {
		return &s.own
	}
	return s.Table
}

// ServeExchange implements [Handler].
func (s *Stick) ServeExchange(x *Exchange) {
	if key, ok := s.Key(x); ok {
		key = shortKey(key)
		server, _ := s.table().Lookup(key)
		if name := s.named(server); name != "" && x.Balance.Prefer == "" {
			x.Balance.Prefer = name
		}
		// What is inside may change what the key is made of.
		x.OnReply(&stuckTo{s, key, server})
	}
	Serve(s.Next, x)
}

// stuckTo is a key of one exchange, and the server that the table has for it.
type stuckTo struct {
	stick       *Stick
	key, server string
}

// EditReply implements [ReplyEditor]: it learns who answered.
func (t *stuckTo) EditReply(x *Exchange, r *Reply) {
	if r.Server == nil {
		return
	}
	server := r.Server.Name()
	if t.stick.ByAddr != nil {
		server = r.Server.Addr()
	}
	if server == t.server || t.server != "" && x.hedgedFor(t.stick.named(t.server)) {
		return
	}
	t.stick.table().Remember(t.key, server)
}

// named returns the name of the server that is remembered as such.
func (s *Stick) named(server string) string {
	if s.ByAddr == nil || server == "" {
		return server
	}
	return nameAt(s.ByAddr, server)
}

func nameAt(p *balance.Pool, addr string) string {
	for s := range p.All() {
		if s.Addr() == addr {
			return s.Name()
		}
	}
	return ""
}

// ServeHTTP implements [http.Handler].
func (s *Stick) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(s, w, r) }

// A StickTable is a [StickStore] in memory, of bounded size. When it is full
// the keys that were not asked for the longest make place: it is kept as two
// generations, and when the young one holds half of Max keys the old one is
// dropped. So at least the Max/2 keys used last are remembered. Keys are copied,
// and a longer one than 256 bytes is kept as its beginning and a hash: an entry
// takes about 150 bytes and the key. The zero StickTable is ready to use; all
// methods may be called at once.
type StickTable struct {
	Max    int           // keys at most; 0 means 100 000
	Expire time.Duration // since a key was last asked for; 0 means 30 min, negative means no limit

	mu         sync.Mutex
	young, old map[string]stuck
}

type stuck struct {
	server string
	at     time.Time
}

// maxKeyBytes is the longest key that is kept as it is.
const maxKeyBytes = 256

// shortKey returns key, or what stands for it if it is longer than that.
func shortKey(key string) string {
	if len(key) <= maxKeyBytes {
		return key
	}
	sum := sha256.Sum256(unsafeBytes(key))
	return key[:64] + "..." + hex.EncodeToString(sum[:])
}

// Lookup implements [StickStore].
func (t *StickTable) Lookup(key string) (server string, ok bool) {
	now, key := time.Now(), shortKey(key)
	t.mu.Lock()
	defer t.mu.Unlock()
	e, young := t.young[key]
	if !young {
		if e, ok = t.old[key]; !ok {
			return "", false
		}
	}
	if expire := t.expire(); expire > 0 && now.Sub(e.at) > expire {
		return "", false
	}
	// A key asked for moves on in time, and to the young ones, but not more
	// often than needed: the clock of each is coarse.
	if !young || now.Sub(e.at) > t.expire()/16 {
		t.put(key, stuck{e.server, now})
	}
	return e.server, true
}

// Remember implements [StickStore].
func (t *StickTable) Remember(key, server string) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.put(shortKey(key), stuck{server, now})
}

// Len returns the number of keys that are held, expired ones too.
func (t *StickTable) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(t.young)
	for k := range t.old {
		if _, both := t.young[k]; !both {
			n++
		}
	}
	return n
}

// put holds the lock.
func (t *StickTable) put(key string, e stuck) {
	limit := t.Max
	if limit <= 0 {
		limit = 100_000
	}
	if _, known := t.young[key]; !known {
		if len(t.young) >= (limit+1)/2 {
			t.old, t.young = t.young, nil
		}
		if t.young == nil {
			t.young = make(map[string]stuck)
		}
		key = strings.Clone(key) // not the head of a request with it
	}
	t.young[key] = e
}

func (t *StickTable) expire() time.Duration {
	if t.Expire == 0 {
		return 30 * time.Minute
	}
	return t.Expire
}
