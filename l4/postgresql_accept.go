// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"time"
)

// AcceptPostgreSQL is a handler that lets PostgreSQL clients begin TLS. They first ask
// for it in the protocol of PostgreSQL; Next gets connections that begin with a
// ClientHello, as those of other TLS clients do. With names, many databases share a port:
//
//	names := &l4.Router{Routes: []l4.Route{{Match: l4.SNI("a.test"), Handler: a}, ...}}
//	&l4.AcceptPostgreSQL{Next: &l4.TerminateTLS{Config: config, Next: names}} // offload
//	&l4.AcceptPostgreSQL{Next: names}                                         // or passthrough
//
// A [Proxy] to servers that speak TLS themselves, by passthrough or by
// [OriginateTLS], asks them with [RequestPostgreSQL].
//
// A client that sends an SSLRequest may begin TLS. One that asks for GSSAPI encryption is
// refused that, and asks for TLS next. TLS without a request (sslnegotiation=direct,
// since PostgreSQL 17) is accepted if the client offers the protocol "postgresql" by
// ALPN, as a server demands too; NextProtos of the Config must have it, or such clients
// disconnect. A client that sends more bytes before it has its answer is disconnected,
// since an attacker on the way may have added them (CVE-2021-23214). That holds for a
// ClientHello too, which servers accept since version 17.
//
// A client cancels a query by a CancelRequest on another connection. Most clients, psql
// among them, send it without TLS, even if the query came over TLS. It then has no server
// name, and only Plain can forward it.
//
// If TLS ends here and a new TLS connection goes to the server, the client does not see
// the server's certificate, and SCRAM-SHA-256-PLUS fails: both must have the same
// certificate, or the client must set channel_binding=disable.
//
// The comment of this package says why there is none for MySQL.
//
// Its fields must not change once it serves. It may serve any number of connections
// at once. Source: PostgreSQL 18 documentation, section 54.2 (SSL Session Encryption,
// GSSAPI Session Encryption, Canceling Requests in Progress).
type AcceptPostgreSQL struct {
	Next Handler // takes clients that begin TLS

	// Plain serves clients that begin a session or cancel a query without TLS; nil closes
	// them, and those that begin a session get an error message.
	Plain Handler

	Timeout time.Duration // until TLS begins; 0 means 5s, negative means none

	checked
}

// ServeConn answers the requests of c and passes it to Next or Plain.
func (a *AcceptPostgreSQL) ServeConn(ctx context.Context, c net.Conn) error {
	if err := a.first(a); err != nil {
		return misconfigured(c, err)
	}
	conn := NewConn(c)
	before := conn.BytesRead() - int64(len(conn.Buffered()))
	stop := context.AfterFunc(ctx, func() {
		guard(nil, "connection", func() { breakOff(conn) })
	})
	h, err := a.inTime(conn)
	stop() // it says nothing of a context that ends at this moment: its funcs run later
	if err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return giveUp(ctx, conn, err, conn.BytesRead() == before)
	}
	return h.ServeConn(ctx, conn)
}

// inTime is start within Timeout.
func (a *AcceptPostgreSQL) inTime(c *Conn) (Handler, error) {
	timeout := cmp.Or(a.Timeout, defaultPeekTimeout)
	if timeout < 0 {
		return a.start(c)
	}
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		return nil, err
	}
	h, err := a.start(c)
	if err == nil {
		err = c.SetDeadline(time.Time{})
	}
	return h, err
}

// start answers requests until it is known whether Next or Plain serves c.
func (a *AcceptPostgreSQL) start(c *Conn) (Handler, error) {
	first, err := c.Peek(1)
	if err != nil {
		return nil, fmt.Errorf("l4: before a client of PostgreSQL began: %w", err)
	}
	if first[0] == recordHandshake {
		return a.Next, postgresDirect(c)
	}
	for asked := false; ; asked = true {
		kind, n, err := peekPostgresStart(c)
		switch {
		case err != nil:
			return nil, err
		case kind == postgresSSL:
			return a.Next, postgresBegin(c, n)
		case kind == postgresGSS && !asked:
			if err := postgresAnswer(c, n, 'N'); err != nil {
				return nil, err
			}
		case kind == postgresGSS:
			return nil, postgresErrorf("GSSENCRequest again")
		case a.Plain != nil:
			return a.Plain, nil
		default:
			return nil, postgresRefuse(c, kind, n)
		}
	}
}

