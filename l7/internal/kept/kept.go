// SPDX-License-Identifier: Apache-2.0

// Package kept has a table of values by key that expire, in bounded memory.
package kept

import (
	"sync"
	"time"
)

// entryBytes is roughly the memory of an entry without its key and value.
const entryBytes = 128

// A Table keeps values by key. It has two generations: when the young one has
// half of Max entries, or half of Bytes, the old one is dropped. So the most
// recently used entries stay, and no operation visits other entries. The zero
// Table is empty. All methods may be called at once.
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

// Get returns the value of key, if it has not expired at now. The key is not kept.
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

// Put keeps v until that time. Size is roughly how many bytes v takes, without
// its key. A value of more than a sixteenth of the room is not kept.
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
	Bytes int // of keys, values, and the table itself
}

// Len returns the number of entries, including expired ones.
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
