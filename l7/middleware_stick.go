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

// HashBy sets the key by which a hash policy (balance.Maglev, Ring, Rendezvous)
// chooses the server: the same key gets the same server, on every gateway, while
// that server is usable. An exchange without a key is balanced like any other. If
// two HashBy are nested, the outer one decides, if it finds a key.
//
// K may be a string, a number, a bool, netip.Addr, netip.Prefix (by its
// address), netip.AddrPort, or an array or struct of these. Pointers,
// interfaces and channels are not allowed, since their values differ between
// processes.
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

// Stick keeps all exchanges of one key on one server, by remembering in a table which server
// answered. Key is called once, before Next. If an outer handler has chosen a server, for example
// by a cookie, that choice stays. Stick needs no cookie, and pools whose servers have the same
// names can share a table. As with [Persist], a server in drain keeps its clients.
type Stick struct {
	Key func(x *Exchange) (key string, ok bool) // exchanges without one are not remembered

	// Table is where servers are remembered; nil means a StickTable of this Stick.
	// Several may share a table with its keys.
	Table StickStore

	// ByAddr, if set, remembers the address of the server, not its name, and looks
	// for the server of this pool with that address.
	ByAddr *balance.Pool

	Next http.Handler

	checked
	own StickTable
}

// A StickStore remembers servers by key. Keys have at most 256 bytes; a store
// that keeps one must copy it (strings.Clone). Methods may be called by several
// goroutines at once, and should not block for long, since they are called for
// every exchange. A store handles its own errors: it then returns that the key
// is not known. The nested module redisstick has one for Redis.
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
		// Inner handlers may change the fields that Key reads.
		x.OnReply(&stuckTo{s, key, server})
	}
	Serve(s.Next, x)
}

// stuckTo is the key of an exchange, and the server in the table for it.
type stuckTo struct {
	stick       *Stick
	key, server string
}

// EditReply implements [ReplyEditor]: it learns which server answered.
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

// named returns the name of the server for a value of the table.
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

// A StickTable is a [StickStore] in memory, of bounded size. It has two
// generations: when the young one holds Max/2 keys, the old one is dropped. So
// at least the Max/2 most recently used keys are remembered. Keys are copied,
// and of a key longer than 256 bytes the beginning and a hash are kept: an entry
// takes about 150 bytes plus the key. The zero StickTable is ready to use; all
// methods may be called at once.
type StickTable struct {
	Max    int           // keys at most; 0 means 100 000
	Expire time.Duration // since a key was last used; 0 means 30 min, negative means no limit

	mu         sync.Mutex
	young, old map[string]stuck
}

type stuck struct {
	server string
	at     time.Time
}

// maxKeyBytes is the longest key that is kept whole.
const maxKeyBytes = 256

// shortKey returns key, or a shortened form if it is longer than that.
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
	// A lookup renews the key and moves it to the young generation, but not more
	// often than needed: times are coarse.
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

// Len returns the number of keys in the table, including expired ones.
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
		key = strings.Clone(key) // or the whole request head would stay in memory
	}
	t.young[key] = e
}

func (t *StickTable) expire() time.Duration {
	if t.Expire == 0 {
		return 30 * time.Minute
	}
	return t.Expire
}
