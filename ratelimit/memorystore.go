// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"context"
	"fmt"
	"reflect"
	"sync"
)

// MemoryStore is a [Store] in memory, with a [Keyed] for each law: for tests,
// and for limits that one day will be shared. Equal laws are one law: those of
// this package also behind pointers, and with a default written out. Other laws
// behind pointers are equal if the pointers are. A law that is not comparable is refused with [ErrLaw].
// Laws are never dropped. The zero MemoryStore is ready to use.
type MemoryStore struct {
	Max int // keys of each law; see Keyed

	laws sync.Map // Law -> *Keyed[string]
}

func (m *MemoryStore) keyed(law Law) (*Keyed[string], error) {
	law = plain(law)
	if !reflect.ValueOf(law).Comparable() {
		return nil, fmt.Errorf("%w: %T is not comparable", ErrLaw, law)
	}
	if l, ok := m.laws.Load(law); ok {
		return l.(*Keyed[string]), nil
	}
	l, _ := m.laws.LoadOrStore(whole(law), &Keyed[string]{Law: law, Max: m.Max})
	m.laws.Store(law, l) // found at once the next time
	return l.(*Keyed[string]), nil
}

// whole returns a law with its defaults written out.
func whole(law Law) Law {
	switch l := law.(type) {
	case GCRA:
		l.Burst, l.MaxWait, l.Rate.Per = l.burst(), max(0, l.MaxWait), l.Rate.span()
		return l
	case Window:
		l.Rate = Rate{min(l.Rate.Count, windowCountMax), l.Rate.span()}
		return l
	}
	return law
}

// Take implements [Store].
func (m *MemoryStore) Take(_ context.Context, key string, law Law, n int) (Decision, error) {
	l, err := m.keyed(law)
	if err != nil {
		return Decision{}, err
	}
	return l.Take(key, n), nil
}

// Refund implements [Store].
func (m *MemoryStore) Refund(_ context.Context, key string, law Law, d Decision) error {
	l, err := m.keyed(law)
	if err == nil {
		l.Refund(key, d)
	}
	return err
}
