// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"encoding/binary"
	"strings"

	"github.com/penstock-lb/penstock/balance"
)

// PostgreSQL passes when the server asks for a password, or lets the user in
// without one. It sends no password. A server that is starting up or shutting
// down says so and fails with CodeStatus, as one without a free connection does;
// one whose rules reject the user fails with CodeAuth.
//
// With Connect.TLS it asks for TLS in the protocol's own way first; a server that
// has none fails with CodeTLS.
//
// It does not tell a primary from a standby. The example does, by a [Script] without a
// driver, for a user without a password. Otherwise take [HTTP] where Patroni answers
// (/primary), or a [Func] that asks SELECT pg_is_in_recovery() by a driver.
//
// Source: PostgreSQL documentation, "Frontend/Backend Protocol", 3.0.
type PostgreSQL struct {
	Connect  Connect
	User     string // empty means "postgres"
	Database string // empty means that of the user's name
}

// Probe begins a session and ends it.
func (p PostgreSQL) Probe(ctx context.Context, e balance.Endpoint) error {
	s, err := p.Connect.openClear(ctx, e, 0)
	defer s.close()
	if err != nil {
		return err
	}
	if p.Connect.TLS != nil {
		if err := s.postgresTLS(); err != nil {
			return err
		}
	}
	s.step = "startup"
	startup := []byte{0, 0, 0, 0, 0, 3, 0, 0} // length, version 3.0
	parameters := []string{"user", or(p.User, "postgres"), "application_name", "penstock"}
	if p.Database != "" {
		parameters = append(parameters, "database", p.Database)
	}
	for _, word := range parameters {
		startup = append(append(startup, word...), 0)
	}
	startup = append(startup, 0)
	binary.BigEndian.PutUint32(startup, uint32(len(startup)))
	if err := s.send(startup); err != nil {
		return err
	}
	return s.postgresReady()
}

// postgresTLS asks for TLS and does the handshake.
func (s *session) postgresTLS() error {
	s.step = "SSLRequest"
	if err := s.send([]byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f}); err != nil {
		return err
	}
	answer, err := s.block(1)
	if err != nil {
		return err
	}
	if more := s.r.Buffered(); more > 0 && answer[0] != 'E' { // one letter is all that PostgreSQL says
		rest, _ := s.r.Peek(min(more, 4))
		return s.error(CodeProtocol, "unexpected answer %s", quote(append(answer, rest...)))
	}
	switch answer[0] {
	case 'S':
		return s.secure()
	case 'N':
		return s.error(CodeTLS, "the server has no TLS")
	}
	return s.error(CodeProtocol, "unexpected answer %s", quote(answer))
}

// maxPostgres is more than any message of the start of a session.
const maxPostgres = 1 << 24

// postgresReady reads messages until the server asks for a password, is
// ready, or refuses.
func (s *session) postgresReady() error {
	for {
		head, err := s.block(5)
		if err != nil {
			return err
		}
		kind, size := head[0], binary.BigEndian.Uint32(head[1:])
		// Another protocol may begin with one of these letters: the size gives it away, as
		// "SH-2" of a greeting of SSH is 1.4 GB.
		if !strings.ContainsRune("RESKZNv", rune(kind)) || size < 4 || size > maxPostgres {
			return s.error(CodeProtocol, "unexpected answer %s", quote(head))
		}
		body, err := s.block(int(size) - 4)
		if err != nil {
			return err
		}
		switch kind {
		case 'R': // authentication: 0 is done, anything else asks for something
			if len(body) < 4 {
				return s.error(CodeProtocol, "authentication message of %d bytes", len(body))
			}
			if binary.BigEndian.Uint32(body) == 0 {
				continue // whether the database is there shows later
			}
			return nil
		case 'Z':
			s.send([]byte{'X', 0, 0, 0, 4}) // a farewell keeps the server's log clean
			return nil
		case 'E':
			return s.postgresError(body)
		}
	}
}

// postgresError reads the fields of an ErrorResponse: a letter and a string each.
func (s *session) postgresError(body []byte) error {
	var state, message string
	for field := range strings.SplitSeq(string(body), "\x00") {
		if rest, ok := strings.CutPrefix(field, "C"); ok {
			state = rest
		} else if rest, ok := strings.CutPrefix(field, "M"); ok {
			message = rest
		}
	}
	code := CodeStatus
	if strings.HasPrefix(state, "28") { // invalid authorization specification
		code = CodeAuth
	}
	return s.error(code, "%s", printable(state+" "+message))
}
