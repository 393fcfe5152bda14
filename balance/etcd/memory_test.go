// SPDX-License-Identifier: Apache-2.0

package etcd_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

var errDown = errors.New("etcd is down")

// A store is as much of etcd in memory as is asked of it here: keys with revisions, leases,
// watches, compaction. While it is down, questions fail and watches are silent, as those of
// the real client are.
type store struct {
	clientv3.KV
	clientv3.Lease
	clientv3.Watcher

	mu        sync.Mutex
	changed   chan struct{} // closed when anything below has changed
	revision  int64
	compacted int64
	keys      map[string]*mvccpb.KeyValue
	log       []*clientv3.Event
	leases    map[clientv3.LeaseID]*time.Timer
	ttls      map[clientv3.LeaseID]time.Duration
	next      clientv3.LeaseID
	down      bool
	reads     int    // of a prefix
	watches   int    // that go on
	then      func() // called after each read; nil means none
}

func newStore() *store {
	return &store{changed: make(chan struct{}), keys: make(map[string]*mvccpb.KeyValue),
		leases: make(map[clientv3.LeaseID]*time.Timer), ttls: make(map[clientv3.LeaseID]time.Duration)}
}

func (s *store) client(ctx context.Context) *clientv3.Client {
	c := clientv3.NewCtxClient(ctx)
	c.KV, c.Lease, c.Watcher = s, s, s
	return c
}

func (s *store) Close() error { return nil }

// locked runs f, and fails while the store is down or when ctx has ended.
func (s *store) locked(ctx context.Context, f func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if s.down {
		return errDown
	}
	defer s.wake()
	return f()
}

func (s *store) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *store) setDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
	s.wake()
}

func (s *store) put(key, value string, lease clientv3.LeaseID) {
	s.revision++
	kv := &mvccpb.KeyValue{Key: []byte(key), Value: []byte(value), Lease: int64(lease), ModRevision: s.revision, CreateRevision: s.revision}
	if was := s.keys[key]; was != nil {
		kv.CreateRevision = was.CreateRevision
	}
	s.keys[key] = kv
	s.log = append(s.log, &clientv3.Event{Type: mvccpb.Event_PUT, Kv: kv})
}

func (s *store) remove(key string) {
	if s.keys[key] == nil {
		return
	}
	s.revision++
	delete(s.keys, key)
	s.log = append(s.log, &clientv3.Event{Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: []byte(key), ModRevision: s.revision}})
}

// set puts a key by hand; an empty value removes it.
func (s *store) set(key, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.wake()
	if value == "" {
		s.remove(key)
	} else {
		s.put(key, value, 0)
	}
}

// folder puts a key with an empty value.
func (s *store) folder(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(key, "", 0)
}

// compact forgets what has happened.
func (s *store) compact() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.compacted, s.log = s.revision, nil
	s.wake()
}

func (s *store) expire(id clientv3.LeaseID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.wake()
	if t := s.leases[id]; t != nil {
		t.Stop()
	}
	delete(s.leases, id)
	for key, kv := range s.keys {
		if kv.Lease == int64(id) {
			s.remove(key)
		}
	}
}

func (s *store) value(key string) (string, clientv3.LeaseID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if kv := s.keys[key]; kv != nil {
		return string(kv.Value), clientv3.LeaseID(kv.Lease)
	}
	return "", 0
}

func (s *store) counts() (reads, watches, leases int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reads, s.watches, len(s.leases)
}

func (s *store) Get(ctx context.Context, key string, _ ...clientv3.OpOption) (r *clientv3.GetResponse, err error) {
	err = s.locked(ctx, func() error {
		s.reads++
		r = &clientv3.GetResponse{Header: &pb.ResponseHeader{Revision: s.revision}}
		for k, kv := range s.keys {
			if strings.HasPrefix(k, key) {
				r.Kvs = append(r.Kvs, kv)
			}
		}
		return nil
	})
	if s.then != nil {
		s.then()
	}
	return r, err
}

