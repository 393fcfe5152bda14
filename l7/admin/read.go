// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/internal/figures"
	"github.com/penstock-lb/penstock/ratelimit"
)

// read reads all figures. Only the goroutine that builds a frame may call it.
func (h *Handler) read(now time.Time) *Snapshot {
	m := &h.memory
	m.begin(now, h.interval())
	s := &Snapshot{At: now, Problems: []Problem{}, Fronts: []FrontView{}, Pools: []PoolView{}, Routes: []RouteView{}, Limits: []LimitView{}}
	for _, name := range slices.Sorted(maps.Keys(h.Servers)) {
		s.Fronts = append(s.Fronts, m.front(name, h.Servers[name]))
	}
	conns := h.conns()
	for i, p := range h.Pools {
		s.Pools = append(s.Pools, h.pool(p, figures.PoolName(h.Pools, i), conns, now))
	}
	m.end()
	for _, name := range slices.Sorted(maps.Keys(h.Routers)) {
		i := 0
		for st := range h.Routers[name].Stats() {
			s.Routes = append(s.Routes, m.route(name, i, st))
			i++
		}
	}
	for _, name := range slices.Sorted(maps.Keys(h.Limits)) {
		s.Limits = append(s.Limits, m.limit(name, h.Limits[name]))
	}
	s.judge(m)
	return s
}

func (m *memory) front(name string, srv Server) FrontView {
	v := FrontView{Name: name, Open: srv.Open()}
	var requests, failed uint64
	switch srv := srv.(type) {
	case interface{ Stats() l7.Stats }:
		st := srv.Stats()
		v.Open, v.Parked, v.Accepted, v.AcceptErrors, v.AtLimit = st.Open, st.Parked, st.Accepted, st.AcceptErrors, st.AtLimit
		v.Handshakes, v.HandshakeErrors, v.BytesIn, v.BytesOut = st.Handshakes, st.HandshakeErrors, st.BytesIn, st.BytesOut
		v.Requests, v.Ends = statuses(st.Requests), ends(st.Ends)
		requests, failed = st.Requests.Total(), st.Requests[0]+st.Requests[5]
	case interface{ Stats() l4.Stats }:
		st := srv.Stats()
		v.Open, v.Parked, v.Accepted, v.AcceptErrors, v.AtLimit = st.Open, st.Parked, st.Accepted, st.AcceptErrors, st.AtLimit
		v.Handshakes, v.HandshakeErrors, v.BytesIn, v.BytesOut = st.Handshakes, st.HandshakeErrors, st.BytesIn, st.BytesOut
		v.Ends = ends(st.Ends)
		e := st.Ends
		requests = e.Total()
		failed = e[l4.ServerAborted] + e[l4.ServerTimeout] + e[l4.Resource] + e[l4.Internal] + e[l4.ServerDown]
	}
	r := m.rates("front "+name, [3]uint64{requests, failed, v.Accepted})
	v.Rate, v.ErrorShare, v.AcceptRate = r[0], share(r[1], r[0]), r[2]
	lately := m.grown("front "+name, [3]uint64{requests, failed})
	v.failing = failing(lately[1], lately[0])
	return v
}

func (h *Handler) pool(p *balance.Pool, name string, conns map[*balance.Server]*ConnsView, now time.Time) PoolView {
	st := p.Stats()
	v := PoolView{
		Name: name, Usable: st.Usable, InFlight: st.InFlight, Queued: st.Queued, Retries: st.Retries, Picks: st.Picks, Retried: st.Retried,
		Hedged: st.Hedged, OverBudget: st.OverBudget, NoServer: st.NoServer, QueueFull: st.QueueFull, QueueTimeouts: st.QueueTimeouts,
		WaitP99: st.Waits.Quantile(0.99).Seconds(), Panicking: st.Panicking, Servers: []ServerView{},
	}
	if src, ok := p.SourceState(); ok {
		v.Source = &SourceView{Good: moment(src.Good), Since: moment(src.Since)}
		if src.Err != nil {
			v.Source.Error = src.Err.Error()
		}
	}
	var recent balance.Histogram
	var failed, ended float64
	for _, e := range p.Explain() {
		st := e.Server.Stats()
		old := h.memory.server(e.Server, &st, now)
		recent.Add(&old.recent)
		v.Rate += old.rates[0]
		failed += old.rates[1]
		ended += old.rates[2]
		one := h.server(name, &e, &st)
		one.Rate, one.ErrorShare = old.rates[0], share(old.rates[1], old.rates[2])
		one.failing = failing(old.lately[1], old.lately[2])
		one.P50, one.P99 = quantiles(&old.recent)
		one.Conns = conns[e.Server]
		for _, r := range old.line[:old.n] {
			one.rates = append(one.rates, float64(r))
		}
		v.Servers = append(v.Servers, one)
	}
	v.ErrorShare = share(failed, ended)
	v.P50, v.P99 = quantiles(&recent)
	return v
}

