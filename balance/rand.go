// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// cacheLine is as far apart as two counters must be, so that writing one does not slow
// the readers of the other. Some processors fetch lines in pairs.
const cacheLine = 128

// A Cursor counts picks. It is safe for use by many goroutines at once.
type Cursor struct {
	_ [cacheLine]byte
	n atomic.Uint64
	_ [cacheLine - 8]byte
}

// Next returns 0, then 1, and so on.
func (c *Cursor) Next() uint64 { return c.n.Add(1) - 1 }

// A Rand is a source of random numbers, for use by many goroutines at once. The zero
// value is seeded at random.
type Rand struct {
	seed uint64
	n    *Cursor // nil: use the runtime's own source, which is the fastest by far
}

// Uint64 returns a random number.
func (r Rand) Uint64() uint64 {
	if r.n == nil {
		return rand.Uint64()
	}
	// SplitMix64: a hash of a counter needs no lock and has no bad seeds. Steele, Lea,
	// Flood: Fast Splittable Pseudorandom Number Generators, 2014.
	return mix(r.seed + r.n.Next()*0x9e3779b97f4a7c15)
}

// seeded returns a source that begins anew; a seed of 0 means at random.
func seeded(seed uint64) Rand {
	if seed == 0 {
		return Rand{}
	}
	return Rand{seed: seed, n: new(Cursor)}
}

// around returns d, give or take up to part of it.
func (r Rand) around(d time.Duration, part float64) time.Duration {
	u := float64(r.Uint64()>>11) / (1 << 53)
	d = min(d, math.MaxInt64/2) // room for the part
	return d + time.Duration((2*u-1)*part*float64(d))
}

// IntN returns a random number in [0, n); n must be greater than 0.
func (r Rand) IntN(n int) int {
	hi, _ := bits.Mul64(r.Uint64(), uint64(n)) // bias below n / 2^64
	return int(hi)
}

// mix is the finalizer of SplitMix64: every bit of x changes every bit of the result.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
