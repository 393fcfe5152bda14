// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"crypto/tls"
	"runtime"
	"sync"
	"weak"
)

// sessions keeps sessions with servers apart: crypto/tls finds them by the name
// asked for alone, but servers of one name need not know each other's, and what
// one configuration has verified another has not.
//
// The zero value is ready to be used.
type sessions struct {
	own sync.Map // weak.Pointer[tls.Config] -> tls.ClientSessionCache
}

// sessionBound is how many sessions are kept for one configuration; the least
// recently used goes.
const sessionBound = 1024

// of is the cache for one server under one configuration: part of given, or of
// our own for base if that is nil.
func (s *sessions) of(base *tls.Config, server string, given tls.ClientSessionCache) tls.ClientSessionCache {
	if given == nil {
		given = s.ownFor(base)
	}
	return serverSessions{given, server + " "}
}

// ownFor keeps nothing of base alive. Its address would not do as a key, since
// another configuration may come to have it.
func (s *sessions) ownFor(base *tls.Config) tls.ClientSessionCache {
	key := weak.Make(base)
	if cache, ok := s.own.Load(key); ok {
		return cache.(tls.ClientSessionCache)
	}
	cache, loaded := s.own.LoadOrStore(key, tls.NewLRUClientSessionCache(sessionBound))
	if !loaded && base != nil {
		runtime.AddCleanup(base, func(key weak.Pointer[tls.Config]) { s.own.Delete(key) }, key)
	}
	return cache.(tls.ClientSessionCache)
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
