// SPDX-License-Identifier: Apache-2.0

package health

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"github.com/penstock-lb/penstock/balance"
)

// MySQL passes when a MySQL or MariaDB server greets the client and, if there is
// a User, lets it in without a password. The greeting itself may be an error:
// too many connections, host blocked, host not allowed.
//
// A server counts connections that end after the greeting as errors of the
// client's host, and may block it after max_connect_errors of them. To avoid that,
// create a user without password and privileges, and name it here.
//
// With Connect.TLS the connection is upgraded after the greeting; a server that
// has no TLS fails with CodeTLS.
//
// It does not tell a primary from a replica: for that take a [Func] that asks for
// @@global.read_only by a driver.
//
// Source: MySQL internals manual, "Connection Phase", protocol 4.1 and later.
type MySQL struct {
	Connect Connect
	User    string // empty means that the greeting is enough
}

// Capabilities of the client, and the one of the server that is looked at.
const (
	mysqlLongPassword = 1 << 0
	mysqlProtocol41   = 1 << 9
	mysqlTLS          = 1 << 11
	mysqlSecure       = 1 << 15
	mysqlPluginAuth   = 1 << 19
)

// Probe waits for the greeting and logs in.
func (p MySQL) Probe(ctx context.Context, e balance.Endpoint) error {
	s, err := p.Connect.openClear(ctx, e, 0)
	defer s.close()
	if err != nil {
		return err
	}
	s.step = "greeting"
	greeting, seq, err := s.mysqlPacket()
	if err != nil {
		return err
	}
	if greeting[0] == 0xff {
		return s.mysqlError(greeting)
	}
	capabilities, ok := mysqlGreeting(greeting)
	if !ok {
		return s.error(CodeProtocol, "unexpected answer %s", quote(greeting))
	}
	flags := uint32(mysqlLongPassword | mysqlProtocol41 | mysqlSecure | mysqlPluginAuth)
	if p.Connect.TLS != nil {
		if capabilities&mysqlTLS == 0 {
			return &Error{Code: CodeTLS, Step: "TLS", Text: "the server has no TLS"}
		}
		flags |= mysqlTLS
		seq++
		if err := s.send(mysqlFrame(seq, mysqlHello(flags))); err != nil {
			return err
		}
		if err := s.secure(); err != nil {
			return err
		}
	}
	if p.User == "" {
		return nil
	}
	s.step = "login"
	login := mysqlHello(flags)
	login = append(login, p.User...)
	login = append(login, 0, 0) // end of the name, empty answer to the challenge
	login = append(login, "mysql_native_password\x00"...)
	if err := s.send(mysqlFrame(seq+1, login)); err != nil {
		return err
	}
	return s.mysqlLogin()
}

// mysqlLogin reads what the server says to a login without password.
func (s *session) mysqlLogin() error {
	for range 4 {
		b, seq, err := s.mysqlPacket()
		if err != nil {
			return err
		}
		switch {
		case b[0] == 0x00:
			s.send(mysqlFrame(0, []byte{0x01})) // COM_QUIT
			return nil
		case b[0] == 0xff:
			return s.mysqlError(b)
		case b[0] == 0xfe: // another way to prove the password: there is still none
			if err := s.send(mysqlFrame(seq+1, nil)); err != nil {
				return err
			}
		case b[0] == 0x01 && len(b) == 2 && b[1] == 0x03: // an OK follows
		case b[0] == 0x01:
			return s.error(CodeAuth, "the user has a password")
		default:
			return s.error(CodeProtocol, "unexpected answer %s", quote(b))
		}
	}
	return s.error(CodeProtocol, "the login does not end")
}

// mysqlHello is the beginning that SSLRequest and HandshakeResponse41 share.
func mysqlHello(flags uint32) []byte {
	b := make([]byte, 32)
	binary.LittleEndian.PutUint32(b, flags)
	binary.LittleEndian.PutUint32(b[4:], 1<<24-1) // largest packet
	b[8] = 33                                     // utf8_general_ci
	return b
}

// mysqlFrame puts the packet header before b.
func mysqlFrame(seq byte, b []byte) []byte {
	n := len(b)
	return append([]byte{byte(n), byte(n >> 8), byte(n >> 16), seq}, b...)
}

// mysqlPacket reads one packet, which is never empty.
func (s *session) mysqlPacket() (b []byte, seq byte, err error) {
	head, err := s.block(4)
	if err != nil {
		return nil, 0, err
	}
	n := int(head[0]) | int(head[1])<<8 | int(head[2])<<16
	if s.step == "greeting" {
		// Another protocol has letters here, which make a length of millions: the number of
		// the packet and the version of the protocol, or an error, give it away.
		first, err := s.r.Peek(1)
		if head[3] != 0 || err == nil && first[0] != mysqlVersion && first[0] != 0xff {
			return nil, 0, s.error(CodeProtocol, "unexpected answer %s", quote(append(head, first...)))
		}
	}
	if n == 0 {
		return nil, 0, s.error(CodeProtocol, "empty packet")
	}
	b, err = s.block(n)
	return b, head[3], err
}

// mysqlVersion is the protocol of all servers since 3.21.
const mysqlVersion = 10

// mysqlGreeting returns the capabilities in a version 10 greeting.
func mysqlGreeting(b []byte) (capabilities uint32, ok bool) {
	if b[0] != mysqlVersion {
		return 0, false
	}
	end := bytes.IndexByte(b, 0) // of the server's version
	if end < 0 {
		return 0, false
	}
	// Thread id, 8 bytes of the challenge, a filler, then the lower half.
	rest := b[end+1:]
	if len(rest) < 4+8+1+2 {
		return 0, false
	}
	return uint32(binary.LittleEndian.Uint16(rest[13:])), true
}

// mysqlError reads an ERR packet.
func (s *session) mysqlError(b []byte) error {
	if len(b) < 3 {
		return s.error(CodeProtocol, "error packet of %d bytes", len(b))
	}
	number := binary.LittleEndian.Uint16(b[1:])
	text := b[3:]
	if len(text) >= 6 && text[0] == '#' {
		text = text[6:] // the SQL state says less than the number
	}
	code := CodeStatus
	switch number {
	case 1044, 1045, 1130, 1251, 1275, 1524, 1698: // access denied, host not allowed, no such way to log in
		code = CodeAuth
	}
	return s.error(code, "%s", printable(fmt.Sprintf("%d %s", number, text)))
}
