// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"hash/maphash"
	"math"
	"math/bits"
	"sync"
	"sync/atomic"
)

// A table maps keys to entries in bounded memory. It is set-associative, like
// a processor cache: the hash of a key names a set, and the key lives in one
// of the ways of that set or nowhere.
//
//	set 0   tags [a3 07 .. ]  entries [* * . . . . . . . . . . . . . .]
//	set 1   tags [51 .. .. ]  entries [* . . . . . . . . . . . . . . .]
//	...
//
// To find a key takes no lock: compare a byte of the hash with sixteen tags
// in two words, follow the few pointers whose tag agrees, compare keys. To
// add one locks its set alone, and if the set is full the caller chooses which
// one goes. So there is no list to keep in order, no sweeper and no lock that
// many keys share; the price is that a set can be full before the table is.
//
// The hash is seeded: a client cannot choose the sets of its keys.
type table[K comparable] struct {
	seed maphash.Seed
	sets []set[K]
	keys keys[K]
	held *atomic.Int64 // counts the entries
}

const ways = 16

type set[K comparable] struct {
	tags [ways / 8]atomic.Uint64 // a byte per way; 0 is an empty one
	way  [ways]atomic.Pointer[entry[K]]
	mu   sync.Mutex // guards changes of tags and way
	gone uint32     // entries that left; guarded by mu
}

type entry[K comparable] struct {
	key     K
	lane    uint8        // of what is counted for it
	life    uint32       // entries that had left the set before: no two of one key have the same
	state   atomic.Int64 // of the law; dead once the entry left the table
	strikes atomic.Int64 // of the ban
}

// dead is the state of an entry that left the table. A caller that still holds
// it must look up the key again, so that nothing is charged to a removed entry.
const dead = math.MinInt64

// mostKeys is how many keys a table may have room for: more cannot be meant, as the
// places alone would take 2.5 GB.
const mostKeys = math.MaxInt32 / 8

func newTable[K comparable](size int, held *atomic.Int64) *table[K] {
	return &table[K]{seed: maphash.MakeSeed(), sets: make([]set[K], (min(size, mostKeys)+ways-1)/ways), keys: keysOf[K](), held: held}
}

// place returns the set of a hash, and its tag, which is not 0.
func (t *table[K]) place(h uint64) (*set[K], byte) {
	hi, lo := bits.Mul64(h, uint64(len(t.sets)))
	return &t.sets[hi], byte(lo>>56) | 1
}

func (t *table[K]) hash(key K) uint64 { return maphash.Comparable(t.seed, key) }

// find returns the entry of key, or nil.
func (t *table[K]) find(key K) *entry[K] {
	s, tag := t.place(t.hash(key))
	return s.find(tag, key)
}

func (s *set[K]) find(tag byte, key K) *entry[K] {
	for i := range s.tags {
		for m := matches(s.tags[i].Load(), tag); m != 0; m &= m - 1 {
			e := s.way[i*8+bits.TrailingZeros64(m)/8].Load()
			if e != nil && e.key == key {
				return e
			}
		}
	}
	return nil
}

// matches returns a word with the top bit of each byte set that equals tag.
// A byte above one that equals it may be reported too; keys decide.
func matches(tags uint64, tag byte) uint64 {
	const low = 0x0101010101010101
	x := tags ^ low*uint64(tag)
	return (x - low) &^ x & (low << 7)
}

// add returns the entry of key, which it adds with an empty state if there is
// none. If the set is full, the new one takes the place of old, which must still
// be in that state; if that has changed, or old is nil, add returns nil.
func (t *table[K]) add(s *set[K], tag byte, key K, old *entry[K], state int64) (e *entry[K], replaced bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.find(tag, key); e != nil {
		return e, false // another was faster
	}
	i := s.index(nil)
	if i < 0 {
		if old == nil {
			return nil, false
		}
		if i = s.index(old); i < 0 || !old.state.CompareAndSwap(state, dead) {
			return nil, false
		}
		s.gone++
		replaced = true
	} else {
		t.held.Add(1)
	}
	e = &entry[K]{key: t.keys.own(key), life: s.gone, lane: tag}
	s.way[i].Store(e)
	word, shift := &s.tags[i/8], i%8*8
	word.Store(word.Load()&^(0xff<<shift) | uint64(tag)<<shift)
	return e, replaced
}

// remove empties the way of e. The lock is held.
func (s *set[K]) remove(e *entry[K]) {
	i := s.index(e)
	s.tags[i/8].Store(s.tags[i/8].Load() &^ (0xff << (i % 8 * 8)))
	s.way[i].Store(nil)
	s.gone++
}

// index returns the way of e, or -1; that of nil is an empty one.
func (s *set[K]) index(e *entry[K]) int {
	for i := range s.way {
		if s.way[i].Load() == e {
			return i
		}
	}
	return -1
}
