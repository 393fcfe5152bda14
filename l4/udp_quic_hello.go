// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// A quicHello puts the ClientHello of a connection together from the Initial packets of the
// client. Those are encrypted with keys that follow from the id that the client has chosen:
// that keeps out accidents, and no observer (RFC 9001, section 5.2).
//
// Nothing is kept between two datagrams but the datagrams, which are bounded: read begins at
// the first one again. It is large, and for one goroutine.
type quicHello struct {
	version uint32
	dst     quicID
	keys    *quicKeys // nil until there was an Initial packet
	opened  bool      // one of them could be decrypted
	differs bool      // a byte came twice, and was not the same

	data [udpKeep]byte        // the crypto stream, with holes
	have [udpKeep / 64]uint64 // which bytes of it are there
	n    int                  // bytes of it before the first hole

	clear []byte // of one packet
}

var (
	errQUICInitial = fmt.Errorf("%w: no Initial packet of QUIC", ErrClientHello)
	errQUICDiffers = fmt.Errorf("%w: a part came twice, and was not the same", ErrClientHello)
	errQUICVersion = fmt.Errorf("%w: not a version of QUIC that is known", ErrClientHello)
)

// read returns the ClientHello in datagrams that begin a connection. The error is
// io.ErrUnexpectedEOF if there may be more of it.
func (q *quicHello) read(datagrams [][]byte) (*ClientHello, error) {
	q.keys, q.opened, q.differs, q.n = nil, false, false, 0
	clear(q.have[:])
	for _, b := range datagrams {
		if len(b) < quicInitialBytes {
			continue // a server discards an Initial packet in so small a datagram (RFC 9000, section 14.1)
		}
		if err := q.add(b); err != nil {
			return nil, err
		}
	}
	if q.keys != nil && !q.opened {
		return nil, errQUICInitial
	}
	if q.differs { // which of the two would the server take?
		return nil, errQUICDiffers
	}
	b := q.data[:q.n]
	if len(b) > 0 && b[0] != typeClientHello {
		return nil, helloErrorf("message of type %d", b[0])
	}
	msg, err := wholeMessage(b)
	if err != nil {
		return nil, err
	}
	return parseHello(msg)
}

// add takes the Initial packets of a datagram. Those that cannot be read are passed over: the
// server would not read them either.
func (q *quicHello) add(datagram []byte) error {
	for len(datagram) > 0 {
		p, ok := parseQUIC(datagram)
		if ok && p.kind == quicUnknown && q.keys == nil {
			return errQUICVersion
		}
		if !ok || p.kind != quicInitial && p.kind != quicZeroRTT {
			break // what ends a datagram: a packet without a length, or padding
		}
		header, packet, next, ok := p.body()
		if !ok {
			if p.kind == quicInitial && q.keys == nil {
				return errQUICInitial // it is cut, and nothing has come before it
			}
			break
		}
		if p.kind == quicInitial {
			q.packet(&p, header, packet)
		}
		datagram = next
	}
	return nil
}

// packet takes an Initial packet.
func (q *quicHello) packet(p *quicPacket, header int, packet []byte) {
	id := quicIDOf(p.dst)
	if q.keys == nil {
		keys, err := newQUICKeys(p.version, p.dst)
		if err != nil {
			return
		}
		q.keys, q.version, q.dst = keys, p.version, id
	}
	if p.version != q.version || id != q.dst {
		return
	}
	var ok bool
	if q.clear, ok = q.keys.open(q.clear[:0], packet, header); ok {
		q.opened = true
		q.frames(q.clear)
	}
}

// Frames of the Initial packets that begin a connection (RFC 9000, section 12.4).
const (
	quicPadding = 0x00
	quicPing    = 0x01
	quicCrypto  = 0x06
)

// frames takes the frames of a packet, up to the first that does not belong there.
func (q *quicHello) frames(b []byte) {
	c := cursor{b: b}
	for len(c.b) > 0 {
		switch c.varint() {
		case quicPadding:
			c.b = bytes.TrimLeft(c.b, "\x00")
		case quicPing:
		case quicCrypto:
			off := c.varint()
			data := c.bytes(c.varint())
			if c.bad || off+len(data) > len(q.data) {
				return
			}
			q.crypto(off, data)
		default: // a client has nothing to acknowledge before there was a reply
			return
		}
	}
}

