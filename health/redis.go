// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"strconv"
	"strings"

	"github.com/penstock-lb/penstock/balance"
)

// Redis passes when the server answers PING with PONG, after AUTH if there is
// a password, and when it has the wanted role. A server that is loading its data
// says so, and fails with CodeStatus; one that wants a password that the probe
// does not have fails with CodeAuth.
//
// Source: Redis serialization protocol specification (RESP).
type Redis struct {
	Connect  Connect
	User     string // empty means the default user
	Password string // empty means no AUTH
	Role     string // "master" or "slave", as ROLE has it; empty means any
}

// Probe asks for PONG.
func (p Redis) Probe(ctx context.Context, e balance.Endpoint) error {
	s, err := p.Connect.open(ctx, e, 0)
	defer s.close()
	if err != nil {
		return err
	}
	if p.Password != "" {
		auth := []string{"AUTH", p.Password}
		if p.User != "" {
			auth = []string{"AUTH", p.User, p.Password}
		}
		if err := s.redis("+OK", auth...); err != nil {
			return err
		}
	}
	if err := s.redis("+PONG", "PING"); err != nil {
		return err
	}
	if p.Role == "" {
		return nil
	}
	if err := s.redis("*", "ROLE"); err != nil { // an array, whose first element is the role
		return err
	}
	if _, err := s.line(); err != nil { // its length
		return err
	}
	role, err := s.line()
	if err != nil {
		return err
	}
	if role != p.Role {
		return s.error(CodeContent, "the role is %s, not %s", printable(role), p.Role)
	}
	return nil
}

// redis sends a command and expects a reply that begins with want.
func (s *session) redis(want string, command ...string) error {
	s.step = command[0]
	b := append([]byte{'*'}, strconv.Itoa(len(command))...)
	for _, arg := range command {
		b = append(b, "\r\n$"...)
		b = strconv.AppendInt(b, int64(len(arg)), 10)
		b = append(b, "\r\n"...)
		b = append(b, arg...)
	}
	if err := s.send(append(b, "\r\n"...)); err != nil {
		return err
	}
	reply, err := s.line()
	if err != nil {
		return err
	}
	text, isError := strings.CutPrefix(reply, "-")
	switch {
	case strings.HasPrefix(reply, want):
		return nil
	case !isError:
		return s.error(CodeProtocol, "unexpected answer %s", quote([]byte(reply)))
	}
	code := CodeStatus
	for _, prefix := range []string{"NOAUTH", "WRONGPASS", "NOPERM", "DENIED", "ERR invalid password", "ERR AUTH"} {
		if strings.HasPrefix(text, prefix) {
			code = CodeAuth
		}
	}
	return s.error(code, "%s", printable(text))
}
