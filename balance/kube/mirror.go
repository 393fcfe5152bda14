// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"fmt"
	"sync"

	discovery "k8s.io/api/discovery/v1"
	"k8s.io/client-go/tools/cache"
)

// A mirror has the EndpointSlices of the API server, as a reflector reports them.
type mirror struct {
	wake chan struct{} // buffer of one; full if there is something to take

	mu     sync.Mutex
	slices map[string]*discovery.EndpointSlice // by name; their contents are never changed
	synced bool                                // a complete list has arrived
	news   bool                                // slices have changed, or were confirmed to be current
	err    error                               // of the last request to the API server
}

var (
	_ cache.ReflectorStore         = (*mirror)(nil)
	_ cache.ResourceVersionUpdater = (*mirror)(nil)
)

// take returns all slices, if there is news of them, and the present failure, if there is one.
func (m *mirror) take() (all []*discovery.EndpointSlice, known bool, failure error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if known = m.news && m.synced; known {
		m.news = false
		for _, s := range m.slices {
			all = append(all, s)
		}
	}
	return all, known, m.err
}

// change changes m by f and wakes Watch.
func (m *mirror) change(f func()) {
	m.mu.Lock()
	f()
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// failed notes that the API server cannot be reached.
func (m *mirror) failed(err error) { m.change(func() { m.err = err }) }

// works notes that it can be: the slices are current, or a change of them follows at once.
func (m *mirror) works() { m.change(func() { m.news, m.err = true, nil }) }

// UpdateResourceVersion implements [cache.ResourceVersionUpdater]. A reflector
// calls it for bookmarks too, about once a minute.
func (m *mirror) UpdateResourceVersion(string) { m.works() }

// Add implements [cache.ReflectorStore].
func (m *mirror) Add(obj any) error { return m.Update(obj) }

// Update implements [cache.ReflectorStore].
func (m *mirror) Update(obj any) error {
	s, ok := obj.(*discovery.EndpointSlice)
	if !ok {
		return fmt.Errorf("%T is no EndpointSlice", obj)
	}
	m.change(func() { m.slices[s.Name], m.news = s, true })
	return nil
}

// Delete implements [cache.ReflectorStore].
func (m *mirror) Delete(obj any) error {
	s, ok := obj.(*discovery.EndpointSlice)
	if !ok {
		return fmt.Errorf("%T is no EndpointSlice", obj)
	}
	m.change(func() {
		delete(m.slices, s.Name)
		m.news = true
	})
	return nil
}

// Replace implements [cache.ReflectorStore].
func (m *mirror) Replace(list []any, _ string) error {
	all := make(map[string]*discovery.EndpointSlice, len(list))
	for _, obj := range list {
		s, ok := obj.(*discovery.EndpointSlice)
		if !ok {
			return fmt.Errorf("%T is no EndpointSlice", obj)
		}
		all[s.Name] = s
	}
	m.change(func() { m.slices, m.synced, m.news, m.err = all, true, true, nil })
	return nil
}

// Resync implements [cache.ReflectorStore].
func (m *mirror) Resync() error { return nil }
