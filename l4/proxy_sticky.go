// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"net/netip"
	"slices"
	"sync"
	"time"
)

// A Sticky remembers which server a client's address was sent to. It is bounded: when it
// is full, the least recently used entry is removed. The zero value is ready to use; all
// methods may be called at once by many goroutines. An entry takes about 150 bytes.
type Sticky struct {
	Max    int           // entries; 0 means 100 000, negative means none: nothing is remembered
	Expire time.Duration // for which an entry lives after its last use; 0 means 30 min, negative means no limit

	mu      sync.Mutex
	entries map[netip.Addr]*stickyEntry
	head    stickyEntry // of a ring: head.next was used last, head.prev goes first
}

type stickyEntry struct {
	next, prev *stickyEntry
	addr       netip.Addr
	server     string
	used       time.Time
}

// Lookup returns the name of the server that addr was sent to, or "" if there is no
// entry.
func (t *Sticky) Lookup(addr netip.Addr) (server string) {
	return t.lookup(addr, time.Now())
}

// Remember notes that addr was sent to server. An invalid addr is ignored.
func (t *Sticky) Remember(addr netip.Addr, server string) {
	t.note(addr, server, time.Now())
}

// Forget drops all entries that match, and returns how many there were. A nil match means
// all. Match is called without a lock; an entry that changes after its call stays.
func (t *Sticky) Forget(match func(addr netip.Addr, server string) bool) int {
	type entry struct {
		addr   netip.Addr
		server string
	}
	t.mu.Lock()
	all := make([]entry, 0, len(t.entries))
	for addr, e := range t.entries {
		all = append(all, entry{addr, e.server})
	}
	t.mu.Unlock()
	if match != nil {
		all = slices.DeleteFunc(all, func(e entry) bool { return !match(e.addr, e.server) })
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for _, f := range all {
		if e := t.entries[f.addr]; e != nil && e.server == f.server {
			t.remove(e)
			n++
		}
	}
	return n
}

// Len returns the number of entries.
func (t *Sticky) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.entries)
}

func (t *Sticky) lookup(addr netip.Addr, now time.Time) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entries[addr]
	if e == nil {
		return ""
	}
	if t.expired(e, now) {
		t.remove(e)
		return ""
	}
	e.used = now
	t.unlink(e)
	t.link(e)
	return e.server
}

func (t *Sticky) note(addr netip.Addr, server string, now time.Time) {
	if !addr.IsValid() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.entries == nil {
		t.entries = make(map[netip.Addr]*stickyEntry)
		t.head.next, t.head.prev = &t.head, &t.head
	}
	e := t.entries[addr]
	if e == nil {
		if t.size() == 0 {
			return
		}
		for len(t.entries) > 0 && (len(t.entries) >= t.size() || t.expired(t.head.prev, now)) {
			t.remove(t.head.prev)
		}
		e = &stickyEntry{addr: addr}
		t.entries[addr] = e
	} else {
		t.unlink(e)
	}
	e.server, e.used = server, now
	t.link(e)
}

func (t *Sticky) size() int {
	if t.Max == 0 {
		return 100_000
	}
	return max(t.Max, 0)
}

func (t *Sticky) expired(e *stickyEntry, now time.Time) bool {
	ttl := t.Expire
	if ttl == 0 {
		ttl = 30 * time.Minute
	}
	return ttl > 0 && now.Sub(e.used) >= ttl
}

func (t *Sticky) link(e *stickyEntry) {
	e.prev, e.next = &t.head, t.head.next
	e.prev.next, e.next.prev = e, e
}

func (t *Sticky) unlink(e *stickyEntry) {
	e.prev.next, e.next.prev = e.next, e.prev
}

func (t *Sticky) remove(e *stickyEntry) {
	t.unlink(e)
	delete(t.entries, e.addr)
}
