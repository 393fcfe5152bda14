// SPDX-License-Identifier: Apache-2.0

// Package kept has a table of values that are kept by key, for a time and in
// bounded memory.
package kept

import (
	"sync"
	"time"
)

// entryBytes is about what an entry takes beside its key and its value.
const entryBytes = 128

// A Table keeps values by key. It is held as two generations: when the young one
// has half of Max entries, or half of Bytes, the old one is dropped. So the
// entries asked for last stay, and no entry costs a look at another one. The zero
// Table holds nothing. All methods may be called at once.
type Table[V any] struct {
	mu         sync.Mutex
	young, old map[string]entry[V]
	bytes      int // of young
}

type entry[V any] struct {
	v     V
	size  int
	until time.Time
}

// Get returns the value of key, if it holds at time now. The key is not kept.
func (t *Table[V]) Get(key []byte, now time.Time, limits Limits) (v V, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, ok := t.young[string(key)]
	if !ok {
		if e, ok = t.old[string(key)]; !ok {
			return v, false
		}
		t.put(string(key), e, limits)
	}
	if !now.Before(e.until) {
		return v, false
	}
	return e.v, true
}

// Put keeps v until that time. Size is about how many bytes it takes, its key not
// counted. What alone takes more than a sixteenth of the room is not kept.
func (t *Table[V]) Put(key []byte, v V, size int, until time.Time, limits Limits) {
	if limits.Max <= 0 || len(key)+size+entryBytes > limits.Bytes/16 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.put(string(key), entry[V]{v, size, until}, limits)
}

// Limits are the bounds of a Table.
type Limits struct {
	Max   int // entries
	Bytes int // of keys, values, and what holds them
}

// Len returns the number of entries that are held, expired ones too.
func (t *Table[V]) Len() int {
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
func (t *Table[V]) put(key string, e entry[V], limits Limits) {
	more, one := len(key)+e.size+entryBytes, 1
	if was, known := t.young[key]; known {
		more, one = e.size-was.size, 0
	}
	if 2*(len(t.young)+one) > limits.Max+1 || 2*(t.bytes+more) > limits.Bytes {
		t.old, t.young, t.bytes = t.young, nil, 0
		more = len(key) + e.size + entryBytes
	}
	if t.young == nil {
		t.young = make(map[string]entry[V])
	}
	t.young[key] = e
	t.bytes += more
}
