// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"encoding/binary"

	"golang.org/x/net/http2/hpack"
)

// An encoder compresses fields (RFC 7541). It does what x/net's Encoder does at
// a third of the cost: its table is small, so a linear search of hashes is
// faster than a map.
type encoder struct {
	entries []entry // of the dynamic table, oldest first
	first   int     // index of the oldest entry still in the table
	size    uint32
	max     uint32
	least   uint32 // the smallest max since the last block
	resized bool   // max must be sent to the peer

	once [8]uint32 // hashes of fields that enter the table when they are sent again
	next int

	hints [16]hint
	place int    // of the next field in its block
	turns uint32 // changes of the table
}

// A hint is the field that was last sent at some place of a block, if it was one
// byte. Most blocks are like the one before.
type hint struct {
	raw, value string // raw is the name in the caller's spelling
	turn       uint32 // of the encoder; other turns make it invalid
	wire       byte   // 0 means none
}

// again appends a field that was sent at the same place of the block before, and
// reports whether it was.
func (e *encoder) again(b []byte, raw, value string) ([]byte, bool) {
	h := &e.hints[e.place%len(e.hints)]
	if h.wire == 0 || h.turn != e.turns || h.raw != raw || h.value != value {
		return b, false
	}
	e.place++
	return append(b, h.wire), true
}

// known notes that a field was sent as b[start:]. It keeps the table's strings and not
// the caller's, but for raw.
func (e *encoder) known(b []byte, start int, raw string) {
	h := &e.hints[e.place%len(e.hints)]
	e.place++
	if *h = (hint{}); raw == "" || len(b) != start+1 || b[start]&0x80 == 0 {
		return
	}
	h.wire, h.turn = b[start], e.turns
	if i := int(h.wire & 0x7f); i <= len(staticTable) {
		h.raw, h.value = staticTable[i-1][0], staticTable[i-1][1]
	} else {
		o := &e.entries[len(e.entries)+len(staticTable)-i]
		h.raw, h.value = o.name, o.value
	}
	if h.raw != raw {
		h.raw = raw
	}
}

type entry struct {
	name, value string
	hash, named uint32 // of name and value, and of the name
}

const entryOverhead = 32 // RFC 7541, section 4.1

// setMax bounds the table by the peer's limit and by x/net's default.
func (e *encoder) setMax(n uint32) {
	e.max = min(n, firstTable)
	e.least = min(e.least, e.max)
	e.resized = true
	e.evict(e.max)
}

func (e *encoder) evict(to uint32) {
	for e.size > to {
		e.turns++
		o := &e.entries[e.first]
		e.size -= o.size()
		*o = entry{}
		e.first++
	}
	if e.first > 64 && e.first > len(e.entries)/2 {
		n := copy(e.entries, e.entries[e.first:])
		clear(e.entries[n:])
		e.entries, e.first = e.entries[:n], 0
	}
}

func (o *entry) size() uint32 { return uint32(len(o.name)+len(o.value)) + entryOverhead }

// begin appends the table size updates at the beginning of a block.
func (e *encoder) begin(b []byte) []byte {
	e.place = 0
	if !e.resized {
		return b
	}
	e.resized = false
	if e.least < e.max {
		// The size went down and up again, and both must be sent (RFC 7541, section
		// 4.2). x/net's decoder accepts two updates only if the table is empty.
		e.evict(0)
		b = appendInt(b, 0x20, 5, 0)
	}
	e.least = e.max
	return appendInt(b, 0x20, 5, uint64(e.max))
}

// field appends a field.
func (e *encoder) field(b []byte, name, value string, sensitive bool) []byte {
	index, whole := findStatic(name, value)
	if whole && !sensitive {
		return appendInt(b, 0x80, 7, uint64(index))
	}
	named := hashOf(name)
	hash := named*31 + hashOf(value)
	for i := len(e.entries) - 1; i >= e.first; i-- {
		o := &e.entries[i]
		if o.hash == hash && o.name == name && o.value == value && !sensitive {
			return appendInt(b, 0x80, 7, uint64(len(staticTable)+len(e.entries)-i))
		}
		if index == 0 && o.named == named && o.name == name {
			index = len(staticTable) + len(e.entries) - i
		}
	}
	switch {
	case sensitive:
		b = appendInt(b, 0x10, 4, uint64(index))
	case !e.worth(name, value, hash):
		b = appendInt(b, 0x00, 4, uint64(index))
	default:
		b = appendInt(b, 0x40, 6, uint64(index))
		e.insert(entry{name, value, hash, named})
	}
	if index == 0 {
		b = appendString(b, name)
	}
	return appendString(b, value)
}

// worth reports whether a field should enter the table. A field whose value
// usually changes enters it only at the second time.
func (e *encoder) worth(name, value string, hash uint32) bool {
	if uint32(len(name)+len(value))+entryOverhead > e.max/2 {
		return false
	}
	switch name {
	case ":path", "content-length", "etag", "last-modified", "location", "set-cookie", "age", "if-none-match", "if-modified-since", "grpc-timeout", "x-request-id", "traceparent":
	default:
		return true
	}
	for _, h := range e.once {
		if h == hash {
			return true
		}
	}
	e.once[e.next] = hash
	e.next = (e.next + 1) % len(e.once)
	return false
}

