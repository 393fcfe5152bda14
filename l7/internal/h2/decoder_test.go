// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2/hpack"
)

// pairOf decodes blocks with x/net's decoder and with ours.
type pairOf struct {
	dec    decoder
	theirs *hpack.Decoder
	got    []hpack.HeaderField
	want   []hpack.HeaderField
}

func newPairOf() *pairOf {
	p := new(pairOf)
	p.dec.max = firstTable
	p.theirs = hpack.NewDecoder(firstTable, func(f hpack.HeaderField) { p.want = append(p.want, f) })
	return p
}

// decode decodes a block, and reports whether both agree that it is well-formed.
func (p *pairOf) decode(t *testing.T, block []byte) (goOn bool) {
	p.got, p.want = p.got[:0], p.want[:0]
	_, want := p.theirs.Write(block)
	if want == nil {
		want = p.theirs.Close()
	}
	err := p.dec.decode(block, func(f *HeaderField) {
		p.got = append(p.got, hpack.HeaderField{Name: f.Name, Value: f.Value, Sensitive: f.Sensitive})
		if f.Note == nil {
			return
		}
		// A note belongs to its field, as long as that is in the table.
		sum := uint8(hashOf(f.Name+"\x00"+f.Value)) | 1
		if *f.Note != 0 {
			require.Equal(t, sum, *f.Note)
		}
		*f.Note = sum
	})
	const late = "size behind a field" // which x/net allows while its table is empty, and of which it allows no second one otherwise
	if err != nil && strings.Contains(err.Error(), late) || want != nil && strings.Contains(want.Error(), "beginning of a header block") {
		return false
	}
	require.Equal(t, want == nil, err == nil, "x/net: %v, ours: %v", want, err)
	if err != nil {
		var c *ConnError
		require.ErrorAs(t, err, &c)
		require.Equal(t, CompressionError, c.Code)
		return false
	}
	require.Equal(t, len(p.want), len(p.got))
	for i := range p.want {
		require.Equal(t, p.want[i], p.got[i])
	}
	held := uint32(0)
	for i := p.dec.first; i < len(p.dec.entries); i++ {
		held += p.dec.entries[i].size()
	}
	require.Equal(t, held, p.dec.size)
	require.LessOrEqual(t, p.dec.size, p.dec.max)
	return true
}

// FuzzDecoder gives the decoder any blocks, and compares with x/net's.
func FuzzDecoder(f *testing.F) {
	f.Add([]byte{0x82, 0x86, 0x84, 0x41, 0x0f, 'w', 'w', 'w', '.', 'e', 'x', 'a', 'm', 'p', 'l', 'e', '.', 'c', 'o', 'm', 0xff, 0x82, 0xbe, 0x58, 0x08, 'n', 'o', '-', 'c', 'a', 'c', 'h', 'e'})
	f.Add([]byte{0x40, 0x88, 0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f, 0x89, 0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf})
	f.Add([]byte{0x20, 0x3f, 0xe1, 0x1f, 0x10, 1, 'a', 1, 'b', 0x0f, 0x10, 0, 0x7f, 0x80, 0x80, 0x01})
	// A table of one entry, whose name the next takes as it evicts it.
	f.Add([]byte{0x3f, 0x03, 0x40, 1, 'a', 1, 'b', 0x7e, 1, 'c', 0xbe, 0x7e, 2, 'd', 'd', 0xbe})
	// One string in both forms, at its first, second and third time.
	f.Add([]byte{0, 0x81, 0x1f, 1, 0x1f, 0, 1, 0x1f, 0x81, 0x1f, 0, 0x81, 0x1f, 1, 0x1f, 0xff, 0xff, 0, 1, 0x1f, 0x81, 0x1f, 0x50, 0, 0x90})
	// An entry that is larger than the table, and one that fills it.
	f.Add([]byte{0x3f, 0x02, 0x40, 1, 'a', 1, 'b', 0xff, 0xff, 0x40, 0, 1, 'b', 0xbe, 0x40, 1, 'a', 1, 'b', 0xff, 0xff, 0xbe})
	var many []byte // enough that entries are moved
	for i := range byte(200) {
		many = append(many, 0x40, 1, 'a'+i%3, 1, 'b'+i%5, 0xbe, 0xbf)
	}
	f.Add(append(many, 0xc0, 0x3e, 0x20, 0xff, 0xff, 0x20, 0x3f, 0xe1, 0x1f, 0x40, 1, 'a', 1, 'b', 0xbe))
	f.Fuzz(func(t *testing.T, in []byte) {
		p := newPairOf()
		for b := range bytes.SplitSeq(in, []byte{0xff, 0xff}) {
			if !p.decode(t, b) {
				return
			}
		}
	})
}

// Blocks of random programs: fields that come again or are new, in every form, while
// the table is resized, filled and emptied.
func TestDecoderAgreesWithXNet(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		p := newPairOf()
		var b bytes.Buffer
		enc := hpack.NewEncoder(&b)
		for range 200 {
			b.Reset()
			if r.IntN(20) == 0 {
				enc.SetMaxDynamicTableSize(uint32(r.IntN(firstTable + 1)))
				require.NoError(t, enc.WriteField(hpack.HeaderField{Name: ":method", Value: "GET"})) // behind the new size
			}
			for range r.IntN(12) {
				f := hpack.HeaderField{Name: fmt.Sprintf("x-%d", r.IntN(40)), Value: strings.Repeat("v", r.IntN(30)) + fmt.Sprint(r.IntN(3))}
				switch r.IntN(10) {
				case 0:
					f = hpack.HeaderField{Name: ":method", Value: "GET"}
				case 1:
					f.Sensitive = true
				case 2:
					f.Value = strings.Repeat("l", r.IntN(firstTable+200))
				case 3: // without indexing, in both forms, as nginx sends its replies
					b.WriteByte(0)
					b.Write(appendString(nil, f.Name))
					if r.IntN(2) == 0 {
						b.Write(append(appendInt(nil, 0, 7, uint64(len(f.Value))), f.Value...))
					} else {
						b.Write(hpack.AppendHuffmanString(appendInt(nil, huffmanString, 7, hpack.HuffmanEncodeLength(f.Value)), f.Value))
					}
					continue
				}
				require.NoError(t, enc.WriteField(f))
			}
			block := b.Bytes()
			if !p.decode(t, block) {
				t.Fatalf("seed %d: refused", seed)
			}
		}
	}
}

