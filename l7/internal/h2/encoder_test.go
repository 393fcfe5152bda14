// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2/hpack"
)

// x/net's decoder knows the static table: each entry of ours is one of its.
func TestStaticTable(t *testing.T) {
	for i, f := range staticTable {
		fields, err := hpack.NewDecoder(4096, nil).DecodeFull([]byte{0x80 | byte(i+1)})
		require.NoError(t, err)
		require.Equal(t, f[0], fields[0].Name)
		require.Equal(t, f[1], fields[0].Value)
		index, whole := findStatic(f[0], f[1])
		require.Equal(t, i+1, index, "%v", f)
		require.True(t, whole)
		index, whole = findStatic(f[0], "other")
		require.Equal(t, f[0], staticTable[index-1][0])
		require.False(t, whole)
	}
	for _, name := range []string{"", "x", ":x", strings.Repeat("x", 28), strings.Repeat("x", 29), strings.Repeat("x", 500)} {
		index, _ := findStatic(name, "")
		require.Zero(t, index, "%q", name)
	}
}

// FuzzEncoder compares with x/net's decoder, over tables that change their size.
func FuzzEncoder(f *testing.F) {
	f.Add(uint64(1), []byte("abc"))
	f.Fuzz(func(t *testing.T, seed uint64, program []byte) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		e := &encoder{max: firstTable, least: firstTable}
		var got []hpack.HeaderField
		d := hpack.NewDecoder(firstTable, func(f hpack.HeaderField) { got = append(got, f) })
		for _, op := range program {
			if op%16 == 0 {
				e.setMax(uint32(op) * 30)
			}
			got = nil
			var want []hpack.HeaderField
			b := e.begin(nil)
			for range 1 + op%8 {
				s := staticTable[rnd.IntN(len(staticTable))]
				name, value := s[0], s[1]
				switch rnd.IntN(4) {
				case 0:
					name = fmt.Sprint("x-", rnd.IntN(20))
				case 1:
					value = strings.Repeat(string(rune(33+rnd.IntN(90))), rnd.IntN(10)*rnd.IntN(300))
				case 2:
					value = fmt.Sprint(rnd.IntN(10))
				}
				f := hpack.HeaderField{Name: name, Value: value, Sensitive: rnd.IntN(10) == 0}
				want = append(want, f)
				b = addField(e, b, f)
				require.LessOrEqual(t, e.size, e.max)
			}
			_, err := d.Write(b)
			require.NoError(t, err)
			require.NoError(t, d.Close())
			require.Equal(t, want, got)
		}
	})
}

// addField adds a field as the links do, except that sensitive ones come straight.
func addField(e *encoder, b []byte, f hpack.HeaderField) []byte {
	if f.Sensitive {
		return e.field(b, f.Name, f.Value, true)
	}
	raw := strings.ToUpper(f.Name)
	if b, ok := e.again(b, raw, f.Value); ok {
		return b
	}
	start := len(b)
	b = e.field(b, f.Name, f.Value, false)
	e.known(b, start, raw)
	return b
}

// A field at the place where the last block had it comes from a hint, until the table
// changes.
func TestEncoderHints(t *testing.T) {
	e := &encoder{max: firstTable, least: firstTable}
	field := func(name, value string) bool {
		_, ok := e.again(nil, name, value)
		if !ok {
			e.known(e.field(nil, strings.ToLower(name), value, false), 0, name)
		}
		return ok
	}
	block := func(fields ...string) (hints []bool) {
		e.begin(nil)
		for i := 0; i < len(fields); i += 2 {
			hints = append(hints, field(fields[i], fields[i+1]))
		}
		return hints
	}
	require.Equal(t, []bool{false, false}, block("Server", "a", "vary", "b"), "the first time")
	require.Equal(t, []bool{false, false}, block("Server", "a", "vary", "b"), "from the table")
	require.Equal(t, []bool{true, true}, block("Server", "a", "vary", "b"))
	require.Equal(t, []bool{false, true}, block("server", "a", "vary", "b"), "in another spelling")
	require.Equal(t, []bool{true, false}, block("server", "a", "vary", "c"), "another value, which enters the table")
	require.Equal(t, []bool{false, false}, block("server", "a", "vary", "c"), "with other indices")
	require.Equal(t, []bool{true, true}, block("server", "a", "vary", "c"))
	e.setMax(100)
	require.Equal(t, []bool{false, false}, block("server", "a", "vary", "c"), "evicted")
}

func TestEncoderComesAgain(t *testing.T) {
	e := &encoder{max: firstTable, least: firstTable}
	first := len(e.field(nil, "x-name", "value", false))
	require.Equal(t, 1, len(e.field(nil, "x-name", "value", false)), "from the table, after %d bytes", first)
	sizes := []int{}
	for range 3 {
		sizes = append(sizes, len(e.field(nil, "content-length", "12345", false)))
	}
	require.Greater(t, sizes[0], 1)
	require.Greater(t, sizes[1], 1)
	require.Equal(t, 1, sizes[2], "one that comes again is kept")
	require.Greater(t, len(e.field(nil, "x-name", "value", true)), 1, "a sensitive one never comes from a table")
}

var benchFields = [][2]string{
	{":status", "200"}, {"server", "nginx"}, {"date", "Sat, 28 Nov 2026 20:00:00 GMT"}, {"content-type", "text/plain"},
	{"content-length", "128"}, {"cache-control", "max-age=60"}, {"vary", "accept-encoding"}, {"x-request-id", "0123456789abcdef"},
}

func BenchmarkEncoder(b *testing.B) {
	e := &encoder{max: firstTable, least: firstTable}
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		out = e.begin(out[:0])
		for _, f := range benchFields {
			out = e.field(out, f[0], f[1], false)
		}
	}
}

// BenchmarkEncoderNet is the baseline, x/net's.
func BenchmarkEncoderNet(b *testing.B) {
	var out bytes.Buffer
	e := hpack.NewEncoder(&out)
	b.ReportAllocs()
	for b.Loop() {
		out.Reset()
		for _, f := range benchFields {
			_ = e.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
		}
	}
}
