// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"fmt"

	"github.com/penstock-lb/penstock/balance"
)

// LDAP passes when a simple bind succeeds, an anonymous one unless there is a DN.
//
// Source: RFC 4511, sections 4.1.1, 4.1.9, 4.2 and 5.1 (encoding).
type LDAP struct {
	Connect  Connect // TLS makes it ldaps
	DN       string  // empty means anonymous
	Password string
}

// Tags of the messages, and of the types in them (X.690).
const (
	berInteger    = 0x02
	berString     = 0x04
	berEnumerated = 0x0a
	berSequence   = 0x30

	ldapBindRequest   = 0x60
	ldapBindResponse  = 0x61
	ldapUnbindRequest = 0x42
	ldapExtended      = 0x78
	ldapSimple        = 0x80
)

// Probe binds and unbinds.
func (p LDAP) Probe(ctx context.Context, e balance.Endpoint) error {
	s, err := p.Connect.open(ctx, e, 0)
	defer s.close()
	if err != nil {
		return err
	}
	s.step = "bind"
	bind := ber(ldapBindRequest, ber(berInteger, []byte{3}), ber(berString, []byte(p.DN)), ber(ldapSimple, []byte(p.Password)))
	if err := s.send(ber(berSequence, ber(berInteger, []byte{1}), bind)); err != nil {
		return err
	}
	message, err := s.berMessage()
	if err != nil {
		return err
	}
	result, text, ok := ldapResult(message)
	switch {
	case !ok:
		return s.error(CodeProtocol, "unexpected answer %s", quote(message))
	case result == 0:
		s.send(ber(berSequence, ber(berInteger, []byte{2}), ber(ldapUnbindRequest)))
		return nil
	case result == 8, result >= 48 && result <= 50: // stronger or other authentication, invalid credentials, access
		return s.error(CodeAuth, "%s", text)
	}
	return s.error(CodeStatus, "%s", text)
}

// berMessage reads one sequence and returns what is in it.
func (s *session) berMessage() ([]byte, error) {
	head, err := s.block(2)
	if err != nil {
		return nil, err
	}
	if head[0] != berSequence {
		return nil, s.error(CodeProtocol, "unexpected answer %s", quote(head))
	}
	n := int(head[1])
	if n >= 0x80 {
		size, err := s.block(n & 0x7f)
		if err != nil {
			return nil, err
		}
		if len(size) == 0 || len(size) > 4 {
			return nil, s.error(CodeProtocol, "a length of %d bytes", len(size))
		}
		n = berLength(size)
	}
	return s.block(n)
}

// ldapResult reads an LDAPMessage with a bind response, or with the notice that
// a server sends before it hangs up (section 4.4.1).
func ldapResult(b []byte) (result int, text string, ok bool) {
	tag, _, b, ok := berNext(b)
	if !ok || tag != berInteger {
		return 0, "", false
	}
	tag, body, _, ok := berNext(b)
	if !ok || tag != ldapBindResponse && tag != ldapExtended {
		return 0, "", false
	}
	notice := tag == ldapExtended
	tag, code, rest, ok := berNext(body)
	if !ok || tag != berEnumerated || len(code) != 1 || code[0] == 0 && notice {
		return 0, "", false
	}
	_, _, rest, ok = berNext(rest) // matched name
	if !ok {
		return 0, "", false
	}
	_, diagnostic, _, ok := berNext(rest)
	return int(code[0]), printable(fmt.Sprintf("result %d %s", code[0], diagnostic)), ok
}

// ber encodes one element.
func ber(tag byte, parts ...[]byte) []byte {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	b := []byte{tag, byte(n)}
	if n >= 0x80 {
		b = []byte{tag, 0x84, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
	}
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// berNext takes the first element off b.
func berNext(b []byte) (tag byte, value, rest []byte, ok bool) {
	if len(b) < 2 {
		return 0, nil, nil, false
	}
	tag, n := b[0], int(b[1])
	b = b[2:]
	if n >= 0x80 {
		size := n & 0x7f
		if size == 0 || size > 4 || size > len(b) {
			return 0, nil, nil, false
		}
		n, b = berLength(b[:size]), b[size:]
	}
	if n < 0 || n > len(b) {
		return 0, nil, nil, false
	}
	return tag, b[:n], b[n:], true
}

// berLength reads a length of at most 4 bytes; one that no answer has becomes -1.
func berLength(b []byte) int {
	var n uint32
	for _, c := range b {
		n = n<<8 | uint32(c)
	}
	if n > 1<<30 {
		return -1
	}
	return int(n)
}
