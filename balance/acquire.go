// SPDX-License-Identifier: Apache-2.0

package balance

import "context"

// A Request describes a piece of work. The zero value is valid.
type Request struct {
	Key      uint64 // for hashing policies, see [Hash] and [HashAddr]; 0 means none
	Prefer   string // name of the server to use if it takes persistent traffic
	Priority int    // class in the queue; lower classes are served first

	Tenant       uint64 // for whom it is: tenants take turns in the queue, see [Hash]; 0 is one of them
	TenantWeight int    // requests of the tenant in one turn, as its newest request in the queue says; 0 means 1

	tried Filter
}

// IsZero reports whether r asks for nothing in particular and excludes no server.
func (r *Request) IsZero() bool {
	return r.Key == 0 && r.Prefer == "" && r.Priority == 0 && r.Tenant == 0 && r.TenantWeight == 0 && r.tried.a == nil
}

// Avoid excludes s, which was tried. When all usable servers are excluded, Acquire
// returns ErrNoServer. It does not allocate for the first three servers.
func (r *Request) Avoid(s *Server) { r.tried.avoid(s) }

// WhenFull says what happens to a request for one server, named by a key or
// [Request.Prefer], that is at its limit.
type WhenFull uint8

const (
	GoOn       WhenFull = iota // take another server, as a hash policy's order says; wait for any if all are full
	Wait                       // wait in that server's own queue; ErrQueueFull if it has no room
	WaitOrGoOn                 // wait in that server's own queue; take another server if it has no room
)

// Acquire picks a server for req. If every server is at its limit it waits in the queue
// until there is a free slot, the timeout of the queue has passed or ctx ends; a ctx
// that is done matters only if Acquire has to wait.
//
// The error is ErrNoServer, ErrQueueFull, ErrQueueTimeout or ctx's cause; if a [Picker]
// returned a server of another pool, it matches ErrNoServer and names that server. The
// caller must call [Lease.Done] exactly once if there is no error.
func (p *Pool) Acquire(ctx context.Context, req Request) (Lease, error) {
	sn := p.snap.Load()
	if sn == nil {
		return Lease{}, ErrNoServer // no Set yet
	}
	if req.tried.a != nil {
		sn.core.counters.retried.Add(1)
	}
	if req.Prefer != "" || sn.keyed && req.Key != 0 && sn.core.conf.WhenFull != GoOn {
		return p.acquireFixed(ctx, sn, &req)
	}
	return p.acquireAny(ctx, sn, &req)
}

// acquireAny takes the server that the policy picks.
func (p *Pool) acquireAny(ctx context.Context, sn *snapshot, req *Request) (Lease, error) {
	f := req.tried
	if sn.limited {
		f.full = needSlot
	}
	if sn.core.queue.pooled.Load() == 0 {
		if l := sn.take(req.Key, f); l.s != nil {
			if l.flags == leaseForeign {
				sn.core.counters.refused(ErrNoServer)
				return Lease{}, sn.core.foreign(l.s)
			}
			if req.Prefer != "" && req.Prefer == l.s.name { // it has a slot again
				l.flags = leasePreferred
			}
			return l, nil
		}
	}
	lease, err := p.wait(ctx, req, nil)
	if err != nil {
		sn.core.counters.refused(err)
	}
	return lease, err
}

// acquireFixed takes a given server: the preferred one, or that of the key.
func (p *Pool) acquireFixed(ctx context.Context, sn *snapshot, req *Request) (Lease, error) {
	onFull := sn.core.conf.WhenFull
	s, need := sn.preferred(req), persistent
	var flags leaseFlags
	switch {
	case s != nil:
		flags = leasePreferred
	case sn.keyed && req.Key != 0 && onFull != GoOn:
		f := req.tried
		if onFull == WaitOrGoOn {
			f.full = needPlace
		}
		l, ok := sn.takeKeyed(req.Key, f)
		sn.core.panics.log()
		if ok {
			return l, nil
		}
		s = l.s
		need = balanced
	}
	if s == nil {
		return p.acquireAny(ctx, sn, req)
	}
	if need == persistent && s.queued.Load() == 0 {
		if ticket, how := s.take(need, 0, false); how == taken {
			return Lease{s: s, flags: flags, ticket: ticket}, nil
		}
	}
	if onFull != GoOn && admission(s.open.Load()) >= need {
		lease, err := p.wait(ctx, req, s)
		if err == nil {
			return lease, nil
		}
		if err != ErrQueueFull || onFull == Wait {
			sn.core.counters.refused(err)
			return lease, err
		}
	}
	return p.acquireAny(ctx, sn, req)
}

// preferred returns the server that req prefers, if it takes persistent traffic.
func (sn *snapshot) preferred(req *Request) *Server {
	if req.Prefer == "" {
		return nil
	}
	s := sn.set.byName[req.Prefer]
	if s == nil || req.tried.has(s) || admission(s.open.Load()) < persistent {
		return nil
	}
	return s
}
