// SPDX-License-Identifier: Apache-2.0

package h2

import "golang.org/x/net/http2/hpack"

// A HeaderField is one field of a block that is decoded. It is valid until the next one.
type HeaderField struct {
	Name, Value string
	Sensitive   bool   // must enter no table on the way (RFC 7541, section 7.1.3)
	Note        *uint8 // kept while the field is in a table, for what the caller finds out about it, and 0 at first; nil if it is in none
}

// A decoder expands fields (RFC 7541). It does what x/net's Decoder does at a third of
// the cost: its table has no maps, which nothing would look into, and strings that
// come again without having entered the table are made once.
type decoder struct {
	entries []decoded // of the dynamic table, oldest first
	first   int       // index of the oldest entry still in the table
	size    uint32
	max     uint32
	notes   [len(staticTable)]uint8
	strings *recents // nil until there are some
	field   HeaderField
}

type decoded struct {
	name, value string
	note        uint8
}

func (o *decoded) size() uint32 { return uint32(len(o.name)+len(o.value)) + entryOverhead }

// recents are strings that have come at least twice, each at one of two places by its
// hash.
type recents struct {
	list [32]recent
	once [64]uint32 // hashes of strings that have come once
}

type recent struct {
	wire, text string // as received and decoded
	hash       uint32 // of wire and its form
}

const (
	mostRecent    = 64 // bytes of a recent string
	maxIntShift   = 63
	huffmanString = 0x80
)

// decode calls emit for each field of a block.
func (d *decoder) decode(b []byte, emit func(*HeaderField)) error {
	for begun := false; len(b) > 0; {
		var err error
		f := &d.field
		f.Sensitive, f.Note = false, nil
		switch c := b[0]; {
		case c&0x80 != 0: // an indexed field (section 6.1)
			var i uint64
			if i, b, err = readInt(b, 7); err == nil {
				f.Name, f.Value, f.Note, err = d.at(i)
			}
		case c&0xc0 == 0x40: // a literal that enters the table (section 6.2.1)
			if b, err = d.literal(b, 6); err == nil {
				f.Note = d.insert(f.Name, f.Value)
			}
		case c&0xe0 == 0x20: // a new size of the table (section 6.3)
			if begun {
				return compressionError("a change of the table's size behind a field")
			}
			var n uint64
			if n, b, err = readInt(b, 5); err == nil && n > firstTable {
				err = compressionError("a table larger than allowed")
			}
			if err != nil {
				return err
			}
			d.max = uint32(n)
			d.evict(d.max)
			continue
		default: // other literals (sections 6.2.2 and 6.2.3)
			b, err = d.literal(b, 4)
			f.Sensitive = c&0x10 != 0
		}
		if err != nil {
			return err
		}
		begun = true
		emit(f)
	}
	d.field = HeaderField{} // so that it holds no memory
	return nil
}

// literal reads a literal field.
func (d *decoder) literal(b []byte, bits uint) (rest []byte, err error) {
	i, b, err := readInt(b, bits)
	if err != nil {
		return b, err
	}
	f := &d.field
	if i == 0 {
		f.Name, b, err = d.string(b)
	} else {
		f.Name, _, _, err = d.at(i)
	}
	if err == nil {
		f.Value, b, err = d.string(b)
	}
	return b, err
}

// at returns the field at an index (section 2.3.3).
func (d *decoder) at(i uint64) (name, value string, note *uint8, err error) {
	switch {
	case i == 0:
	case i <= uint64(len(staticTable)):
		f := &staticTable[i-1]
		return f[0], f[1], &d.notes[i-1], nil
	case i-uint64(len(staticTable)) <= uint64(len(d.entries)-d.first):
		o := &d.entries[len(d.entries)+len(staticTable)-int(i)]
		return o.name, o.value, &o.note, nil
	}
	return "", "", nil, compressionError("an index outside the table")
}

// insert adds a field to the table. One that is too large for it empties it (section
// 4.4), and has no note.
func (d *decoder) insert(name, value string) *uint8 {
	o := decoded{name: name, value: value}
	n := o.size()
	if n > d.max {
		d.evict(0)
		return nil
	}
	d.evict(d.max - n)
	d.size += n
	d.entries = append(d.entries, o)
	return &d.entries[len(d.entries)-1].note
}

func (d *decoder) evict(to uint32) {
	for d.size > to {
		o := &d.entries[d.first]
		d.size -= o.size()
		*o = decoded{}
		d.first++
	}
	if d.first > 64 && d.first > len(d.entries)/2 {
		n := copy(d.entries, d.entries[d.first:])
		clear(d.entries[n:])
		d.entries, d.first = d.entries[:n], 0
	}
}

// string reads a string (section 5.2).
func (d *decoder) string(b []byte) (s string, rest []byte, err error) {
	if len(b) == 0 {
		return "", nil, errTruncated
	}
	form := b[0] & huffmanString
	n, b, err := readInt(b, 7)
	if err != nil {
		return "", nil, err
	}
	if n > uint64(len(b)) {
		return "", nil, errTruncated
	}
	wire, rest := b[:n], b[n:]
	if n == 0 || n > mostRecent {
		s, err = text(wire, form)
		return s, rest, err
	}
	if d.strings == nil {
		d.strings = new(recents)
	}
	h := hashOf(wire) + uint32(form)
	r, o := &d.strings.list[h%32], &d.strings.list[h>>8%32]
	switch {
	case r.hash == h && r.wire == string(wire):
		return r.text, rest, nil
	case o.hash == h && o.wire == string(wire):
		return o.text, rest, nil
	}
	s, err = text(wire, form)
	if err != nil {
		return "", nil, err
	}
	if once := &d.strings.once[h>>16%64]; *once != h {
		*once = h
		return s, rest, nil
	}
	if r.wire != "" {
		r = o
	}
	if r.hash, r.wire, r.text = h, s, s; form != 0 {
		r.wire = string(wire)
	}
	return s, rest, nil
}

// text decodes a string.
func text(wire []byte, form byte) (string, error) {
	if form == 0 {
		return string(wire), nil
	}
	s, err := hpack.HuffmanDecodeToString(wire)
	if err != nil {
		return "", compressionError("malformed Huffman code")
	}
	return s, nil
}

// readInt reads an integer behind the prefix bits of its first byte (section 5.1).
func readInt(b []byte, bits uint) (n uint64, rest []byte, err error) {
	if len(b) == 0 {
		return 0, nil, errTruncated
	}
	most := uint64(1)<<bits - 1
	n = uint64(b[0]) & most
	b = b[1:]
	if n < most {
		return n, b, nil
	}
	for shift := uint(0); len(b) > 0; shift += 7 {
		c := b[0]
		b = b[1:]
		if shift >= maxIntShift {
			return 0, nil, compressionError("an integer that is too large")
		}
		if n += uint64(c&0x7f) << shift; c&0x80 == 0 {
			return n, b, nil
		}
	}
	return 0, nil, errTruncated
}

func compressionError(reason string) error { return connError(CompressionError, reason) }

var errTruncated = compressionError("a block that breaks off")
