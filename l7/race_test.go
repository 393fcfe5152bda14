// SPDX-License-Identifier: Apache-2.0

//go:build race

package l7

// raceEnabled: allocations are not those of a normal build (sync.Pool forgets
// at random).
const raceEnabled = true
