// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"fmt"
	"math"
	"time"

	"github.com/penstock-lb/penstock"
)

// Scored picks the server with the least cost, which is made of its requests and of
// whatever else tells how busy it is:
//
//	cost = requests + sum of Weight * number, over all Scorers
//
// The requests are the leases of a server and what waits in its own queue, relative to its
// weight: those of a server of average weight count as they are. The unit of all is thus
// one request. With
//
//	balance.Scored{Scorers: []balance.Scorer{
//		{Metric: "queue"},                 // one that waits there counts as one more
//		{Metric: "kv_cache", Weight: 20},  // a full cache counts as 20 more
//	}}
//
// a server with half of its cache in use gets as much work as one with an empty cache and
// ten requests more.
//
// The numbers are what servers report, see [Server.ReportLoad], or what a func of the host
// returns. A number that is older than MaxAge, or was never reported, counts as the average
// of those that are known: a server that has fallen silent is neither idle nor busy, and its
// requests decide. (So does gRPC's weighted_round_robin, gRFC A58.)
//
// A server is drawn by weight, and gives way to another one only if that would not cost
// more even with this request. So with little to do each server has its share by weight,
// differences of less than a request are left to chance, and a number that is a second old
// does not send all requests of that second to one server: those on their way count. Since
// whole requests are compared, a server whose share by weight is about one request at a time
// may get up to half less or two fifths more than that.
// Servers of the same cost are chosen from at random.
//
// With Affinity, a request with a key goes to the key's own server, found on a [Ring],
// unless another one costs less by that many requests. It is for servers with a cache,
// such as that of a prompt's prefix in an LLM server: Affinity is what a hit is worth.
//
// A pick looks at every server, with more than 256 at that many in a row from a random
// one, and reads the clock if there is a Metric.
type Scored struct {
	Scorers  []Scorer      // at most 8
	Affinity float64       // of a key to its own server, in requests; 0 means that keys do not count
	MaxAge   time.Duration // of a reported number; 0 means 10s, negative means no limit
}

// A Scorer is one number that [Scored] looks at.
type Scorer struct {
	Metric string // the name of a reported number, see [Load]; empty with a Func
	// Func returns the number, in place of a Metric. It is called in a pick, as the
	// methods of a [Picker] are. A server with an infinite number, or NaN, is picked only
	// if all others have one too.
	Func   func(key uint64, s *Server) float64
	Weight float64 // what 1 of the number counts, in requests; 0 means 1
}

const (
	maxScorers = 8
	scoredMax  = 256 // servers looked at in a pick
)

// Check returns what is wrong with s.
func (s Scored) Check() error {
	var m penstock.Mistakes
	m.If(len(s.Scorers) > maxScorers, "Scored.Scorers", len(s.Scorers), fmt.Sprintf("must be at most %d", maxScorers))
	for i, sc := range s.Scorers {
		m.In(fmt.Sprintf("Scored.Scorers[%d]", i), sc)
	}
	m.If(!within(s.Affinity, math.MaxFloat64), "Scored.Affinity", s.Affinity, atLeastZero)
	return m.Err()
}

// Check returns what is wrong with s.
func (s Scorer) Check() error {
	var m penstock.Mistakes
	m.If((s.Metric == "") == (s.Func == nil), "Scorer.Metric", s.Metric, "must be the name of a number, or be left out for a Func")
	m.If(len(s.Metric) > maxLoadName, "Scorer.Metric", s.Metric, fmt.Sprintf("must have at most %d bytes", maxLoadName))
	m.If(!within(s.Weight, math.MaxFloat64), "Scorer.Weight", s.Weight, atLeastZero)
	return m.Err()
}

// Picker implements [Policy].
func (s Scored) Picker(v View) Picker { return s.picker(v, nil) }

// picker builds the picker for v out of one for another view, or of nothing.
func (s Scored) picker(v View, old *scoredPicker) Picker {
	p := &scoredPicker{conf: s, view: v, draw: newLottery(v.Weights), maxAge: s.MaxAge}
	if p.maxAge == 0 {
		p.maxAge = 10 * time.Second
	}
	var sum float64
	for _, w := range v.Weights {
		sum += float64(w)
	}
	p.seats = make([]seat, len(v.Servers))
	for i, srv := range v.Servers {
		p.seats[i] = seat{server: srv, request: sum / float64(len(v.Weights)) / float64(v.Weights[i]), name: Hash(srv.Name())}
	}
	for i := range s.Scorers[:min(len(s.Scorers), maxScorers)] {
		sc := &s.Scorers[i]
		t := term{weight: sc.Weight, f: sc.Func}
		if t.weight == 0 {
			t.weight = 1
		}
		if sc.Func == nil {
			t.cells = make([]*loadCell, len(v.Servers))
			for j, srv := range v.Servers {
				t.cells[j] = srv.loadCell(sc.Metric, math.MaxInt)
			}
			p.timed = p.maxAge > 0
		}
		p.terms = append(p.terms, t)
	}
	if s.Affinity > 0 {
		p.settle(old)
	}
	return p
}

