// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestPlots draws everything twice, shortly: the same seed gives the same picture.
func TestPlots(t *testing.T) {
	for _, p := range plots {
		t.Run(p.file, func(t *testing.T) {
			c := p.draw(t, 1, time.Second)
			require.NotEmpty(t, c.series)
			for _, s := range c.series {
				require.Len(t, s.values, len(c.x), s.name)
			}
			svg := c.svg()
			for d := xml.NewDecoder(strings.NewReader(svg)); ; {
				if _, err := d.Token(); errors.Is(err, io.EOF) {
					break
				} else {
					require.NoError(t, err)
				}
			}
			require.Equal(t, svg, p.draw(t, 1, time.Second).svg(), "not deterministic")
		})
	}
}

// TestFleetPlots draws the others once: they differ a little from run to run.
func TestFleetPlots(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for _, p := range fleetPlots {
		c := p.draw(t, 1, 5*time.Second)
		for _, s := range c.series {
			require.Len(t, s.values, len(c.x), s.name)
		}
		switch p.file {
		case "overshoot.svg":
			for _, s := range c.series {
				if strings.HasPrefix(s.name, "Leased") {
					require.Less(t, slices.Max(s.values), 102.0, s.name)
					require.Greater(t, slices.Min(s.values), 95.0, s.name)
				}
			}
			require.Greater(t, slices.Max(c.series[2].values), 110.0, "Shared has a burst more when the store is back")
		case "questions.svg":
			require.Less(t, c.series[0].values[0], 3.0)
		case "stampede.svg":
			leased := c.series[1].values
			require.Less(t, slices.Max(leased[len(leased)/2:]), 1.5*slices.Max(leased[:len(leased)/3]), "no peak when the store is back")
		}
	}
}

// TestClaims keeps what the README says true.
func TestClaims(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	value := func(c *chart, x, name string) float64 {
		t.Helper()
		for i := range c.x {
			for _, s := range c.series {
				if c.x[i] == x && s.name == name {
					return s.values[i]
				}
			}
		}
		t.Fatalf("%s has no %s of %s", c.title, name, x)
		return 0
	}
	const length = 3 * time.Second
	c := oneSlow(t, 1, length)
	require.Greater(t, value(c, "RoundRobin", "p99"), 10*value(c, "TwoChoices", "p99"))
	c = oneFailing(t, 1, length)
	require.Greater(t, value(c, "LeastConn", "failed"), 2*value(c, "RoundRobin", "failed"))
	require.Less(t, value(c, "PeakEWMA", "failed"), 1.0)
	for _, s := range canary(t, 1, length).series {
		for i, percent := range s.values {
			require.InDelta(t, 10, percent, 3.5, "%s, %s", contenders[i].name, s.name)
		}
	}
	c = keysMoved(t, 1, length)
	require.Zero(t, value(c, "Ring", "of servers that stayed"))
	require.Zero(t, value(c, "Rendezvous", "of servers that stayed"))
	require.Less(t, value(c, "Maglev", "of servers that stayed"), 1.0)
	c = keySpread(t, 1, length)
	require.LessOrEqual(t, value(c, "Ring 1.25", "few hot keys"), 1.26)
	c = skew(t, 1, length)
	require.InDelta(t, 1, value(c, "20 servers each", "Portion"), 0.001)
	require.Greater(t, value(c, "20 servers each", "drawn by each"), 3.0)
	c = moved(t, 1, length)
	require.Less(t, value(c, "a gateway goes", "Portion"), 10.0)
	require.Less(t, value(c, "1 % of servers replaced", "Portion"), 4.0)
	require.Greater(t, value(c, "a server goes", "shuffled rounds"), 50.0)
}