func (e *encoder) insert(o entry) {
	e.evict(e.max - o.size())
	e.turns++
	e.entries = append(e.entries, o)
	e.size += o.size()
}

// hashOf is a fast hash that distinguishes most strings: it uses the length and
// the bytes at both ends and in the middle.
func hashOf[T string | []byte](s T) uint32 {
	n := len(s)
	h := uint64(n) * 0x9e3779b97f4a7c15
	switch {
	case n >= 8:
		h ^= binary.LittleEndian.Uint64([]byte(s[:8])) * 0xff51afd7ed558ccd
		h ^= binary.LittleEndian.Uint64([]byte(s[n-8:])) * 0xc4ceb9fe1a85ec53
		h ^= binary.LittleEndian.Uint64([]byte(s[n/2-4:n/2+4])) * 0x2545f4914f6cdd1d
	default:
		for i := range n {
			h = (h ^ uint64(s[i])) * 0x100000001b3
		}
	}
	return uint32(h>>32) ^ uint32(h)
}

// appendInt appends an integer after the prefix bits of its first byte (RFC
// 7541, section 5.1).
func appendInt(b []byte, first byte, bits uint, n uint64) []byte {
	most := uint64(1)<<bits - 1
	if n < most {
		return append(b, first|byte(n))
	}
	b = append(b, first|byte(most))
	for n -= most; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

// appendString appends a string in the shorter of its two forms (section 5.2).
func appendString(b []byte, s string) []byte {
	if n := hpack.HuffmanEncodeLength(s); n < uint64(len(s)) {
		return hpack.AppendHuffmanString(appendInt(b, 0x80, 7, n), s)
	}
	return append(appendInt(b, 0, 7, uint64(len(s))), s...)
}

// findStatic looks up a field in the static table. Index is 0 if its name is not
// in it.
func findStatic(name, value string) (index int, whole bool) {
	if name == "" {
		return 0, false
	}
	if name[0] == ':' {
		switch name {
		case ":status":
			switch value {
			case "200":
				return 8, true
			case "204":
				return 9, true
			case "206":
				return 10, true
			case "304":
				return 11, true
			case "400":
				return 12, true
			case "404":
				return 13, true
			case "500":
				return 14, true
			}
			return 8, false
		case ":method":
			if value == "POST" {
				return 3, true
			}
			return 2, value == "GET"
		case ":path":
			if value == "/index.html" {
				return 5, true
			}
			return 4, value == "/"
		case ":scheme":
			if value == "https" {
				return 7, true
			}
			return 6, value == "http"
		case ":authority":
			return 1, value == ""
		}
		return 0, false
	}
	i := staticName(name)
	return i, i != 0 && staticTable[i-1][1] == value
}

// staticName returns the first index of a name.
func staticName(name string) int {
	lo, hi := byLength[min(len(name), len(byLength)-2)], byLength[min(len(name), len(byLength)-2)+1]
	for _, i := range lengthOrder[lo:hi] {
		if staticTable[i-1][0] == name {
			return int(i)
		}
	}
	return 0
}

// The names of the static table sorted by length, and the index of the first
// name of each length.
var lengthOrder, byLength = func() (order []uint8, begin [30]uint8) {
	for n := range len(begin) - 1 {
		begin[n] = uint8(len(order))
		for i, f := range staticTable {
			if len(f[0]) == n && (i == 0 || staticTable[i-1][0] != f[0]) {
				order = append(order, uint8(i+1))
			}
		}
	}
	begin[len(begin)-1] = uint8(len(order))
	return order, begin
}()

// staticTable is that of RFC 7541, appendix A.
var staticTable = [61][2]string{
	{":authority"}, {":method", "GET"}, {":method", "POST"}, {":path", "/"}, {":path", "/index.html"},
	{":scheme", "http"}, {":scheme", "https"}, {":status", "200"}, {":status", "204"}, {":status", "206"},
	{":status", "304"}, {":status", "400"}, {":status", "404"}, {":status", "500"}, {"accept-charset"},
	{"accept-encoding", "gzip, deflate"}, {"accept-language"}, {"accept-ranges"}, {"accept"}, {"access-control-allow-origin"},
	{"age"}, {"allow"}, {"authorization"}, {"cache-control"}, {"content-disposition"},
	{"content-encoding"}, {"content-language"}, {"content-length"}, {"content-location"}, {"content-range"},
	{"content-type"}, {"cookie"}, {"date"}, {"etag"}, {"expect"},
	{"expires"}, {"from"}, {"host"}, {"if-match"}, {"if-modified-since"},
	{"if-none-match"}, {"if-range"}, {"if-unmodified-since"}, {"last-modified"}, {"link"},
	{"location"}, {"max-forwards"}, {"proxy-authenticate"}, {"proxy-authorization"}, {"range"},
	{"referer"}, {"refresh"}, {"retry-after"}, {"server"}, {"set-cookie"},
	{"strict-transport-security"}, {"transfer-encoding"}, {"user-agent"}, {"vary"}, {"via"},
	{"www-authenticate"},
}
