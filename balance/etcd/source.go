// SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/balance"
)

// A Source is a [balance.Source] with an endpoint for each key below a prefix. Its fields
// must not change once Watch is called.
//
// It reads all keys at first and each Refresh, and watches for changes in between. The
// name of an endpoint is the one in its value, else the rest of its key. When a lease
// ends, its keys are gone, and so are their endpoints.
//
// While etcd does not answer, has no leader or no quorum, the last good set stays,
// without a time limit: [balance.Pool.SourceState] says how old it is, to within a
// Refresh and a Timeout. If etcd has compacted the revision of a watch, all keys are read
// again. An etcd that comes back without its data says nothing to a watch from before: the
// set stays until the next Refresh, so keep the TTL of registrations below that.
//
// A value that is not an endpoint is reported as a *[KeyError], until it changes. It does
// not affect the others: the endpoint that its key had before stays, if there was one.
type Source struct {
	Client  *clientv3.Client // the caller closes it
	Prefix  string           // of the keys, such as "/services/web/"
	Timeout time.Duration    // to read all keys; 0 means 5s
	Refresh time.Duration    // between two times that all keys are read; 0 means 30s

	Edit func(*balance.Endpoint) // has the last word on each endpoint, such as its limits; nil means none
}

// A KeyError says that the value of a key is no endpoint that can be used.
type KeyError struct {
	Key string
	Err error // a *[file.ParseError], a *[penstock.ConfigError], or that another key has the name
}

func (e *KeyError) Error() string { return fmt.Sprintf("etcd: %s: %v", e.Key, e.Err) }

// Unwrap returns Err.
func (e *KeyError) Unwrap() error { return e.Err }

// gather is how long changes are collected before they are reported: many servers start
// at once, and each reported set makes policies build new pickers.
const gather = 20 * time.Millisecond

// errClosed is the error of a watch that etcd ended without a reason.
var errClosed = errors.New("the watch was closed")

// Check returns what is wrong with s, each a [*penstock.ConfigError]. [Source.Watch] calls it.
func (s *Source) Check() error {
	var m penstock.Mistakes
	m.Need("Source.Client", s.Client, "must be a client of etcd")
	m.If(s.Prefix == "", "Source.Prefix", s.Prefix, "must be the prefix of the keys")
	m.If(s.Timeout < 0, "Source.Timeout", s.Timeout, "must not be negative")
	m.If(s.Refresh < 0, "Source.Refresh", s.Refresh, "must not be negative")
	return m.Err()
}

// Watch implements [balance.Source]. It returns when ctx ends, with what Check says, or when
// etcd fails: [balance.Pool.Follow] and [balance.Merge] call it again, ever later up to 30 s.
func (s *Source) Watch(ctx context.Context, update func([]balance.Endpoint, error)) error {
	if err := s.Check(); err != nil {
		return err
	}
	w := watcher{Source: s, update: update}
	for {
		revision, err := w.read(ctx)
		if err == nil {
			w.tell(true)
			err = w.follow(ctx, revision)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
			return fmt.Errorf("etcd: %w", err)
		}
	}
}

// A watcher is what one Watch knows.
type watcher struct {
	*Source

	update func([]balance.Endpoint, error)
	keys   map[string]entry
	told   []balance.Endpoint
	said   string // the last error; empty if there is none
}

// An entry is what one key says.
type entry struct {
	endpoint balance.Endpoint // as it was when it was good last
	good     bool             // it ever was
	err      error            // of its present value
}

// read reads all keys and returns their revision.
func (w *watcher) read(ctx context.Context) (revision int64, err error) {
	timeout := w.Timeout
	if timeout == 0 {
		timeout = 5 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	all, err := w.Client.Get(ctx, w.Prefix, clientv3.WithPrefix())
	if err != nil {
		return 0, err
	}
	before := w.keys
	w.keys = make(map[string]entry, len(all.Kvs))
	for _, kv := range all.Kvs {
		w.keys[string(kv.Key)] = before[string(kv.Key)]
		w.put(kv)
	}
	return all.Header.Revision, nil
}

// put notes the value of a key.
func (w *watcher) put(kv *mvccpb.KeyValue) {
	key := string(kv.Key)
	if bytes.HasSuffix(kv.Key, []byte("/")) && len(kv.Value) == 0 {
		delete(w.keys, key) // made by those who think of folders
		return
	}
	e, err := parse(strings.TrimPrefix(key, w.Prefix), kv.Value)
	if errors.Is(err, errDeleted) {
		delete(w.keys, key)
		return
	}
	if err == nil && w.Edit != nil {
		w.Edit(&e)
	}
	if err == nil {
		err = e.Check()
	}
	if err != nil {
		was := w.keys[key]
		was.err = err
		w.keys[key] = was
		return
	}
	w.keys[key] = entry{endpoint: e, good: true}
}

// follow watches for changes after revision, and returns nil when it is time to read all
// keys again.
func (w *watcher) follow(ctx context.Context, revision int64) error {
	refresh := w.Refresh
	if refresh == 0 {
		refresh = 30 * time.Second
	}
	due := time.NewTimer(refresh)
	defer due.Stop()
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	changes := w.Client.Watch(ctx, w.Prefix, clientv3.WithPrefix(), clientv3.WithRev(revision+1))
	var gathered <-chan time.Time // nil if there is nothing to tell
	for {
		select {
		case <-due.C:
			return nil // and what was gathered is read
		case <-ctx.Done():
			return ctx.Err()
		case change, open := <-changes:
			if err := w.apply(change, open); err != nil {
				return err
			}
			if gathered == nil {
				gathered = time.After(gather)
			}
		case <-gathered:
			gathered = nil
			w.tell(false)
		}
	}
}

// apply notes one change.
func (w *watcher) apply(change clientv3.WatchResponse, open bool) error {
	if !open {
		return errClosed
	}
	if err := change.Err(); err != nil {
		return err
	}
	for _, e := range change.Events {
		if e.Type == mvccpb.Event_DELETE {
			delete(w.keys, string(e.Kv.Key))
		} else {
			w.put(e.Kv)
		}
	}
	return nil
}

// tell reports the set, and what is wrong with the rest. After all keys were read, it
// reports an unchanged set again, so that its age is known; but not one with a mistake in
// it, or an empty one, about which pools complain.
func (w *watcher) tell(all bool) {
	eps, err := w.set()
	said := ""
	if err != nil {
		said = err.Error()
	}
	if all && (said != "" || len(eps) == 0) && said == w.said && reflect.DeepEqual(eps, w.told) {
		return
	}
	w.told, w.said = eps, said
	w.update(slices.Clone(eps), nil)
	if err != nil {
		w.update(nil, err)
	}
}

// set returns the endpoints of all keys, in their order.
func (w *watcher) set() ([]balance.Endpoint, error) {
	var errs []error
	eps := make([]balance.Endpoint, 0, len(w.keys))
	names := make(map[string]string, len(w.keys))
	for _, key := range slices.Sorted(maps.Keys(w.keys)) {
		e := w.keys[key]
		if e.err != nil {
			errs = append(errs, &KeyError{key, e.err})
		}
		if !e.good {
			continue
		}
		name := cmp.Or(e.endpoint.Name, e.endpoint.Addr) // Edit may take the name away
		if other, dup := names[name]; dup {
			errs = append(errs, &KeyError{key, fmt.Errorf("%s has the name %q already", other, name)})
			continue
		}
		names[name] = key
		eps = append(eps, e.endpoint)
	}
	return eps, errors.Join(errs...)
}
