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

// opened is what a value says. It is passed in registers, which it just fits.
type opened struct {
	name        string
	first, last stamp // of its uses
	old         bool  // sealed with a key that is not the first
}

// A stamp is a time in seconds since 2000, which lasts until 2136.
type stamp uint32

const valueEpoch = 946684800 // 2000-01-01, in Unix seconds

func stampOf(unix int64) stamp { return stamp(unix - valueEpoch) }

func (s stamp) unix() int64 { return valueEpoch + int64(s) }

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
	binary.BigEndian.PutUint32(block[:], uint32(stampOf(first)))
	binary.BigEndian.PutUint32(block[4:], uint32(stampOf(last)))
	binary.BigEndian.PutUint64(block[8:], s.tag(0, name))
	s.keys[0].block.Encrypt(block[:], block[:])
	return base64.RawURLEncoding.EncodeToString(block[:])
}

// open returns what a value says. For the sake of names that are new the table
// of tags is made anew, once a second at most.
func (s *sealer) open(value string) (o opened, ok bool) {
	room := s.room.Get().(*[2]sealBlock)
	raw, block := &room[0], &room[1]
	if ok = decodeValue(raw, value); ok {
		if o, ok = s.lookup(raw, block); !ok && s.stale() {
			o, ok = s.lookup(raw, block)
		}
	}
	s.room.Put(room)
	return o, ok
}

func (s *sealer) lookup(raw, block *sealBlock) (o opened, ok bool) {
	names := s.names.Load()
	if names == nil {
		return o, false
	}
	for i := range s.keys {
		s.keys[i].block.Decrypt(block[:], raw[:])
		if n, ok := (*names)[binary.BigEndian.Uint64(block[8:])]; ok && n.key == i {
			o.name, o.old = n.name, i > 0
			o.first, o.last = stamp(binary.BigEndian.Uint32(block[:])), stamp(binary.BigEndian.Uint32(block[4:]))
			return o, true
		}
	}
	return o, false
}

// stale makes the table of tags anew if it is old, and reports whether it did.
func (s *sealer) stale() bool {
	at := time.Now().UnixMilli()
	return at-s.rebuilt.Load() >= 1000 && s.rebuild(at)
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
	bad := byte(0)
	for i := range valueLen / 4 {
		four := value[4*i : 4*i+4]
		a, b, c, d := valueDigit[four[0]], valueDigit[four[1]], valueDigit[four[2]], valueDigit[four[3]]
		bad |= a | b | c | d
		dst[3*i], dst[3*i+1], dst[3*i+2] = a<<2|b>>4, b<<4|c>>2, c<<6|d
	}
	a, b := valueDigit[value[valueLen-2]], valueDigit[value[valueLen-1]]
	dst[aes.BlockSize-1] = a<<2 | b>>4
	return (bad|a|b)&notDigit == 0 && b&0xf == 0 // one value, one spelling
}

// valueDigit is the value of a digit of base64url; of other bytes it has the
// bit of notDigit.
var valueDigit = func() (t [256]byte) {
	for i := range t {
		t[i] = notDigit
	}
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	for i := range len(digits) {
		t[digits[i]] = byte(i)
	}
	return t
}()

const notDigit = 0x40
