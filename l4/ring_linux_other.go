// SPDX-License-Identifier: Apache-2.0

//go:build linux && (race || penstock_noring || (!amd64 && !arm64))

package l4

// A ring is of other builds. The race detector knows each call by itself.
type ring struct{}

func openRing() *ring       { return nil }
func (r *ring) do(_ []call) {}
func (r *ring) close()      {}