// server returns the view of a server without its history.
func (h *Handler) server(pool string, e *balance.Explanation, st *balance.ServerStats) ServerView {
	ep := e.Server.Endpoint()
	v := ServerView{
		Pool: pool, Name: e.Server.Name(), Addr: ep.Addr, State: e.State.String(), Used: e.Used, Reason: e.Reason, Since: e.Since,
		Admin: e.Operator.Admin.String(), AdminReason: e.Operator.Reason, InFlight: st.InFlight, Limit: e.Limit, Queued: st.Queued,
		Weight: e.Weight, Share: e.Share, Tier: e.Tier, Zone: ep.Zone, Picks: st.Picks, Outcomes: map[string]uint64{}, InState: map[string]float64{},
	}
	for c, n := range st.Outcomes {
		if n > 0 {
			v.Outcomes[balance.Class(c).String()] = n
		}
	}
	for s, d := range st.InState {
		if d > 0 {
			v.InState[balance.State(s).String()] = d.Seconds()
		}
	}
	for _, r := range e.Reports {
		v.Reports = append(v.Reports, ReportView{r.By.String(), r.Health.String(), r.Reason, r.Since})
		v.Ejected = v.Ejected || r.By == balance.Outlier && r.Health == balance.Down
	}
	for _, l := range e.Loads {
		v.Loads = append(v.Loads, LoadView{l.Name, l.Value, l.At})
	}
	for _, c := range h.Checks {
		if last, took, next, err := c.Probed(e.Server); !next.IsZero() || !last.IsZero() {
			v.Check = &CheckView{Last: moment(last), Took: took.Seconds(), Due: moment(next)}
			if err != nil {
				v.Check.Error = err.Error()
			}
			break
		}
	}
	v.LastAction, v.Deadline = h.acts.Of(e.Server).read()
	v.waiting = e.State == balance.StateDrain && st.InFlight > 0
	v.judge(e)
	return v
}

// conns returns the connections to all servers.
func (h *Handler) conns() map[*balance.Server]*ConnsView {
	all := make(map[*balance.Server]*ConnsView)
	for _, u := range h.Upstreams {
		for s, st := range u.Stats() {
			v := all[s]
			if v == nil {
				v = new(ConnsView)
				all[s] = v
			}
			v.Open += st.Open
			v.Idle += st.Idle
			v.Streams += st.Streams
			v.Dials += st.Dials
			v.DialErrors += st.DialErrors
			v.Reuses += st.Reuses
		}
	}
	return all
}

func (m *memory) route(router string, i int, st l7.RouteStats) RouteView {
	v := RouteView{Router: router, Name: cmp.Or(st.Route, "route "+itoa(i+1)), Requests: statuses(st.Requests), BytesIn: st.BytesIn, BytesOut: st.BytesOut}
	r := m.rates("route "+router+" "+itoa(i)+" "+st.Route, [3]uint64{st.Requests.Total(), st.Requests[0] + st.Requests[5]})
	v.Rate, v.ErrorShare = r[0], share(r[1], r[0])
	return v
}

func (m *memory) limit(name string, l Limit) LimitView {
	st := l.Stats()
	v := LimitView{Name: name, Taken: st.Taken, Refused: st.Refused, Keys: st.Keys, Bans: st.Bans, Lost: st.Lost, Untracked: st.Untracked, Local: st.Local, Asked: st.Asked, Forgets: forgetter(l) != nil}
	v.Held, v.Places, v.Queued, v.Bytes, v.Delayed = st.Held, st.Places, st.Queued, st.Bytes, st.Delayed
	r := m.rates("limit "+name, [3]uint64{st.Taken, st.Refused})
	v.TakeRate, v.RefuseRate = r[0], r[1]
	r = m.rates("limit bytes "+name, [3]uint64{st.Bytes, st.Delayed})
	v.ByteRate, v.DelayRate = r[0], r[1]
	return v
}

// forgetter returns l as a limit that can forget a key, nil if it cannot.
func forgetter(l Limit) func(text string) error {
	switch l := l.(type) {
	case interface{ ForgetText(string) error }:
		return l.ForgetText
	case *ratelimit.Keyed[netip.Addr]:
		return Keys[netip.Addr]{l, func(s string) (netip.Addr, error) { a, err := netip.ParseAddr(s); return a.Unmap(), err }}.ForgetText
	case *ratelimit.Keyed[string]:
		return Keys[string]{l, func(s string) (string, error) { return s, nil }}.ForgetText
	}
	return nil
}

func statuses(s l7.Statuses) map[string]uint64 {
	all := make(map[string]uint64)
	for class, n := range s {
		switch {
		case n == 0:
		case class == 0:
			all["none"] = n
		default:
			all[itoa(class)+"xx"] = n
		}
	}
	return all
}

func ends(e l4.Ends) map[string]uint64 {
	all := make(map[string]uint64)
	for c, n := range e {
		if n > 0 {
			all[l4.Cause(c).String()] = n
		}
	}
	return all
}

func quantiles(h *balance.Histogram) (p50, p99 float64) {
	return h.Quantile(0.5).Seconds(), h.Quantile(0.99).Seconds()
}

func share(part, all float64) float64 {
	if all <= 0 {
		return 0
	}
	return min(part/all, 1)
}

// moment returns t, nil if it is zero.
func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func itoa(n int) string { return strconv.Itoa(n) }

func trimBrackets(s string) string {
	if n := len(s); n > 1 && s[0] == '[' && s[n-1] == ']' {
		return s[1 : n-1]
	}
	return s
}
