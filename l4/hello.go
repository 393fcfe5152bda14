// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
)

// ErrClientHello is matched, with [errors.Is], by every error about bytes that are not
// the beginning of a TLS connection. The text says why.
var ErrClientHello = errors.New("l4: bad ClientHello")

// A ClientHello is what a TLS client sends before anything is encrypted: enough to route
// a connection without a key (RFC 8446, section 4.1.2). With Encrypted Client Hello it is
// the outer one.
type ClientHello struct {
	ServerName       string                // as sent, without a check; empty if there is none (RFC 6066, section 3)
	ALPN             []string              // protocols the client would speak, the best first (RFC 7301)
	Versions         []uint16              // offered: supported_versions as sent, else all from the legacy version down to TLS 1.0
	CipherSuites     []uint16              // as sent
	Groups           []tls.CurveID         // as sent
	SignatureSchemes []tls.SignatureScheme // as sent
	Extensions       []uint16              // types, in the order sent

	legacy uint16 // the version before there was supported_versions; 0 if not known
}

// MaxVersion is the highest version of TLS the client offers of those this
// package knows, tls.VersionTLS10 to tls.VersionTLS13; 0 if it offers none.
func (h *ClientHello) MaxVersion() uint16 {
	var best uint16
	for _, v := range h.Versions {
		if v >= tls.VersionTLS10 && v <= tls.VersionTLS13 { // not GREASE (RFC 8701)
			best = max(best, v)
		}
	}
	return best
}

// ParseClientHello reads the ClientHello that b, bytes of a TLS connection, begins with.
// It may be split over any number of records. The result does not refer to b.
//
// The error is [io.ErrUnexpectedEOF] if more bytes may complete it, and matches
// [ErrClientHello] as soon as no further bytes could complete it.
//
// The parts parsed here are refused if crypto/tls refuses them, so that no
// client is routed by a name that the server parses differently.
func ParseClientHello(b []byte) (*ClientHello, error) {
	var r helloReader
	msg, err := r.read(b)
	if err != nil {
		return nil, err
	}
	return parseHello(msg)
}

func helloErrorf(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrClientHello}, args...)...)
}

const (
	recordHeaderBytes = 5
	recordMaxBytes    = 1 << 14 // of plaintext (RFC 8446, section 5.1)
	helloMaxBytes     = 1 << 16 // of one message, as in crypto/tls
	recordHandshake   = 22
	typeClientHello   = 1

	helloMaxExtensions = 128 // some 70 are registered
)

// A helloReader joins the fragments of the first handshake message. It
// continues where it stopped, so that a client that sends byte by byte, or one
// record per byte, costs no more than others.
type helloReader struct {
	off int    // bytes of records read
	msg []byte // fragments of all records but the first; the first, too, if there are several
}

// read returns the whole message, header included. Each call gets all bytes of
// the connection so far, and may be the last that sees those of the call before.
func (r *helloReader) read(b []byte) ([]byte, error) {
	for {
		rest := b[min(r.off, len(b)):]
		n, err := recordLen(rest)
		if err != nil {
			return nil, err
		}
		// The type and length of the message say early what is wrong.
		if r.off == 0 && len(rest) > recordHeaderBytes && rest[recordHeaderBytes] != typeClientHello {
			return nil, helloErrorf("message of type %d", rest[recordHeaderBytes])
		}
		if len(rest) < recordHeaderBytes+n {
			return nil, io.ErrUnexpectedEOF
		}
		fragment := rest[recordHeaderBytes : recordHeaderBytes+n]
		if r.off == 0 {
			if msg, err := wholeMessage(fragment); msg != nil || !errors.Is(err, io.ErrUnexpectedEOF) {
				return msg, err // the usual case: one record, nothing copied
			}
		}
		r.off += recordHeaderBytes + n
		r.msg = append(r.msg, fragment...)
		if msg, err := wholeMessage(r.msg); msg != nil || !errors.Is(err, io.ErrUnexpectedEOF) {
			return msg, err
		}
	}
}

// recordLen is the length of the handshake record that b begins with.
func recordLen(b []byte) (int, error) {
	if len(b) > 0 && b[0] != recordHandshake {
		return 0, helloErrorf("record of type %d", b[0])
	}
	if len(b) > 1 && b[1] != 3 {
		return 0, helloErrorf("record of major version %d", b[1])
	}
	if len(b) < recordHeaderBytes {
		return 0, io.ErrUnexpectedEOF
	}
	n := int(b[3])<<8 | int(b[4])
	if n == 0 || n > recordMaxBytes {
		return 0, helloErrorf("record of %d bytes", n)
	}
	return n, nil
}

