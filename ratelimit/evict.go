// SPDX-License-Identifier: Apache-2.0

package ratelimit

import "time"

// worth is what a key gains when its entry is forgotten: time, and if that is
// the same, events.
type worth struct {
	time   time.Duration // Never of what must not be forgotten
	events int
}

func (w worth) less(v worth) bool {
	return w.time < v.time || w.time == v.time && w.events < v.events
}

// add returns the entry of key, for which it makes place if there is none, or
// nil if nothing may be forgotten for it. Laws are the host's code, so what is
// worth least is chosen without the lock, and again if it has changed since.
func (l *Keyed[K]) add(tab *table[K], key K, now time.Duration) *entry[K] {
	s, tag := tab.place(tab.hash(key))
	if e, _ := tab.add(s, tag, key, nil, 0); e != nil {
		return e
	}
	for {
		old, state, least := l.least(s, now)
		if old == nil && s.index(nil) < 0 {
			return nil
		}
		e, replaced := tab.add(s, tag, key, old, state)
		if replaced {
			l.forgot(old, least, now)
		}
		if e != nil {
			return e
		}
	}
}

// least returns the entry of s that is worth least and the state that this was
// judged by, or nil if none may be forgotten.
func (l *Keyed[K]) least(s *set[K], now time.Duration) (old *entry[K], state int64, least worth) {
	least.time = Never
	for i := range s.way {
		e := s.way[i].Load()
		if e == nil {
			continue
		}
		st := e.state.Load()
		if st == dead {
			continue
		}
		if w := l.worth(e, st, now); w.less(least) {
			old, state, least = e, st, w
		}
		if least == (worth{}) {
			break
		}
	}
	return old, state, least
}

// forgot counts an entry that has just left.
func (l *Keyed[K]) forgot(e *entry[K], least worth, now time.Duration) {
	// The strikes may be newer than the state that was judged.
	wait, forget := l.Ban.status(e.strikes.Load(), now)
	if least.time > 0 || forget > 0 {
		l.lost.Add(1)
	}
	if wait > 0 {
		l.lostBans.Add(1)
	}
}

// worth returns what an entry in that state is worth.
func (l *Keyed[K]) worth(e *entry[K], state int64, now time.Duration) worth {
	strikes := e.strikes.Load()
	if wait, _ := l.Ban.status(strikes, now); l.Ban.Keep && wait > 0 {
		return worth{time: Never}
	}
	w := worth{time: l.Ban.worth(strikes, now)}
	switch law := plain(l.law(e.key)).(type) {
	case nil:
	case Window: // its Reset is the same for all that took something in one window
		w.time = max(w.time, law.credit(state, now))
	default:
		var d Decision
		decide(law, state, now, 0, &d)
		if w.time = max(w.time, d.Reset); w.time > 0 {
			w.events = max(0, d.Limit-d.Remaining)
		}
	}
	return w
}