func (s *store) Do(ctx context.Context, op clientv3.Op) (r clientv3.OpResponse, err error) {
	return r, s.locked(ctx, func() error {
		lease := clientv3.LeaseID(0)
		for id := range s.leases {
			lease = max(lease, id) // the one that was granted last
		}
		s.put(string(op.KeyBytes()), string(op.ValueBytes()), lease)
		return nil
	})
}

func (s *store) Txn(ctx context.Context) clientv3.Txn { return &txn{ctx: ctx, s: s} }

// A txn is one of "put if it is not there, else get".
type txn struct {
	clientv3.Txn

	ctx  context.Context
	s    *store
	key  string
	then clientv3.Op
}

func (t *txn) If(cs ...clientv3.Cmp) clientv3.Txn   { t.key = string(cs[0].KeyBytes()); return t }
func (t *txn) Then(ops ...clientv3.Op) clientv3.Txn { t.then = ops[0]; return t }
func (t *txn) Else(...clientv3.Op) clientv3.Txn     { return t }

func (t *txn) Commit() (r *clientv3.TxnResponse, err error) {
	r = new(clientv3.TxnResponse)
	err = t.s.locked(t.ctx, func() error {
		kv := t.s.keys[t.key]
		if r.Succeeded = kv == nil; !r.Succeeded {
			get := &pb.ResponseOp_ResponseRange{ResponseRange: &pb.RangeResponse{Kvs: []*mvccpb.KeyValue{kv}}}
			r.Responses = []*pb.ResponseOp{{Response: get}}
		}
		return nil
	})
	if err == nil && r.Succeeded {
		_, err = t.s.Do(t.ctx, t.then)
	}
	return r, err
}

func (s *store) Grant(ctx context.Context, ttl int64) (r *clientv3.LeaseGrantResponse, err error) {
	err = s.locked(ctx, func() error {
		s.next++
		id := s.next
		s.ttls[id] = time.Duration(ttl) * time.Second
		s.leases[id] = time.AfterFunc(s.ttls[id], func() { s.expire(id) })
		r = &clientv3.LeaseGrantResponse{ID: id, TTL: ttl}
		return nil
	})
	return r, err
}

func (s *store) KeepAliveOnce(ctx context.Context, id clientv3.LeaseID) (*clientv3.LeaseKeepAliveResponse, error) {
	return nil, s.locked(ctx, func() error {
		if s.leases[id] == nil {
			return rpctypes.ErrLeaseNotFound
		}
		s.leases[id].Reset(s.ttls[id])
		return nil
	})
}

func (s *store) Revoke(ctx context.Context, id clientv3.LeaseID) (*clientv3.LeaseRevokeResponse, error) {
	if err := s.locked(ctx, func() error { return nil }); err != nil {
		return nil, err
	}
	s.expire(id)
	return nil, nil
}

func (s *store) Watch(ctx context.Context, prefix string, opts ...clientv3.OpOption) clientv3.WatchChan {
	op := clientv3.OpGet(prefix, opts...)
	ch := make(chan clientv3.WatchResponse)
	s.mu.Lock()
	s.watches++
	s.mu.Unlock()
	go func() {
		defer close(ch)
		for next := op.Rev(); ; {
			r, wait := s.since(prefix, &next)
			if len(r.Events) > 0 || r.CompactRevision > 0 {
				select {
				case ch <- r:
				case <-ctx.Done():
				}
			}
			if ctx.Err() == nil && r.CompactRevision == 0 {
				select {
				case <-wait:
					continue
				case <-ctx.Done():
				}
			}
			s.mu.Lock()
			s.watches--
			s.mu.Unlock()
			return
		}
	}()
	return ch
}

// since returns what has happened since revision next, and what to wait for then.
func (s *store) since(prefix string, next *int64) (r clientv3.WatchResponse, wait chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.down:
	case *next <= s.compacted:
		r.CompactRevision = s.compacted
	default:
		for _, e := range s.log {
			if e.Kv.ModRevision >= *next && strings.HasPrefix(string(e.Kv.Key), prefix) {
				r.Events = append(r.Events, e)
			}
		}
		*next = s.revision + 1
	}
	r.Events = slices.Clip(r.Events)
	return r, s.changed
}
