// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"fmt"

	"github.com/penstock-lb/penstock"
)

// Check returns what is wrong with e.
func (e PeakEWMA) Check() error {
	var m penstock.Mistakes
	m.If(e.Tau < 0, "PeakEWMA.Tau", e.Tau, notNegative)
	return m.Err()
}

// Check returns what is wrong with m.
func (m Maglev) Check() error {
	var l penstock.Mistakes
	l.If(m.Size < 0, "Maglev.Size", m.Size, notNegative)
	l.If(m.Size > maglevMax, "Maglev.Size", m.Size, fmt.Sprintf("must be at most %d", maglevMax))
	l.If(!(m.Bound >= 0), "Maglev.Bound", m.Bound, atLeastZero)
	return l.Err()
}

// Check returns what is wrong with r.
func (r Ring) Check() error {
	var m penstock.Mistakes
	m.If(r.Points < 0, "Ring.Points", r.Points, notNegative)
	m.If(!(r.Bound >= 0), "Ring.Bound", r.Bound, atLeastZero)
	return m.Err()
}

// Check returns what is wrong with r.
func (r Rendezvous) Check() error {
	var m penstock.Mistakes
	m.If(!(r.Bound >= 0), "Rendezvous.Bound", r.Bound, atLeastZero)
	return m.Err()
}
