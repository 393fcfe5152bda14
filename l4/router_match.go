// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"errors"
	"io"
)

// A Verdict is the answer of a [Matcher].
type Verdict uint8

// NeedMore counts as No once no more bytes can come.
const (
	No       Verdict = iota // whatever comes
	NeedMore                // it depends on bytes that are not there yet
	Yes                     // whatever comes
)

func (v Verdict) String() string {
	return word(v, "no", "need more", "yes")
}

// A Matcher looks at a connection that is being routed. It is asked again each time bytes
// arrive, and must answer No or Yes as soon as no further bytes can change the answer, so
// that a client that waits for the server to speak does not wait longer than necessary.
// It must not block, and may be called for many connections at once.
//
// SNI and the like make one; TLS, SSH and the like are one.
type Matcher func(*Peeked) Verdict

// Peeked is what a [Matcher] is given of a connection.
type Peeked struct {
	Conn  *Conn  // for its addresses and its TLS state; must not be read, written or closed
	Data  []byte // what the client has sent so far; must not be changed or kept
	Final bool   // nothing will be added to Data

	hello    *ClientHello
	helloErr error // other than io.ErrUnexpectedEOF
	reader   helloReader
	noLine   int // bytes after an empty line without another line end
}

// Hello returns the ClientHello that Data begins with. It is parsed once, however many
// matchers ask. The verdict is No if Data is something else, and the hello is nil unless
// the verdict is Yes.
func (p *Peeked) Hello() (*ClientHello, Verdict) {
	if p.hello == nil && p.helloErr == nil {
		msg, err := p.reader.read(p.Data)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, NeedMore
		}
		if err == nil {
			p.hello, err = parseHello(msg)
		}
		p.helloErr = err
	}
	if p.helloErr != nil {
		return nil, No
	}
	return p.hello, Yes
}

// JA4 returns the JA4 fingerprint of the client: of the ClientHello that Data begins
// with, or, if the TLS of the connection was ended here, the one that was kept then
// ([TerminateTLS.JA4]). It is made once. The verdict is No if there is none.
func (p *Peeked) JA4() (string, Verdict) {
	if kept := JA4Of(p.Conn); kept != "" {
		return kept, Yes
	}
	if p.Conn.TLS() != nil {
		return "", No
	}
	h, v := p.Hello()
	if v != Yes {
		return "", v
	}
	ja4 := h.JA4()
	p.Conn.keepJA4(ja4)
	return ja4, Yes
}

// All matches if all of the matchers do. An empty All always matches.
func All(matchers ...Matcher) Matcher {
	return func(p *Peeked) Verdict {
		all := Yes
		for _, m := range matchers {
			all = min(all, m(p)) // No < NeedMore < Yes
		}
		return all
	}
}

// Any matches if one of the matchers does. An empty Any never matches.
func Any(matchers ...Matcher) Matcher {
	return func(p *Peeked) Verdict {
		any := No
		for _, m := range matchers {
			any = max(any, m(p))
		}
		return any
	}
}

// Not matches if m does not. A matcher that still needs more when no more can come does
// not match, so its Not does.
func Not(m Matcher) Matcher {
	return func(p *Peeked) Verdict {
		switch v := m(p); {
		case v == Yes:
			return No
		case v == NeedMore && !p.Final:
			return NeedMore
		}
		return Yes
	}
}