type scoredPicker struct {
	conf   Scored
	view   View
	draw   lottery
	seats  []seat // as in the view
	terms  []term // as the Scorers
	maxAge time.Duration
	timed  bool    // numbers grow old
	home   Picker  // of keys; nil if they do not count
	index  []int32 // in the view, by slot, if there is a home
}

// A seat is what a picker knows of a server.
type seat struct {
	server  *Server
	request float64 // what one counts
	name    uint64  // hash of it
}

// A term is a Scorer.
type term struct {
	weight float64
	f      func(uint64, *Server) float64
	cells  []*loadCell // by server, without f
}

// settle gives keys their servers.
func (p *scoredPicker) settle(old *scoredPicker) {
	if old != nil {
		if n, ok := old.home.(nexter); ok {
			p.home = n.Next(p.view)
		}
	}
	if p.home == nil {
		p.home = Ring{}.Picker(p.view)
	}
	for i, s := range p.view.Servers {
		for int(s.slot) >= len(p.index) {
			p.index = append(p.index, -1)
		}
		p.index[s.slot] = int32(i)
	}
}

// Next keeps the ring where the servers are the same.
func (p *scoredPicker) Next(v View) Picker { return p.conf.picker(v, p) }

func (p *scoredPicker) Pick(key uint64, f Filter) *Server {
	x := p.view.Rand.Uint64()
	best, slack := p.own(key, f), p.conf.Affinity
	if best >= 0 {
		x = key // the second choice of a key is the same each time, if costs allow
	} else {
		best, slack = p.drawn(x, f), 0
	}
	if best < 0 {
		return nil
	}
	from, n := 0, len(p.seats)
	if n > scoredMax {
		from, n = p.view.Rand.IntN(n), scoredMax
	}
	var look look
	look.key = key
	p.average(&look, from, n)
	first, least, tie := best, p.cost(&look, best, 0)-slack, uint64(0)
	for i := from; n > 0; n-- {
		if i != first && f.Allows(p.seats[i].server) {
			switch c := p.cost(&look, i, 1); {
			case c < least || c == least && best == first:
				best, least, tie = i, c, mix(x^p.seats[i].name)
			case c == least:
				if t := mix(x ^ p.seats[i].name); t > tie {
					best, tie = i, t
				}
			}
		}
		if i++; i == len(p.seats) {
			i = 0
		}
	}
	return p.seats[best].server
}

// own returns the index of the server of a key, -1 if keys do not count.
func (p *scoredPicker) own(key uint64, f Filter) int {
	if key == 0 || p.home == nil {
		return -1
	}
	if s := p.home.Pick(key, f); s != nil {
		return int(p.index[s.slot])
	}
	return -1
}

// drawn returns the index of a server drawn by weight, -1 if f allows none.
func (p *scoredPicker) drawn(x uint64, f Filter) int {
	for range 8 {
		i := p.draw.draw(x)
		if f.Allows(p.seats[i].server) {
			return i
		}
		x = p.view.Rand.Uint64()
	}
	from := p.view.Rand.IntN(len(p.seats))
	for k := range p.seats {
		if i := (from + k) % len(p.seats); f.Allows(p.seats[i].server) {
			return i
		}
	}
	return -1
}

// A look is what one pick knows.
type look struct {
	key     uint64
	since   int64               // what is older counts as unknown
	average [maxScorers]float64 // of what is known, by term
}

// average computes what unknown numbers count as, from n servers on from one.
func (p *scoredPicker) average(l *look, from, n int) {
	if p.timed {
		c := p.seats[0].server.core
		l.since = c.stamp(time.Now()) - int64(p.maxAge)
	}
	for j := range p.terms {
		cells := p.terms[j].cells
		if cells == nil {
			continue
		}
		var sum float64
		known := 0
		for k, i := n, from; k > 0; k-- {
			if v, ok := cells[i].get(l.since); ok {
				sum += v
				known++
			}
			if i++; i == len(cells) {
				i = 0
			}
		}
		if known > 0 {
			l.average[j] = sum / float64(known)
		}
	}
}

// cost returns that of server i with some requests more.
func (p *scoredPicker) cost(l *look, i int, more float64) float64 {
	seat := &p.seats[i]
	c := 0.0
	for j := range p.terms {
		t := &p.terms[j]
		var v float64
		if t.f != nil {
			v = t.f(l.key, seat.server)
		} else {
			var ok bool
			if v, ok = t.cells[i].get(l.since); !ok {
				v = l.average[j]
			}
		}
		c += t.weight * v
	}
	if c != c {
		c = math.Inf(1)
	}
	return c + (float64(max(seat.server.load(), 0))+more)*seat.request
}
