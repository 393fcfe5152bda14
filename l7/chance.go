// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"math/rand/v2"
	"sync/atomic"
)

// A chance gives random numbers. With a seed they are the same in each run, as long as
// they are drawn in the same order; a seed of 0 means at random. Many goroutines may
// use it at once.
type chance struct{ n atomic.Uint64 }

// uint64 returns 64 random bits.
func (c *chance) uint64(seed uint64) uint64 {
	if seed == 0 {
		return rand.Uint64() // the runtime's own, which is the fastest
	}
	return mix(seed + c.n.Add(1)*0x9e3779b97f4a7c15)
}

// float64 returns a number in [0, 1).
func (c *chance) float64(seed uint64) float64 { return float64(c.uint64(seed)>>11) / (1 << 53) }

// mix is the finaliser of SplitMix64 (Steele, Lea, Flood, 2014).
func mix(h uint64) uint64 {
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}