// peekPostgresStart waits for the first 8 bytes of a packet, n bytes long.
func peekPostgresStart(c *Conn) (kind postgresKind, n int, err error) {
	for {
		kind, n, v := postgresStart(c.Buffered())
		switch v {
		case Yes:
			return kind, n, nil
		case No:
			return 0, 0, postgresErrorf("not a client of it")
		}
		if _, err := c.Peek(len(c.Buffered()) + 1); err != nil {
			return 0, 0, fmt.Errorf("l4: after %d bytes of a client of PostgreSQL: %w", len(c.Buffered()), err)
		}
	}
}

// postgresAnswer consumes a request of n bytes and answers it. The client has to wait for
// the answer: bytes that have arrived already were added by an attacker, or the client
// breaks the protocol.
func postgresAnswer(c *Conn, n int, answer byte) error {
	if more := len(c.Buffered()) - n; more > 0 {
		return postgresErrorf("%d bytes ahead of the answer to a request for encryption", more)
	}
	c.Discard(n)
	_, err := c.Write([]byte{answer})
	return err
}

// postgresBegin answers an SSLRequest and waits for TLS to begin. It also detects bytes
// sent ahead that had not arrived before the answer: Next never gets plain text.
func postgresBegin(c *Conn, n int) error {
	if err := postgresAnswer(c, n, 'S'); err != nil {
		return err
	}
	b, err := c.Peek(1)
	if err != nil {
		return fmt.Errorf("l4: after SSLRequest: %w", err)
	}
	if b[0] != recordHandshake {
		return postgresErrorf("no TLS after SSLRequest")
	}
	return nil
}

// postgresDirect waits for the ClientHello of a client that has not asked first. It must
// offer the protocol, so that a client of another protocol cannot be made to talk to a
// database. The server demands that too.
func postgresDirect(c *Conn) error {
	for p := (&Peeked{Conn: c}); ; {
		p.Data = c.Buffered()
		hello, v := p.Hello()
		switch {
		case v == Yes && slices.Contains(hello.ALPN, "postgresql"):
			return nil
		case v == Yes:
			return postgresErrorf(`TLS without SSLRequest and without ALPN "postgresql"`)
		case v == No:
			return postgresErrorf("%w", p.helloErr)
		case len(p.Data) >= defaultPeekBytes:
			return postgresErrorf("no ClientHello in %d bytes", len(p.Data))
		}
		if _, err := c.Peek(len(p.Data) + 1); err != nil {
			return fmt.Errorf("l4: after %d bytes of a ClientHello: %w", len(c.Buffered()), err)
		}
	}
}

// postgresRefuse tells a client that wants a session why it gets none. It first reads all
// that the client has sent: a close with unread bytes resets the connection, and the
// answer may be lost.
func postgresRefuse(c *Conn, kind postgresKind, n int) error {
	if _, err := c.Peek(n); err != nil {
		return fmt.Errorf("l4: after %d bytes of a client of PostgreSQL: %w", len(c.Buffered()), err)
	}
	if kind == postgresCancel {
		return postgresErrorf("CancelRequest without TLS") // no server answers one
	}
	// invalid_authorization_specification, as where pg_hba.conf wants TLS
	const fields = "SFATAL\x00VFATAL\x00C28000\x00Mconnections without TLS are not accepted here\x00\x00"
	b := binary.BigEndian.AppendUint32([]byte{'E'}, uint32(4+len(fields)))
	if _, err := c.Write(append(b, fields...)); err != nil {
		return err
	}
	return postgresErrorf("session without TLS")
}

func postgresErrorf(format string, args ...any) error {
	return fmt.Errorf("%w: PostgreSQL: "+format, append([]any{ErrRejected}, args...)...)
}
