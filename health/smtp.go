// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"strings"

	"github.com/penstock-lb/penstock/balance"
)

// SMTP passes when the server greets and answers EHLO with 2xx. It says QUIT
// and waits for the answer, whatever that is.
//
// Source: RFC 5321, sections 3.1, 4.1.1.1 and 4.2; RFC 3207 for STARTTLS.
type SMTP struct {
	Connect  Connect // with TLS the connection begins with a handshake, unless StartTLS is set
	StartTLS bool    // use Connect.TLS after the greeting
	Hello    string  // command and name; empty means "EHLO localhost". "HELO x" and LMTP's "LHLO x" work too
}

// Probe greets and leaves.
func (p SMTP) Probe(ctx context.Context, e balance.Endpoint) error {
	open := p.Connect.open
	if p.StartTLS {
		open = p.Connect.openClear
	}
	s, err := open(ctx, e, 0)
	defer s.close()
	if err != nil {
		return err
	}
	s.step = "greeting"
	if err := s.smtpReply(); err != nil {
		return err
	}
	hello := or(p.Hello, "EHLO localhost")
	if err := s.smtp(hello); err != nil {
		return err
	}
	if p.StartTLS {
		if p.Connect.TLS == nil {
			return &Error{Code: CodeInternal, Step: "STARTTLS", Text: "Connect.TLS is nil"}
		}
		if err := s.smtp("STARTTLS"); err != nil {
			return err
		}
		if err := s.secure(); err != nil {
			return err
		}
		if err := s.smtp(hello); err != nil {
			return err
		}
	}
	s.smtp("QUIT")
	return nil
}

// smtp sends a command and expects 2xx.
func (s *session) smtp(command string) error {
	s.step, _, _ = strings.Cut(command, " ")
	if strings.ContainsAny(command, "\r\n") {
		return s.error(CodeInternal, "the command has a line end")
	}
	if err := s.send([]byte(command + "\r\n")); err != nil {
		return err
	}
	return s.smtpReply()
}

// smtpReply reads a reply of one or more lines and expects 2xx.
func (s *session) smtpReply() error {
	for {
		line, err := s.line()
		if err != nil {
			return err
		}
		switch {
		case len(line) < 3 || line[0] < '2' || line[0] > '5' || !digit(line[1]) || !digit(line[2]) || len(line) > 3 && line[3] != ' ' && line[3] != '-':
			return s.error(CodeProtocol, "unexpected answer %s", quote([]byte(line)))
		case len(line) > 3 && line[3] == '-': // more lines follow
		case line[0] == '2':
			return nil
		default:
			return s.error(CodeStatus, "%s", printable(line))
		}
	}
}

func digit(b byte) bool { return '0' <= b && b <= '9' }
