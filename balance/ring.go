// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"cmp"
	"encoding/binary"
	"hash/crc32"
	"slices"
	"sort"
	"strings"
)

// Ring places every server at many points of a circle, and picks the one at or after
// the key. When a server leaves only its own keys move, to the servers at the next
// points; fallback also follows the points clockwise.
//
// The points are those of ketama in nginx and Pingora, 160 for a weight of 1, computed
// from the server's name: a server named host:port has the same points there and here.
// To map keys to the same servers as well, use [HashKetama]. A request without a key is
// served round robin.
//
// With a Bound, a server at its bound is skipped while another one below its bound has
// room. If there is none, because of limits or because the request was already tried
// there, the bound is ignored, so that the request does not wait while there is a free
// slot. The bound applies only where a server is chosen: a request that names a server
// ([Request.Prefer]) or waits for one ([WhenFull]) gets that one. Leases that begin or
// end at the same moment may or may not be counted. A bound is a whole number of
// leases, so with few leases in flight a light server is at its bound with one, and
// further requests for its keys go to others: with a Bound of 1.25, weights of 90 and
// 10, and 5 leases it gets a third less than its share, with 100 leases a fifteenth.
//
// A pick takes time logarithmic in the number of points. A change merges the points of
// the servers that changed.
type Ring struct {
	Points int     // of a weight of 1; 0 means 160. Fewer are used if there were more than 8 million in all
	Bound  float64 // most load of a server, as a multiple of its fair part; 0 means no bound, 1.25 to 2 is usual, below 1.01 means that
}

// maxPoints is how many points a ring may have: 64 MiB.
const maxPoints = 8 << 20

// Picker implements [Policy].
func (r Ring) Picker(v View) Picker { return r.picker(v, nil) }

// picker builds the ring for v from that for another view, or from nothing.
func (r Ring) picker(v View, old *ring) Picker {
	p := &ring{hashed: newHashed(v, r.Bound), conf: r}
	p.place(old)
	return p.finish(p)
}

// HashKetama returns a key that is at the point of a Ring where nginx and Pingora have
// s: its CRC-32. It is never 0.
func HashKetama(s string) uint64 { return 1<<32 | uint64(crc32.ChecksumIEEE([]byte(s))) }

type ring struct {
	hashed
	conf   Ring
	points []point
	places []place // by slot
}

// A point belongs to the server of that slot.
type point struct{ hash, slot uint32 }

// A place is what a server has on the ring.
type place struct {
	server *Server // nil: nothing
	points int
}

// Next builds the ring for v out of this one.
func (p *ring) Next(v View) Picker { return p.conf.picker(v, p) }

// Next builds the ring for another view out of this one.
func (p *boundedPicker) Next(v View) Picker {
	if r, ok := p.hashPicker.(*ring); ok {
		return r.Next(v)
	}
	return nil
}

func (p *ring) Pick(key uint64, f Filter) *Server {
	if key == 0 {
		return p.keyless(f)
	}
	h := uint32(key)
	i := sort.Search(len(p.points), func(i int) bool { return p.points[i].hash >= h })
	// Far more points than there are servers to try; should none of them do, nearly all
	// servers are full and order does not help.
	for range min(len(p.points), 2048) {
		if i == len(p.points) {
			i = 0
		}
		if s := p.places[p.points[i].slot].server; p.allows(s, f) {
			return s
		}
		i++
	}
	return p.any(mix(key), f)
}

// place makes the points, keeping those of old that are the same.
func (p *ring) place(old *ring) {
	v := &p.view
	p.places = make([]place, slices.MaxFunc(v.Servers, func(a, b *Server) int { return cmp.Compare(a.slot, b.slot) }).slot+1)
	per := p.perWeight()
	total := 0
	for i, s := range v.Servers {
		n := max(1, int(per*float64(v.Weights[i])/float64(v.Unit)))
		p.places[s.slot] = place{s, n}
		total += n
	}
	var fresh []point
	for slot, pl := range p.places {
		if pl.server != nil && !(old != nil && old.has(slot, pl)) {
			fresh = appendPoints(fresh, pl.server.Name(), uint32(slot), pl.points)
		}
	}
	order := func(a, b point) int {
		if a.hash != b.hash {
			return cmp.Compare(a.hash, b.hash)
		}
		return strings.Compare(p.places[a.slot].server.Name(), p.places[b.slot].server.Name())
	}
	slices.SortFunc(fresh, order)
	if old == nil {
		p.points = fresh
		return
	}
	p.points = make([]point, 0, total)
	for _, pt := range old.points {
		if !p.has(int(pt.slot), old.places[pt.slot]) {
			continue
		}
		for len(fresh) > 0 && order(fresh[0], pt) < 0 {
			p.points = append(p.points, fresh[0])
			fresh = fresh[1:]
		}
		p.points = append(p.points, pt)
	}
	p.points = append(p.points, fresh...)
}

// perWeight returns how many points a weight of 1 gets.
func (p *ring) perWeight() float64 {
	per := float64(p.conf.Points)
	if per <= 0 {
		per = 160
	}
	var sum float64
	for _, w := range p.view.Weights {
		sum += float64(w) / float64(p.view.Unit)
	}
	return min(per, maxPoints/sum)
}

// has reports whether pl is at that slot here too.
func (p *ring) has(slot int, pl place) bool { return slot < len(p.places) && p.places[slot] == pl }

// appendPoints appends n points of the server of that name:
//
//	point(0) = crc32(HOST "\0" PORT, 0)
//	point(i) = crc32(HOST "\0" PORT, point(i-1))
//
// with the number as 4 bytes, little-endian. (nginx, "hash ... consistent", which has
// it from Cache::Memcached::Fast.)
func appendPoints(to []point, name string, slot uint32, n int) []point {
	host, port := splitKetama(name)
	base := crc32.ChecksumIEEE(append(append([]byte(host), 0), port...))
	var prev [4]byte
	for range n {
		h := crc32.Update(base, crc32.IEEETable, prev[:])
		binary.LittleEndian.PutUint32(prev[:], h)
		to = append(to, point{h, slot})
	}
	return to
}

// splitKetama splits off a port made of digits. A path has none.
func splitKetama(name string) (host, port string) {
	if len(name) >= 5 && strings.EqualFold(name[:5], "unix:") {
		return name[5:], ""
	}
	i := strings.LastIndexByte(name, ':')
	if i < 0 || strings.Trim(name[i+1:], "0123456789") != "" {
		return name, ""
	}
	return name[:i], name[i+1:]
}
