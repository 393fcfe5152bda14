// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/penstock-lb/penstock/balance"
)

const (
	questionsAtOnce = 16
	// earlySet is after what time the first set is told of those addresses that are
	// known by then. It is the "Resolution Delay" of RFC 8305, section 3, but longer:
	// there one address is enough, here one of many servers would get all the work.
	earlySet = 200 * time.Millisecond
)

// A target is a name whose addresses are servers.
type target struct {
	name   string
	port   int
	srv    bool // with weight and tier
	weight int
	tier   int
}

// A reply is what became of one question.
type reply struct {
	question subject
	answer   answer
	err      error
}

// round asks everything once and returns the endpoints and how long they are valid.
// With nothing known yet it tells early what there is, if the rest takes its time.
func (w *watcher) round(ctx context.Context) ([]balance.Endpoint, time.Duration, error) {
	w.mem.begin()
	targets := []target{{name: w.src.Name, port: w.src.Port}}
	ttl := time.Duration(-1)
	if w.src.Service != "" {
		ans, err := w.ask(ctx, subject{w.src.service(), dnsmessage.TypeSRV})
		if err != nil {
			return nil, 0, err
		}
		targets, ttl = targetsOf(ans), ans.ttl
	}
	targets = w.withPort(targets)
	var questions []subject
	seen := make(map[subject]bool)
	for _, t := range targets {
		for _, kind := range w.src.kinds() {
			if q := (subject{t.name, kind}); !seen[q] {
				seen[q] = true
				questions = append(questions, q)
			}
		}
	}
	got := w.askAll(ctx, questions, func(got map[subject]reply) {
		if eps, _, _ := assemble(targets, got); len(eps) > 0 {
			w.tell(eps)
		}
	})
	if ctx.Err() != nil {
		return nil, 0, context.Cause(ctx)
	}
	w.mem.end()
	var absent, failed error
	for _, q := range questions {
		switch r := got[q]; {
		case errors.Is(r.err, ErrNoName):
			absent = cmp.Or(absent, r.err)
		case r.err != nil:
			failed = errors.Join(failed, r.err)
		}
	}
	eps, addrTTL, wrong := assemble(targets, got)
	w.wrong = cmp.Or(w.wrong, wrong)
	if len(eps) == 0 {
		return nil, 0, cmp.Or(failed, w.wrong, absent, ErrNoName)
	}
	if ttl < 0 || addrTTL < ttl {
		ttl = addrTTL
	}
	return eps, ttl, nil
}

// askAll asks some questions at a time and returns the replies. In the first round early is
// called with those that are there after a while.
func (w *watcher) askAll(ctx context.Context, questions []subject, early func(map[subject]reply)) map[subject]reply {
	replies := make(chan reply)
	next := make(chan subject)
	var wg sync.WaitGroup
	for range min(questionsAtOnce, len(questions)) {
		wg.Go(func() {
			for q := range next {
				ans, err := w.ask(ctx, q)
				replies <- reply{q, ans, err}
			}
		})
	}
	var late <-chan time.Time
	if !w.known {
		t := time.NewTimer(earlySet)
		defer t.Stop()
		late = t.C
	}
	got := make(map[subject]reply, len(questions))
	for left := questions; len(got) < len(questions); {
		var to chan subject
		var q subject
		if len(left) > 0 {
			to, q = next, left[0]
		}
		select {
		case to <- q:
			left = left[1:]
		case r := <-replies:
			got[r.question] = r
		case <-late:
			early(got)
		}
	}
	close(next)
	wg.Wait()
	return got
}

// targetsOf returns the targets of SRV records: the priority becomes the tier, lowest
// first. Their order is that of what they say, as that of an answer is random.
func targetsOf(ans answer) []target {
	var records []*dnsmessage.SRVResource
	for _, r := range ans.records {
		// A target of "." says that there is no such service here.
		if srv, ok := r.(*dnsmessage.SRVResource); ok && srv.Target.String() != "." {
			records = append(records, srv)
		}
	}
	slices.SortFunc(records, func(a, b *dnsmessage.SRVResource) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(b.Weight, a.Weight),
			strings.Compare(a.Target.String(), b.Target.String()), cmp.Compare(a.Port, b.Port))
	})
	targets := make([]target, len(records))
	tier := 0
	for i, r := range records {
		if i > 0 && r.Priority != records[i-1].Priority {
			tier++
		}
		targets[i] = target{strings.ToLower(r.Target.String()), int(r.Port), true, int(r.Weight), tier}
	}
	return targets
}

// withPort returns the targets that can be connected to. One that cannot must not keep a
// pool from the others, since it refuses a set with a mistake as a whole.
func (w *watcher) withPort(targets []target) []target {
	w.wrong = nil
	return slices.DeleteFunc(targets, func(t target) bool {
		if t.port == 0 && w.wrong == nil {
			w.wrong = fmt.Errorf("dns: an SRV record of %s names port 0 of %s, which is left out", w.src.service(), t.name)
		}
		return t.port == 0
	})
}

// assemble makes the endpoints of what is known of the targets, and the shortest TTL. Wrong
// names the first address that is left out.
func assemble(targets []target, got map[subject]reply) (eps []balance.Endpoint, ttl time.Duration, wrong error) {
	ttl = -1
	scale := scaleOf(targets)
	seen := make(map[string]bool)
	for _, t := range targets {
		var addrs []netip.Addr
		for _, kind := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA} {
			r, ok := got[subject{t.name, kind}]
			if !ok || r.err != nil {
				continue
			}
			addrs = r.answer.addrs(addrs)
			if ttl < 0 || r.answer.ttl < ttl {
				ttl = r.answer.ttl
			}
		}
		addrs = slices.DeleteFunc(addrs, func(a netip.Addr) bool {
			if a.IsUnspecified() && wrong == nil {
				wrong = fmt.Errorf("dns: an address of %s is %v, which is left out: it names no server, and a connection to it reaches this machine", t.name, a)
			}
			return a.IsUnspecified()
		})
		slices.SortFunc(addrs, netip.Addr.Compare)
		addrs = slices.Compact(addrs)
		for _, a := range addrs {
			e := balance.Endpoint{Addr: net.JoinHostPort(a.String(), strconv.Itoa(t.port))}
			if seen[e.Addr] {
				continue
			}
			seen[e.Addr] = true
			if t.srv {
				e.Weight, e.Tier = scale.weight(t, len(addrs)), t.tier
				e.Labels = map[string]string{"target": strings.TrimSuffix(t.name, ".")}
			}
			eps = append(eps, e)
		}
	}
	slices.SortStableFunc(eps, func(a, b balance.Endpoint) int { return cmp.Compare(a.Tier, b.Tier) })
	return eps, ttl, wrong
}

// weightScale leaves room to divide the weight of a target among its addresses.
const weightScale = 12

// A scale makes weights of endpoints of those of SRV records.
type scale struct{ most []int } // by tier

func scaleOf(targets []target) scale {
	var s scale
	for _, t := range targets {
		for t.tier >= len(s.most) {
			s.most = append(s.most, 0)
		}
		s.most[t.tier] = max(s.most[t.tier], t.weight*weightScale)
	}
	return s
}

// weight returns the weight of each of n addresses of t. In a tier whose weights would
// be above what an endpoint can have, all are made smaller in the same proportion. A weight
// of 0 becomes as small as can be (RFC 2782).
func (s scale) weight(t target, n int) int {
	w := int64(t.weight) * weightScale
	if most := int64(s.most[t.tier]); most > balance.MaxWeight {
		w = w * balance.MaxWeight / most
	}
	return max(1, int(w)/n)
}
