// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"fmt"
	"io"
	"net"

	"github.com/penstock-lb/penstock/balance"
)

// RequestPostgreSQL asks a PostgreSQL server by an SSLRequest to begin TLS, which servers
// before version 17 require. It is for Proxy.Handshake, inside an [AcceptPostgreSQL]:
//
//	proxy.Handshake = l4.RequestPostgreSQL                                    // the client's TLS passes through
//	proxy.Handshake = l4.Handshakes(l4.RequestPostgreSQL, originate.Handshake) // or an OriginateTLS begins one
//
// The error matches [ErrTLS] if the server has no TLS. Source: PostgreSQL 18
// documentation, section 54.2 (SSL Session Encryption).
func RequestPostgreSQL(_ context.Context, _, server net.Conn, _ *balance.Server) (net.Conn, error) {
	if _, err := io.WriteString(server, "\x00\x00\x00\x08\x04\xd2\x16\x2f"); err != nil {
		return nil, err
	}
	// It reads exactly one byte in the clear. Bytes that an attacker adds to it go to
	// TLS, which then fails (CVE-2021-23222).
	var answer [1]byte
	if _, err := io.ReadFull(server, answer[:]); err != nil {
		return nil, err
	}
	switch answer[0] {
	case 'S':
		return server, nil
	case 'N':
		return nil, fmt.Errorf("%w: the server of PostgreSQL has none", ErrTLS)
	}
	return nil, fmt.Errorf("%w: the server answers SSLRequest by %q", ErrTLS, answer[:])
}