// The replies of RFC 7541, appendix C.5 and C.6, in a table of 256 bytes.
func TestDecoderReadsTheExamples(t *testing.T) {
	for name, blocks := range map[string][3]string{
		"plain": {
			"4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e1768747470733a2f2f7777772e6578616d706c652e636f6d",
			"4803333037c1c0bf",
			"88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31",
		},
		"Huffman": {
			"488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
			"4883640effc1c0bf",
			"88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := decoder{max: 256}
			for i, want := range []struct {
				fields string
				size   uint32
			}{
				{":status: 302|cache-control: private|date: Mon, 21 Oct 2013 20:13:21 GMT|location: https://www.example.com|", 222},
				{":status: 307|cache-control: private|date: Mon, 21 Oct 2013 20:13:21 GMT|location: https://www.example.com|", 222},
				{":status: 200|cache-control: private|date: Mon, 21 Oct 2013 20:13:22 GMT|location: https://www.example.com|content-encoding: gzip|set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1|", 215},
			} {
				block, err := hex.DecodeString(blocks[i])
				require.NoError(t, err)
				got := ""
				require.NoError(t, d.decode(block, func(f *HeaderField) { got += f.Name + ": " + f.Value + "|" }))
				require.Equal(t, want.fields, got)
				require.Equal(t, want.size, d.size)
			}
		})
	}
}

// What is malformed is refused with the reason.
func TestDecoderRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		block []byte
		want  string
	}{
		"index 0":                  {[]byte{0x80}, "an index outside the table"},
		"index above the table":    {[]byte{0xbe}, "an index outside the table"},
		"name above the table":     {[]byte{0x7e, 1, 'a'}, "an index outside the table"},
		"no value":                 {[]byte{0x44}, "a block that breaks off"},
		"half a value":             {[]byte{0x44, 3, 'a', 'b'}, "a block that breaks off"},
		"half an integer":          {[]byte{0xff, 0x80}, "a block that breaks off"},
		"a large integer":          {append([]byte{0xff}, bytes.Repeat([]byte{0x80}, 10)...), "an integer that is too large"},
		"size behind a field":      {[]byte{0x82, 0x20}, "a change of the table's size behind a field"},
		"size above the limit":     {[]byte{0x3f, 0xe2, 0x1f}, "a table larger than allowed"},
		"end of string in Huffman": {[]byte{0x44, 0x84, 0xff, 0xff, 0xff, 0xff}, "malformed Huffman code"},
		"padding of a whole byte":  {[]byte{0x44, 0x82, 0x1f, 0xff}, "malformed Huffman code"},
	} {
		t.Run(name, func(t *testing.T) {
			d := decoder{max: firstTable}
			require.ErrorContains(t, d.decode(c.block, func(*HeaderField) {}), c.want)
		})
	}
}

// Replies with the same fields cost no allocation, whether these are in the table or
// are sent as literals each time.
func TestDecoderMakesStringsOnce(t *testing.T) {
	d := decoder{max: firstTable}
	var block []byte
	for _, v := range []string{"Mon, 30 Nov 2026 02:00:00 GMT", "application/grpc", "128"} {
		block = appendString(append(block, 0x0f, 0x12), v)
		block = appendString(appendString(append(block, 0), "x-name"), v)
	}
	n := 0
	emit := func(*HeaderField) { n++ }
	decode := func() { require.NoError(t, d.decode(block, emit)) }
	decode()
	decode()
	require.Zero(t, testing.AllocsPerRun(100, decode))
	require.Equal(t, 6*103, n)
}

func BenchmarkDecode(b *testing.B) {
	var indexed, literal []byte
	e := encoder{max: firstTable, least: firstTable}
	fields := [][2]string{{":status", "200"}, {"server", "nginx/1.22.1"}, {"date", "Mon, 30 Nov 2026 02:00:00 GMT"}, {"content-type", "application/grpc"}, {"content-length", "128"}, {"x-request-class", "interactive"}}
	for range 3 {
		indexed = e.begin(nil)
		for _, f := range fields {
			indexed = e.field(indexed, f[0], f[1], false)
		}
	}
	for _, f := range fields {
		literal = appendString(appendString(append(literal, 0), f[0]), f[1])
	}
	var warm []byte
	e = encoder{max: firstTable, least: firstTable}
	for _, f := range fields {
		warm = e.field(warm, f[0], f[1], false)
	}
	for _, f := range fields { // content-length enters at its second time
		warm = e.field(warm, f[0], f[1], false)
	}
	for name, block := range map[string][]byte{"indexed": indexed, "literal": literal} {
		b.Run(name, func(b *testing.B) {
			d := decoder{max: firstTable}
			emit := func(*HeaderField) {}
			if err := d.decode(warm, emit); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := d.decode(block, emit); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/xnet", func(b *testing.B) {
			d := hpack.NewDecoder(firstTable, func(hpack.HeaderField) {})
			if _, err := d.Write(warm); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := d.Write(block); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
