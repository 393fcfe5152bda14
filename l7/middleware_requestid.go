// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"encoding/binary"
	"net/http"

	"github.com/penstock-lb/penstock/l4"
)

// RequestID gives each request an id by which it is found in the logs of all
// systems that it passes. It is made once and kept in retries. An id from a
// trusted proxy (see [TrustForwarded]) is kept if it is 1 to 128 bytes of
// letters, digits and -._~+/=:@; others are replaced.
type RequestID struct {
	Field string // "" means "X-Request-Id"

	New  func(x *Exchange) string // nil means 128 random bits as 32 hex digits
	Seed uint64                   // of those bits, for tests that need the same ids in each run; 0 means at random

	// ProxyProtocol also accepts the unique id of a PROXY header (which
	// l4.AcceptProxy has already decided to trust) if it has that form; a field of a
	// trusted proxy takes precedence. All requests of one connection then have the
	// same id.
	ProxyProtocol bool

	// Reply also adds the field to the reply, unless the server has set it.
	Reply bool

	Next http.Handler

	chance chance
	checked
}

func (h *RequestID) field() string {
	if h.Field == "" {
		return "X-Request-Id"
	}
	return h.Field
}

// ServeExchange implements [Handler].
func (h *RequestID) ServeExchange(x *Exchange) {
	id := ""
	if x.trusted {
		id = x.Header.Get(h.field())
	}
	if h.ProxyProtocol && !validID(id) && x.proxied != nil {
		v, _ := x.proxied.TLV(l4.TLVUniqueID)
		id = string(v)
	}
	if validID(id) {
		x.Header.Set(h.field(), id) // replaces the client's
	} else {
		if h.New == nil {
			id = h.random()
		} else {
			id = cleanValue(h.New(x))
		}
		x.Header.setID(h.field(), id)
	}
	x.Record.ID = id
	if h.Reply {
		x.OnReply(h)
	}
	Serve(h.Next, x)
}

// EditReply implements [ReplyEditor].
func (h *RequestID) EditReply(x *Exchange, r *Reply) {
	if !r.Header.Has(h.field()) {
		r.Header.setID(h.field(), x.Record.ID)
	}
}

func validID(id string) bool {
	if id == "" || len(id) > 128 {
		return false
	}
	for i := range len(id) {
		switch c := id[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case indexByte("-._~+/=:@", c) >= 0:
		default:
			return false
		}
	}
	return true
}

// setID is Set for a value that is known to be valid.
func (f *Fields) setID(name, id string) {
	if name == "X-Request-Id" && !f.hasAlike(name) { // nor does the name need a check
		f.ownField(name)
		f.edited = true
		f.list = append(f.list, Field{Name: name, Value: id, checked: true})
		return
	}
	f.Set(name, id)
}

// random returns 128 bits as hex digits, from the runtime's ChaCha8 generator
// unless there is a Seed.
func (h *RequestID) random() string {
	var text [32]byte
	for i := 0; i < len(text); i += 16 {
		r := h.chance.uint64(h.Seed)
		binary.BigEndian.PutUint64(text[i:], hexDigits(uint32(r>>32)))
		binary.BigEndian.PutUint64(text[i+8:], hexDigits(uint32(r)))
	}
	return string(text[:])
}

// hexDigits returns the eight hex digits of v as bytes, the first in the highest
// byte.
func hexDigits(v uint32) uint64 {
	const each = 0x0101010101010101
	x := uint64(v) // spread over the bytes, four bits each
	x = (x | x<<16) & 0x0000ffff0000ffff
	x = (x | x<<8) & 0x00ff00ff00ff00ff
	x = (x | x<<4) & 0x0f0f0f0f0f0f0f0f
	letters := (x + 6*each) >> 4 & each // 1 in those above 9
	return x + '0'*each + letters*('a'-'0'-10)
}

// ServeHTTP implements [http.Handler].
func (h *RequestID) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(h, w, r) }
