// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"iter"
	"sync"
	"sync/atomic"
	"time"
)

// A sealer makes the values of persistence cookies and reads them. A value is
// one block, 22 characters of base64url:
//
//	AES-128( first use, 4 bytes | last use, 4 bytes | tag, 8 bytes )
//
// where the tag is a MAC of the name under the scope of the cookie. Whoever
// lacks the key sees and makes only random blocks, of which one in 2^64 per
// name opens to a tag that exists; so a value can be neither read nor forged,
// and one of another scope (pool, cookie, purpose) is nothing. A block cipher
// instead of a longer construction keeps the value short and opening it free
// of allocation.
//
// The first key seals; all open. All methods may be called at once.
type sealer struct {
	once  sync.Once
	keys  []sealKey
	scope string
	all   iter.Seq[string] // where names come from
	room  sync.Pool        // of *[2]sealBlock: what is given to a cipher.Block escapes

	names   atomic.Pointer[map[uint64]sealed] // by tag
	rebuilt atomic.Int64                      // when, in Unix milliseconds
	mu      sync.Mutex                        // guards rebuilding
}

type sealKey struct {
	block cipher.Block
	tags  []byte // the key of the MAC
}

// sealed is the name behind a tag, and which key made it.
type sealed struct {
	name string
	key  int
}

// opened is what a value says.
type opened struct {
	name        string
	first, last int64 // of its uses, in Unix seconds
	old         bool  // sealed with a key that is not the first
}

// valueEpoch is the zero of the times in values, which last until 2136.
const valueEpoch = 946684800 // 2000-01-01

type sealBlock [aes.BlockSize]byte

// init takes the keys, of which a random one is made if there are none, and
// where names come from.
func (s *sealer) init(keys [][]byte, scope string, all iter.Seq[string]) {
	s.once.Do(func() {
		s.all = all
		s.room.New = func() any { return new([2]sealBlock) }
		if len(keys) == 0 {
			key := make([]byte, 32)
			_, _ = rand.Read(key) // never fails
			keys = [][]byte{key}
		}
		for _, k := range keys {
			block, err := aes.NewCipher(mac(k, "penstock value")[:16])
			if err != nil {
				panic(err) // 16 is a size of AES
			}
			s.keys = append(s.keys, sealKey{block, mac(k, "penstock tag")})
		}
		s.scope = scope
	})
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

func (s *sealer) tag(key int, name string) uint64 {
	return binary.BigEndian.Uint64(mac(s.keys[key].tags, s.scope+"\x00"+name))
}

// seal returns the value for a name.
func (s *sealer) seal(name string, first, last int64) string {
	var block [aes.BlockSize]byte
	binary.BigEndian.PutUint32(block[:], uint32(first-valueEpoch))
	binary.BigEndian.PutUint32(block[4:], uint32(last-valueEpoch))
	binary.BigEndian.PutUint64(block[8:], s.tag(0, name))
	s.keys[0].block.Encrypt(block[:], block[:])
	return base64.RawURLEncoding.EncodeToString(block[:])
}

// open returns what a value says. For the sake of names that are new the table
// of tags is made anew, once a second at most.
func (s *sealer) open(value string) (opened, bool) {
	room := s.room.Get().(*[2]sealBlock)
	defer s.room.Put(room)
	raw, block := &room[0], &room[1]
	if !decodeValue(raw, value) {
		return opened{}, false
	}
	if o, ok := s.lookup(raw, block); ok {
		return o, true
	}
	if at := time.Now().UnixMilli(); at-s.rebuilt.Load() < 1000 || !s.rebuild(at) {
		return opened{}, false
	}
	return s.lookup(raw, block)
}

func (s *sealer) lookup(raw, block *sealBlock) (opened, bool) {
	names := s.names.Load()
	if names == nil {
		return opened{}, false
	}
	for i := range s.keys {
		s.keys[i].block.Decrypt(block[:], raw[:])
		if n, ok := (*names)[binary.BigEndian.Uint64(block[8:])]; ok && n.key == i {
			return opened{
				name:  n.name,
				first: valueEpoch + int64(binary.BigEndian.Uint32(block[:])),
				last:  valueEpoch + int64(binary.BigEndian.Uint32(block[4:])),
				old:   i > 0,
			}, true
		}
	}
	return opened{}, false
}

// rebuild makes the table of tags anew. It fails if another goroutine does.
func (s *sealer) rebuild(at int64) bool {
	if !s.mu.TryLock() {
		return false
	}
	defer s.mu.Unlock()
	names := make(map[uint64]sealed)
	for name := range s.all {
		for i := range s.keys {
			names[s.tag(i, name)] = sealed{name, i}
		}
	}
	s.names.Store(&names)
	s.rebuilt.Store(at)
	return true
}

// valueLen is the length of a value: 16 bytes in base64url without padding.
const valueLen = (aes.BlockSize*8 + 5) / 6

// decodeValue is base64.RawURLEncoding.Strict().Decode without allocation.
func decodeValue(dst *sealBlock, value string) bool {
	if len(value) != valueLen {
		return false
	}
	var acc, bits, n uint32
	for i := range len(value) {
		v := valueDigit[value[i]]
		if v == 0 {
			return false
		}
		acc, bits = acc<<6|uint32(v-1), bits+6
		if bits >= 8 {
			bits -= 8
			dst[n] = byte(acc >> bits)
			n++
		}
	}
	return acc&(1<<bits-1) == 0 // one value, one spelling
}

// valueDigit is the value of a digit of base64url, plus one.
var valueDigit = func() (t [256]byte) {
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	for i := range len(digits) {
		t[digits[i]] = byte(i + 1)
	}
	return t
}()
