// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strconv"
	"strings"
	"syscall"

	"github.com/penstock-lb/penstock/balance"
)

// A Connect says where and how a probe reaches a server. The zero value dials
// the endpoint's own address, in the clear.
type Connect struct {
	Addr string // instead of the endpoint's: "host:port" or "unix:/path"; empty means the endpoint's
	Port int    // instead of the port of the address; 0 means that port

	// TLS secures the connection; nil means that it stays in the clear. An empty
	// ServerName means the host of the endpoint's own address. NextProtos is
	// offered as it is, and if the server chooses none of it the probe fails.
	// Certificates holds the client's.
	TLS *tls.Config

	Proxy ProxyVersion // what is sent first; 0 means nothing

	// Dial opens the connection; nil means a net.Dialer without keep-alive. If it returns
	// neither a connection nor an error the probe fails.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// A ProxyVersion is the version of the PROXY protocol header that begins a
// probe's connection. The header says that the connection is the balancer's
// own and speaks for no client: UNKNOWN in version 1, LOCAL in version 2.
//
// Source: HAProxy, doc/proxy-protocol.txt, sections 2.1 and 2.2.
type ProxyVersion uint8

const (
	NoProxy ProxyVersion = iota
	ProxyV1
	ProxyV2
)

func (p ProxyVersion) bytes() []byte {
	switch p {
	case ProxyV1:
		return []byte("PROXY UNKNOWN\r\n")
	case ProxyV2:
		return []byte("\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00")
	}
	return nil
}

// address returns what to dial for e.
func (d *Connect) address(e balance.Endpoint) (network, addr string, err error) {
	addr = d.Addr
	if addr == "" {
		addr = e.Addr
	}
	path, unix := strings.CutPrefix(addr, "unix:")
	switch {
	case addr == "":
		return "", "", &Error{Code: CodeInternal, Text: "no address to probe"}
	case unix && d.Port != 0:
		return "", "", &Error{Code: CodeInternal, Text: "a port cannot replace that of " + printable(addr)}
	case unix:
		return "unix", path, nil
	case d.Port == 0:
		return "tcp", addr, nil
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return "", "", &Error{Code: CodeInternal, Text: printable(err.Error()), Err: err}
	}
	return "tcp", net.JoinHostPort(host, strconv.Itoa(d.Port)), nil
}

// dial connects and sends the PROXY header. The caller closes the connection.
func (d *Connect) dial(ctx context.Context, e balance.Endpoint) (net.Conn, error) {
	network, addr, err := d.address(e)
	if err != nil {
		return nil, err
	}
	dial := d.Dial
	if dial == nil {
		// Keep-alive options would cost five system calls on a connection
		// that lives for milliseconds.
		dial = (&net.Dialer{KeepAlive: -1}).DialContext
	}
	c, err := dial(ctx, network, addr)
	if c, err = balance.Dialed("Connect.Dial", c, err); err != nil {
		return nil, dialError(ctx, err)
	}
	if h := d.Proxy.bytes(); h != nil {
		// A few bytes into an empty socket buffer: this cannot wait.
		if _, err := c.Write(h); err != nil {
			c.Close()
			return nil, &Error{Code: CodeClosed, Step: "PROXY header", Text: "connection closed", Err: err}
		}
	}
	return c, nil
}

// secure does the handshake over c.
func (d *Connect) secure(ctx context.Context, c net.Conn, e balance.Endpoint) (*tls.Conn, error) {
	config := d.TLS
	if config.ServerName == "" && !strings.HasPrefix(e.Addr, "unix:") {
		config = config.Clone()
		config.ServerName, _, _ = net.SplitHostPort(e.Addr)
	}
	tc := tls.Client(c, config)
	if err := tc.HandshakeContext(ctx); err != nil {
		return nil, tlsError(ctx, err)
	}
	if len(config.NextProtos) > 0 && tc.ConnectionState().NegotiatedProtocol == "" {
		return nil, &Error{Code: CodeTLS, Step: "TLS", Text: "the server chose no protocol of " + strings.Join(config.NextProtos, ", ")}
	}
	return tc, nil
}

// dialError sorts the errors of a dial. What this machine lacks (a descriptor, memory, a
// port) is CodeInternal: it says nothing of the server, and must not empty a pool. A
// server's socket that refuses all connections is the server's fault.
func dialError(ctx context.Context, err error) *Error {
	e := &Error{Code: CodeUnreachable, Step: "connect", Err: err}
	if own, ok := errors.AsType[*Error](err); ok {
		return own
	}
	dns, isDNS := errors.AsType[*net.DNSError](err)
	errno, isErrno := errors.AsType[syscall.Errno](err)
	netErr, isNet := errors.AsType[net.Error](err)
	switch {
	case ctx.Err() != nil || isNet && netErr.Timeout():
		e.Code, e.Text = CodeTimeout, "no answer"
		if isDNS {
			e.Text = "no answer for the name " + printable(dns.Name)
		}
	case isDNS:
		e.Text = "name " + printable(dns.Name) + ": " + printable(dns.Err)
		if balance.LocalFault(err) {
			e.Code = CodeInternal
		}
	case isErrno && balance.LocalFault(err):
		e.Code, e.Text = CodeInternal, errno.Error()
	case errors.Is(err, syscall.ECONNREFUSED) || strings.Contains(err.Error(), "refused"):
		e.Code, e.Text = CodeRefused, "connection refused"
	case isErrno:
		e.Text = errno.Error()
	default:
		e.Text = printable(err.Error())
	}
	return e
}

// tlsError sorts the errors of a handshake.
func tlsError(ctx context.Context, err error) *Error {
	e := &Error{Code: CodeTLS, Step: "TLS", Text: printable(strings.TrimPrefix(err.Error(), "tls: ")), Err: err}
	_, isRecord := errors.AsType[tls.RecordHeaderError](err)
	switch {
	case ctx.Err() != nil || isTimeout(err):
		e.Code, e.Text = CodeTimeout, "no answer"
	case isClosed(err):
		e.Code, e.Text = CodeClosed, "connection closed"
	case isRecord:
		e.Code, e.Text = CodeProtocol, "the answer is not TLS"
	}
	return e
}
