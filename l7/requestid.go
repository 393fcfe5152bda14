// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"encoding/hex"
	"math/rand/v2"
	"net/http"
)

// RequestID gives each request a name by which it is found in the logs of
// everybody it passes. It is made once and stays with the request through
// retries. One that a trusted proxy (see Server.Trust) sent is taken over if
// it is 1 to 128 bytes of letters, digits and -._~+/=:@; others are replaced.
type RequestID struct {
	Field string // "" means "X-Request-Id"

	New func(x *Exchange) string // nil means 128 random bits as 32 hex digits

	// Reply also puts the field into the reply, where a server's own wins.
	Reply bool

	Next http.Handler
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
	if !validID(id) {
		if h.New != nil {
			id = h.New(x)
		} else {
			id = randomID()
		}
		x.Header.Set(h.field(), id)
	}
	if h.Reply {
		x.OnReply(h)
	}
	Serve(h.Next, x)
}

// EditReply implements [ReplyEditor].
func (h *RequestID) EditReply(x *Exchange, r *Reply) {
	if !r.Header.Has(h.field()) {
		r.Header.Add(h.field(), x.Header.Get(h.field()))
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

func randomID() string {
	var raw [16]byte
	hi, lo := rand.Uint64(), rand.Uint64()
	for i := range 8 {
		raw[i], raw[8+i] = byte(hi>>(8*i)), byte(lo>>(8*i))
	}
	var text [32]byte
	hex.Encode(text[:], raw[:])
	return string(text[:])
}

// ServeHTTP implements [http.Handler].
func (h *RequestID) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(h, w, r) }
