// SPDX-License-Identifier: Apache-2.0

package balance

// scales decide between two servers that were drawn by weight, one after the other, and
// are different.
//
// To pick the one with less load for its weight would not do. Load comes in whole
// leases, and one lease is a lot for a light server: counted before the pick it would
// get far too much while little is in flight, counted after it nothing at all. So the
// first one drawn, a, is left for the second, b, with a probability that grows with
// what a has more:
//
//	min(w(a), w(b)) * (load(a)/w(a) - load(b)/w(b)) * rest(a) / max(rest(a), rest(b))
//
// where rest is the part of all weights that the others have. If the weights are equal
// that is the usual rule: one lease more decides. If they are not, it is linear around
// the point where both have their share, and rest makes up for one order of drawing
// being likelier than the other. Servers of equal speed therefore have their share of
// the picks on average, however little is in flight.
type scales []scale // nil if all weights are equal

type scale struct{ lease, rest float64 } // 1/weight, and rest as above

func newScales(v *View) scales {
	if v.Uniform() {
		return nil
	}
	var sum float64
	for _, w := range v.Weights {
		sum += float64(w)
	}
	sc := make(scales, len(v.Weights))
	for i, w := range v.Weights {
		sc[i] = scale{1 / float64(w), 1 - float64(w)/sum}
	}
	return sc
}

// same reports whether a and b have the same weight.
func (sc scales) same(b, a int) bool { return sc == nil || sc[a].lease == sc[b].lease }

// prefer reports whether to leave a for b, which have those loads in units of unit. The
// random number must be in [0, 1).
func (sc scales) prefer(b, a int, loadB, loadA, unit, random float64) bool {
	if sc == nil {
		return loadB < loadA
	}
	sa, sb := &sc[a], &sc[b]
	more := sa.rest * (loadA*sa.lease - loadB*sb.lease)
	return more > random*unit*max(sa.rest, sb.rest)*max(sa.lease, sb.lease)
}

// fraction returns a number in [0, 1) made of the low bits of x, which a lottery makes
// the least of.
func fraction(x uint64) float64 { return float64(uint32(x)) * (1.0 / (1 << 32)) }
