// SPDX-License-Identifier: Apache-2.0

package consul

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/balance"
)

// A Source is a [balance.Source] of the instances of a service. Its fields must not
// change once Watch is called.
//
// By the checks of an instance and of its node, a passing one serves with its weight for
// passing, and a warning one with its weight for warning; with a weight of 0, or in
// maintenance, it gets persistent traffic only. A critical one is left out.
//
// The name of an endpoint is that of the node, a slash, and the id of the instance.
// Labels are its meta data, and "node", "datacenter" and "tags", unless the meta data has
// those. Zone is that of the locality of the instance or of its node, else "zone" in
// their meta data.
//
// It asks by blocking queries. While Consul does not answer or has no leader, the last
// good set stays, without a time limit: [balance.Pool.SourceState] says how old it is, to
// within Wait and a little. An empty set is reported like any other, and pools ignore it
// unless they have [balance.Pool.AllowEmpty].
//
// An instance that cannot be used is reported as an *[InstanceError], and does not affect
// the others.
type Source struct {
	Client  *api.Client
	Service string
	Tags    []string         // that an instance must have, all of them; none means any
	Query   api.QueryOptions // such as Datacenter, Namespace, Filter, AllowStale; what blocking needs is set by the source
	Wait    time.Duration    // for a change, in one query; 0 means 1min, at most 10min

	Edit func(*balance.Endpoint) // has the last word on each endpoint but on the Weight of one that gets none; nil means none
}

// An InstanceError says that an instance of a service cannot be used.
type InstanceError struct {
	Name string // node and id
	Err  error
}

func (e *InstanceError) Error() string { return fmt.Sprintf("consul: instance %s: %v", e.Name, e.Err) }

// Unwrap returns Err.
func (e *InstanceError) Unwrap() error { return e.Err }

// Check returns what is wrong with s, each a [*penstock.ConfigError]. [Source.Watch] calls it.
func (s *Source) Check() error {
	var m penstock.Mistakes
	m.Need("Source.Client", s.Client, "must be a client of Consul")
	m.If(s.Service == "", "Source.Service", s.Service, "must be the name of a service")
	m.If(s.Wait < 0, "Source.Wait", s.Wait, "must not be negative")
	m.If(s.Wait > 10*time.Minute, "Source.Wait", s.Wait, "must be at most 10min, as Consul waits no longer")
	m.If(s.Query.UseCache, "Source.Query.UseCache", true, "must be false: what is cached may be old, and does not say so")
	return m.Err()
}

// pause is the least time between two queries, and so between two sets of a service that
// changes all the time. (Consul's documentation asks for such a limit, "Blocking
// queries".)
const pause = 100 * time.Millisecond

// Watch implements [balance.Source]. It returns when ctx ends, with what Check says, or when
// Consul fails: [balance.Pool.Follow] and [balance.Merge] call it again, ever later up to 30 s.
func (s *Source) Watch(ctx context.Context, update func([]balance.Endpoint, error)) error {
	if err := s.Check(); err != nil {
		return err
	}
	w := watcher{Source: s, update: update}
	var index uint64
	for {
		entries, next, err := s.ask(ctx, index)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		w.tell(entries)
		// An index that went back, as after a restore, is taken as it is. One of 0 would not
		// block.
		index = max(next, 1)
		if !sleep(ctx, pause) {
			return context.Cause(ctx)
		}
	}
}

// ask waits for a set other than that of index, or for the end of Wait.
func (s *Source) ask(ctx context.Context, index uint64) ([]*api.ServiceEntry, uint64, error) {
	q := s.Query
	q.WaitIndex, q.WaitTime = index, cmp.Or(s.Wait, time.Minute)
	// Consul waits for up to a sixteenth longer, so that not all ask at once.
	ctx, cancel := context.WithTimeoutCause(ctx, q.WaitTime+q.WaitTime/16+10*time.Second, errSilent)
	defer cancel()
	entries, meta, err := s.Client.Health().ServiceMultipleTags(s.Service, s.Tags, false, q.WithContext(ctx))
	if err != nil {
		if context.Cause(ctx) == errSilent { //nolint:errorlint // it is set right above
			err = errSilent
		}
		if urlErr := (*url.Error)(nil); errors.As(err, &urlErr) {
			err = urlErr.Err // without the whole of the query
		}
		return nil, 0, fmt.Errorf("consul: service %s: %w", s.Service, err)
	}
	return entries, meta.LastIndex, nil
}

// errSilent is the error of a query that should have ended long ago.
var errSilent = errors.New("no answer, not even that nothing has changed")

// A watcher is what one Watch knows.
type watcher struct {
	*Source

	update func([]balance.Endpoint, error)
	told   []balance.Endpoint
	wrong  string // what was said to be wrong with that; empty if nothing was
}

// tell reports the set, and what is wrong with the rest. It reports an unchanged set
// again, so that its age is known; but not one with a mistake in it, or an empty one,
// about which pools complain.
func (w *watcher) tell(entries []*api.ServiceEntry) {
	eps, err := w.endpoints(entries)
	wrong := ""
	if err != nil {
		wrong = err.Error()
	}
	if (wrong != "" || len(eps) == 0) && wrong == w.wrong && reflect.DeepEqual(eps, w.told) {
		return
	}
	w.told, w.wrong = eps, wrong
	w.update(slices.Clone(eps), nil)
	if err != nil {
		w.update(nil, err)
	}
}

// sleep waits for d and reports whether ctx has not ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
