// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The numbers of this test come from a separate program (Python's zlib.crc32) that
// follows nginx's documented construction:
//
//	point = crc32(host "\0" port, previous point as 4 bytes little-endian), 160 for each weight
//	server = that of the first point that is not below crc32(key)
func TestKetama(t *testing.T) {
	for _, test := range []struct {
		name string
		want []uint32
	}{
		{"127.0.0.1:8081", []uint32{1353366775, 3101462538, 708007374, 2208261503}},
		{"backend", []uint32{451348769, 3789907620, 1622205862}},
		{"unix:/run/a.sock", []uint32{4086230301, 1903376335, 3751054279}},
	} {
		for i, pt := range appendPoints(nil, test.name, 0, len(test.want)) {
			require.Equal(t, test.want[i], pt.hash, "point %d of %s", i, test.name)
		}
	}

	p := &Pool{Policy: Ring{}}
	require.NoError(t, p.Set(
		Endpoint{Addr: "10.0.0.1:80"},
		Endpoint{Addr: "10.0.0.2:80", Weight: 2},
		Endpoint{Addr: "10.0.0.3:8080"},
	))
	letters := strings.NewReplacer("10.0.0.1:80", "a", "10.0.0.2:80", "b", "10.0.0.3:8080", "c")
	var got string
	for i := range 40 {
		l, err := p.Acquire(context.Background(), Request{Key: HashKetama(fmt.Sprint("/item/", i))})
		require.NoError(t, err)
		got += letters.Replace(l.Server().Name())
		l.Done(Outcome{})
	}
	require.Equal(t, "cbbbabaabbbbccbcabbbbcbcbcccbbccabacbbba", got)
}

// TestRingMerge changes a ring step by step, and wants it to be what it would be if
// built at once.
func TestRingMerge(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	p := &Pool{Policy: Ring{Points: 20}}
	for range 50 {
		var eps []Endpoint
		for i := range 20 {
			if rng.IntN(3) > 0 {
				eps = append(eps, Endpoint{Name: fmt.Sprint("s", i), Addr: "h:1", Weight: 1 + rng.IntN(3)})
			}
		}
		rng.Shuffle(len(eps), func(i, j int) { eps[i], eps[j] = eps[j], eps[i] })
		require.NoError(t, p.Set(eps...))
		merged := p.snap.Load().groups[0].picker.(*ring)
		built := Ring{Points: 20}.Picker(merged.view).(*ring)
		require.Equal(t, built.points, merged.points)
	}
}

// TestBound has one hot key, and checks the bound at each pick.
func TestBound(t *testing.T) {
	const factor = 1.25
	for _, policy := range []Policy{Ring{Bound: factor}, Maglev{Bound: factor}, Rendezvous{Bound: factor}} {
		t.Run(fmt.Sprintf("%T", policy), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, 2))
			p := &Pool{Policy: policy}
			var eps []Endpoint
			weights := 0
			for i := range 7 {
				eps = append(eps, Endpoint{Name: fmt.Sprint("s", i), Addr: "h:1", Weight: 1 + i%3})
				weights += 1 + i%3
			}
			require.NoError(t, p.Set(eps...))
			var leases []Lease
			for range 5000 {
				if len(leases) > 0 && rng.IntN(5) < 2 {
					i := rng.IntN(len(leases))
					leases[i].Done(Outcome{})
					leases[i] = leases[len(leases)-1]
					leases = leases[:len(leases)-1]
					continue
				}
				key := uint64(1)
				if rng.IntN(3) == 0 {
					key = rng.Uint64()
				}
				l, err := p.Acquire(context.Background(), Request{Key: key})
				require.NoError(t, err)
				leases = append(leases, l)
				// (leases before + 1) * factor, rounded up, times the weight, rounded
				// up.
				slots := ceilDiv(len(leases)*5, 4)
				most := max(1, ceilDiv(slots*l.s.Endpoint().Weight, weights))
				require.LessOrEqual(t, l.s.InFlight(), most, "%s with %d leases in all", l.s, len(leases))
			}
			b := p.snap.Load().groups[0].bound.(*boundedPicker)
			require.EqualValues(t, len(leases), b.total.Load())
		})
	}
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }

func TestHash(t *testing.T) {
	// These must never change: balancers of different releases have to agree.
	for in, want := range map[string]uint64{
		"":              0xf52a15e9a9b5e89b,
		"a":             0x270aeb36a95726cf,
		"/index.html":   0xbe469e048924a47f,
		"10.0.0.1:8080": 0xc1aae8bb125b823a,
	} {
		require.Equal(t, want, Hash(in), "%q", in)
	}
}

func TestHashAddr(t *testing.T) {
	a := HashAddr(netip.MustParseAddr("192.0.2.1"))
	require.Equal(t, a, HashAddr(netip.MustParseAddr("::ffff:192.0.2.1")))
	require.NotEqual(t, a, HashAddr(netip.MustParseAddr("192.0.2.2")))
	require.Equal(t, HashAddr(netip.MustParseAddr("fe80::1%eth0")), HashAddr(netip.MustParseAddr("fe80::1")))
	require.NotZero(t, HashAddr(netip.Addr{}))
}

// TestSpread checks that many keys spread evenly, and in each bit.
func TestSpread(t *testing.T) {
	const n = 1 << 14
	var ones [64]int
	seen := make(map[uint64]bool)
	for i := range n {
		h := Hash(fmt.Sprint("/", i))
		require.False(t, seen[h])
		seen[h] = true
		for b := range ones {
			ones[b] += int(h >> b & 1)
		}
	}
	for b, k := range ones {
		require.InDelta(t, n/2, k, 5*64, "bit %d", b) // 5 standard deviations of 64
	}
}

func TestMaglevTable(t *testing.T) {
	p := &Pool{Policy: Maglev{}}
	var eps []Endpoint
	for i := range 100 {
		eps = append(eps, Endpoint{Name: fmt.Sprint("s", i), Addr: "h:1"})
	}
	require.NoError(t, p.Set(eps...))
	table := p.snap.Load().groups[0].picker.(*maglev).table
	require.Len(t, table, 65537)
	counts := make([]int, 100)
	for _, i := range table {
		counts[i]++
	}
	for i, n := range counts {
		require.InDelta(t, 655.37, n, 1, "server %d", i) // equal weights: within one entry
	}
	view := p.snap.Load().groups[0].view
	for i, at := range maglevTable[uint32](view, 65537) {
		require.EqualValues(t, at, table[i], "the same in a wide table")
	}
	var wide View
	for i := range 1<<16 + 5 {
		wide.Servers, wide.Weights = append(wide.Servers, &Server{name: fmt.Sprint("s", i)}), append(wide.Weights, 1)
	}
	m := Maglev{Size: 1 << 18}.Picker(wide).(*maglev)
	last := 0
	for key := range uint64(1000) {
		s := m.Pick(key+1, Filter{})
		i, err := strconv.Atoi(s.name[1:])
		require.NoError(t, err)
		last = max(last, i)
	}
	require.Greater(t, last, 60000, "all of them are in the table")

	require.Equal(t, 7, nextPrime(6))
	for _, m := range []int{65537, 655373, maglevMax} {
		require.Equal(t, m, nextPrime(m), "a default must be prime")
	}
}