// crypto takes a part of the crypto stream. What comes twice must be the same (RFC 9000,
// section 2.2).
func (q *quicHello) crypto(off int, data []byte) {
	for i, b := range data {
		at := off + i
		if word, bit := &q.have[at/64], uint64(1)<<(at%64); *word&bit == 0 {
			*word |= bit
			q.data[at] = b
		} else if q.data[at] != b {
			q.differs = true
		}
	}
	for q.n < len(q.data) && q.have[q.n/64]>>(q.n%64)&1 != 0 {
		q.n++
	}
}

// quicKeys protect the Initial packets of a client.
type quicKeys struct {
	aead   cipher.AEAD
	header cipher.Block
	iv     [12]byte
}

// The salts of the versions (RFC 9001, section 5.2; RFC 9369, section 3.3.1).
const (
	quicSaltV1 = "\x38\x76\x2c\xf7\xf5\x59\x34\xb3\x4d\x17\x9a\xe6\xa4\xc8\x0c\xad\xcc\xbb\x7f\x0a"
	quicSaltV2 = "\x0d\xed\xe3\xde\xf7\x00\xa6\xdb\x81\x93\x81\xbe\x6e\x26\x9d\xcb\xf9\xbd\x2e\xd9"
)

func newQUICKeys(version uint32, dst []byte) (*quicKeys, error) {
	salt, label := quicSaltV1, "quic "
	if version == quicV2 {
		salt, label = quicSaltV2, "quicv2 "
	}
	initial, err := hkdf.Extract(sha256.New, dst, []byte(salt))
	if err != nil {
		return nil, err
	}
	var failed error
	expand := func(secret []byte, label string, n int) []byte {
		b, err := hkdf.Expand(sha256.New, secret, tlsLabel(label, n), n)
		if err != nil {
			failed = err
		}
		return b
	}
	client := expand(initial, "client in", sha256.Size)
	key, iv, hp := expand(client, label+"key", 16), expand(client, label+"iv", 12), expand(client, label+"hp", 16)
	if failed != nil {
		return nil, failed
	}
	k := &quicKeys{iv: [12]byte(iv)}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	if k.aead, err = cipher.NewGCM(block); err != nil {
		return nil, err
	}
	k.header, err = aes.NewCipher(hp)
	return k, err
}

// opens reports whether an Initial packet is encrypted by the id that it goes to, as those that
// begin a connection are.
func (p *quicPacket) opens() bool {
	header, packet, _, ok := p.body()
	if !ok {
		return false
	}
	keys, err := newQUICKeys(p.version, p.dst)
	if err != nil {
		return false
	}
	_, ok = keys.open(nil, packet, header)
	return ok
}

// tlsLabel is the HkdfLabel of TLS 1.3, without a context (RFC 8446, section 7.1).
func tlsLabel(label string, n int) string {
	const prefix = "tls13 "
	b := binary.BigEndian.AppendUint16(nil, uint16(n))
	b = append(b, byte(len(prefix)+len(label)))
	b = append(append(b, prefix...), label...)
	return string(append(b, 0))
}

// open decrypts a packet whose first header bytes come before the packet number, and appends
// to to what is in it (RFC 9001, section 5.4).
func (k *quicKeys) open(to, packet []byte, header int) ([]byte, bool) {
	const longest, sample = 4, aes.BlockSize // a packet number has 1 to 4 bytes
	if len(packet) < header+longest+sample {
		return to, false
	}
	var mask [aes.BlockSize]byte
	k.header.Encrypt(mask[:], packet[header+longest:header+longest+sample])
	head := append(make([]byte, 0, 128), packet[:header+longest]...)
	head[0] ^= mask[0] & 0x0f
	n := int(head[0]&3) + 1
	head = head[:header+n]
	nonce := k.iv
	for i := range n {
		head[header+i] ^= mask[1+i]
		nonce[12-n+i] ^= head[header+i] // the first packets: the number is not longer than what is sent
	}
	clear, err := k.aead.Open(to, nonce[:], packet[header+n:], head)
	return clear, err == nil
}