// wholeMessage is the handshake message that b begins with.
func wholeMessage(b []byte) ([]byte, error) {
	if len(b) < 4 {
		return nil, io.ErrUnexpectedEOF
	}
	n := int(b[1])<<16 | int(b[2])<<8 | int(b[3])
	switch {
	case n > helloMaxBytes:
		return nil, helloErrorf("message of %d bytes", n)
	case len(b) < 4+n:
		return nil, io.ErrUnexpectedEOF
	}
	return b[:4+n], nil
}

// The extensions that are read.
const (
	extServerName        = 0
	extGroups            = 10
	extSignatureSchemes  = 13
	extALPN              = 16
	extSupportedVersions = 43
)

// parseHello reads a whole message (RFC 8446, section 4.1.2).
func parseHello(msg []byte) (*ClientHello, error) {
	h := new(ClientHello)
	c := cursor{b: msg[4:]}
	h.legacy = c.uint16()
	c.bytes(32) // random
	c.vector8() // session id
	suites := c.vector16()
	c.vector8() // compression methods
	h.CipherSuites = readUint16s[uint16](&suites)
	var extensions cursor
	if len(c.b) > 0 { // clients from before TLS 1.2 may have none
		extensions = c.vector16()
	}
	if c.bad || suites.bad || len(c.b) > 0 {
		return nil, helloErrorf("fields do not add up to the message")
	}
	if err := h.readExtensions(extensions); err != nil {
		return nil, err
	}
	if h.Versions == nil {
		h.Versions = versionsUpTo(h.legacy)
	}
	return h, nil
}

func (h *ClientHello) readExtensions(e cursor) error {
	var seen extensionSet
	h.Extensions = make([]uint16, 0, 24) // browsers send about 18
	for len(e.b) > 0 {
		typ, body := e.uint16(), e.vector16()
		if e.bad {
			break
		}
		if len(h.Extensions) == helloMaxExtensions || !seen.add(typ, h.Extensions) {
			return helloErrorf("extension %d twice, or more than %d of them", typ, helloMaxExtensions)
		}
		h.Extensions = append(h.Extensions, typ)
		known := true
		switch typ {
		case extServerName:
			h.readServerName(&body)
		case extALPN:
			list := body.nonEmpty(body.vector16())
			for len(list.b) > 0 {
				p := list.vector8()
				h.ALPN = append(h.ALPN, string(list.nonEmpty(p).b))
			}
			body.bad = body.bad || list.bad
		case extSupportedVersions:
			list := body.nonEmpty(body.vector8())
			h.Versions = readUint16s[uint16](&list)
			body.bad = body.bad || list.bad
		case extGroups:
			list := body.nonEmpty(body.vector16())
			h.Groups = readUint16s[tls.CurveID](&list)
			body.bad = body.bad || list.bad
		case extSignatureSchemes:
			list := body.nonEmpty(body.vector16())
			h.SignatureSchemes = readUint16s[tls.SignatureScheme](&list)
			body.bad = body.bad || list.bad
		default:
			known = false
		}
		if known && (body.bad || len(body.b) > 0) {
			return helloErrorf("extension %d", typ)
		}
	}
	if e.bad {
		return helloErrorf("extensions cut short")
	}
	return nil
}

// readServerName takes the one name of type host_name (RFC 6066, section 3).
func (h *ClientHello) readServerName(body *cursor) {
	list := body.nonEmpty(body.vector16())
	for len(list.b) > 0 {
		typ := list.uint8()
		name := list.vector16()
		name = list.nonEmpty(name)
		if typ != 0 || list.bad {
			continue
		}
		// Two names, or a trailing dot, are forbidden: which server would be meant?
		if h.ServerName != "" || name.b[len(name.b)-1] == '.' {
			list.bad = true
			break
		}
		h.ServerName = string(name.b)
	}
	body.bad = body.bad || list.bad
}

// versionsUpTo is what a client that sends no supported_versions offers by its
// legacy version: at most TLS 1.2 (RFC 8446, section 4.2.1).
func versionsUpTo(legacy uint16) []uint16 {
	var out []uint16
	for v := min(legacy, tls.VersionTLS12); v >= tls.VersionTLS10; v-- {
		out = append(out, v)
	}
	return out
}

// An extensionSet detects repeated extensions: by a bit for low types, which are nearly
// all, and by a search through those seen for the others.
type extensionSet uint64

func (s *extensionSet) add(typ uint16, seen []uint16) bool {
	if typ < 64 {
		bit := extensionSet(1) << typ
		was := *s&bit != 0
		*s |= bit
		return !was
	}
	for _, t := range seen {
		if t == typ {
			return false
		}
	}
	return true
}
