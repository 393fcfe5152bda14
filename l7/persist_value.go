// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"iter"
	randv2 "math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A sealer makes the values of persistence cookies and reads them. A value is
// a random number and one block, 32 characters of base64url:
//
//	n, 8 bytes | AES-128( mask(n) xor ( first use, 4 bytes | last use, 4 bytes | tag, 8 bytes ) )
//
// where the tag is a MAC of the name under the scope of the cookie, and the mask
// is n under another key: CBC with a secret initial vector. Without the keys a
// client sees and makes only random blocks, of which one in 2^64 per name
// decrypts to an existing tag. So a value can be neither read nor forged, and a
// value of another scope (pool, cookie, purpose) is invalid. No two values are
// the same, so they do not reveal the number of servers. A single block keeps
// the value short, and opening it does not allocate.
//
// The first key seals; all keys open. All methods may be called at once.
type sealer struct {
	once  sync.Once
	keys  []sealKey
	scope string
	all   iter.Seq[string] // yields the names
	room  sync.Pool        // of *sealRoom: arguments of a cipher.Block escape

	names   atomic.Pointer[map[uint64]sealed] // by tag
	rebuilt atomic.Int64                      // time of the last rebuild, in Unix milliseconds
	mu      sync.Mutex                        // guards rebuilding
}

type sealKey struct {
	block cipher.Block
	masks cipher.Block
	tags  []byte // the key of the MAC
}

// sealed is the name of a tag, and the key that made it.
type sealed struct {
	name string
	key  int
}

// opened is the content of a value. It just fits into registers.
type opened struct {
	name        string
	first, last stamp // of its uses
	old         bool  // sealed with a key other than the first
}

// A stamp is a time in seconds since 2000; it overflows in 2136.
type stamp uint32

const valueEpoch = 946684800 // 2000-01-01, in Unix seconds

func stampOf(unix int64) stamp { return stamp(unix - valueEpoch) }

func (s stamp) unix() int64 { return valueEpoch + int64(s) }

type sealBlock [aes.BlockSize]byte

const nonceLen = 8

type sealRoom struct {
	raw         [nonceLen + aes.BlockSize]byte
	mask, block sealBlock
}

// masked computes the mask of the number at the beginning of raw.
func (r *sealRoom) masked(k *sealKey) {
	r.mask = sealBlock{}
	copy(r.mask[:], r.raw[:nonceLen])
	k.masks.Encrypt(r.mask[:], r.mask[:])
}

// init sets the keys and the source of names. Without keys it makes a random
// one. A key that is too short is not used: anyone could seal with the empty
// one.
func (s *sealer) init(keys [][]byte, scope string, all iter.Seq[string]) {
	s.once.Do(func() {
		s.all = all
		s.room.New = func() any { return new(sealRoom) }
		keys = slices.DeleteFunc(slices.Clone(keys), func(k []byte) bool { return len(k) < minKeyBytes })
		if len(keys) == 0 {
			key := make([]byte, 32)
			_, _ = rand.Read(key) // never fails
			keys = [][]byte{key}
		}
		for _, k := range keys {
			s.keys = append(s.keys, sealKey{sealCipher(k, "penstock value"), sealCipher(k, "penstock mask"), mac(k, "penstock tag")})
		}
		s.scope = scope
	})
}

func sealCipher(key []byte, text string) cipher.Block {
	block, err := aes.NewCipher(mac(key, text)[:16])
	if err != nil {
		panic(err) // 16 is a size of AES
	}
	return block
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

func (s *sealer) tag(key int, name string) uint64 {
	return binary.BigEndian.Uint64(mac(s.keys[key].tags, s.scope+"\x00"+name))
}

// seal returns a value for a name.
func (s *sealer) seal(name string, first, last int64) string {
	room := s.room.Get().(*sealRoom)
	k, block := &s.keys[0], &room.block
	binary.BigEndian.PutUint32(block[:], uint32(stampOf(first)))
	binary.BigEndian.PutUint32(block[4:], uint32(stampOf(last)))
	binary.BigEndian.PutUint64(block[8:], s.tag(0, name))
	binary.BigEndian.PutUint64(room.raw[:], randv2.Uint64()) // it need not be secret
	room.masked(k)
	subtle.XORBytes(block[:], block[:], room.mask[:])
	k.block.Encrypt(room.raw[nonceLen:], block[:])
	value := base64.RawURLEncoding.EncodeToString(room.raw[:])
	s.room.Put(room)
	return value
}

// open returns the content of a value. If its tag is unknown, the table of tags
// is rebuilt, once a second at most, since the name may be new.
func (s *sealer) open(value string) (o opened, ok bool) {
	room := s.room.Get().(*sealRoom)
	if ok = decodeValue(&room.raw, value); ok {
		if o, ok = s.lookup(room); !ok && s.stale() {
			o, ok = s.lookup(room)
		}
	}
	s.room.Put(room)
	return o, ok
}

func (s *sealer) lookup(room *sealRoom) (o opened, ok bool) {
	names := s.names.Load()
	if names == nil {
		return o, false
	}
	block := &room.block
	for i := range s.keys {
		room.masked(&s.keys[i])
		s.keys[i].block.Decrypt(block[:], room.raw[nonceLen:])
		subtle.XORBytes(block[:], block[:], room.mask[:])
		if n, ok := (*names)[binary.BigEndian.Uint64(block[8:])]; ok && n.key == i {
			o.name, o.old = n.name, i > 0
			o.first, o.last = stamp(binary.BigEndian.Uint32(block[:])), stamp(binary.BigEndian.Uint32(block[4:]))
			return o, true
		}
	}
	return o, false
}

// stale rebuilds the table of tags if it is old, and reports whether it did.
func (s *sealer) stale() bool {
	at := time.Now().UnixMilli()
	return at-s.rebuilt.Load() >= 1000 && s.rebuild(at)
}

// rebuild rebuilds the table of tags. It does nothing and returns false if another
// goroutine is doing so.
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

// valueLen is the length of a value: 24 bytes in base64url.
const valueLen = (nonceLen + aes.BlockSize) / 3 * 4

// decodeValue is base64.RawURLEncoding.Decode without allocation.
func decodeValue(dst *[nonceLen + aes.BlockSize]byte, value string) bool {
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
	return bad&notDigit == 0
}

// valueDigit returns the value of a base64url digit; for other bytes it has the
// bit notDigit set.
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

// keys adds a mistake for each key that is short enough to guess.
func (c *checks) keys(field string, keys [][]byte) {
	for i, k := range keys {
		c.If(len(k) < minKeyBytes, fmt.Sprintf("%s[%d]", field, i), fmt.Sprintf("%d bytes", len(k)),
			"must be 16 random bytes or more: with the key, a client could choose its server")
	}
}

const minKeyBytes = 16
