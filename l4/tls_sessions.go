// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"crypto/tls"
	"fmt"
	"sync"
)

// sessions keeps sessions with servers apart. crypto/tls finds them by the
// name asked for alone, but servers of one name need not know each other's,
// and what one configuration has verified another has not.
type sessions struct {
	once  sync.Once
	cache tls.ClientSessionCache
}

// sessionBound is how many sessions are kept; the least recently used goes.
const sessionBound = 1024

// of is the cache for one server under one configuration: part of given, or of
// our own if that is nil.
func (s *sessions) of(base *tls.Config, server string, given tls.ClientSessionCache) tls.ClientSessionCache {
	if given == nil {
		s.once.Do(func() { s.cache = tls.NewLRUClientSessionCache(sessionBound) })
		given = s.cache
	}
	return serverSessions{given, fmt.Sprintf("%p %s ", base, server)}
}

type serverSessions struct {
	cache  tls.ClientSessionCache
	prefix string
}

func (s serverSessions) Get(key string) (*tls.ClientSessionState, bool) {
	return s.cache.Get(s.prefix + key)
}

func (s serverSessions) Put(key string, state *tls.ClientSessionState) {
	s.cache.Put(s.prefix+key, state)
}
