// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/penstock-lb/penstock/balance"
)

// ErrRunning means that a Run of the same value is active.
var ErrRunning = errors.New("health: already running")

// A Code says what kind of thing a probe found. CodeOK is the zero value.
type Code uint8

const (
	CodeOK          Code = iota // the probe passed
	CodeStopping                // the server asks for no new work, and keeps what it has
	CodeRefused                 // the connection was refused
	CodeUnreachable             // the connection could not be made for another reason: no route, no such name
	CodeTimeout                 // no answer in time, in any step
	CodeClosed                  // the server closed or reset the connection before it had answered
	CodeTLS                     // the handshake failed: certificate, name, version, ALPN
	CodeProtocol                // the answer is not of the protocol, or is longer than the bound
	CodeAuth                    // the server answered, and does not let the probe in
	CodeStatus                  // the server answered, and says that it is not well
	CodeContent                 // the answer is not the expected one
	CodeInternal                // the probe itself is wrong, or this machine lacks descriptors, memory or ports
)

// String returns the code in words, as in "connect refused".
func (c Code) String() string {
	switch c {
	case CodeOK:
		return "ok"
	case CodeStopping:
		return "stopping"
	case CodeRefused:
		return "connect refused"
	case CodeUnreachable:
		return "unreachable"
	case CodeTimeout:
		return "timeout"
	case CodeClosed:
		return "closed"
	case CodeTLS:
		return "TLS failed"
	case CodeProtocol:
		return "protocol error"
	case CodeAuth:
		return "not authorized"
	case CodeStatus:
		return "bad status"
	case CodeContent:
		return "unexpected content"
	case CodeInternal:
		return "internal error"
	}
	return fmt.Sprintf("code %d", uint8(c))
}

// An Error is why a probe did not pass. Every probe of this package returns
// one, or nil; a host's own probe may return any error, which [AsError] sorts.
//
// Its text holds nothing that differs between two equal findings (no
// port of ours, no measured time), so that it can be compared and counted.
type Error struct {
	Code Code
	Step string // what the probe was doing: "connect", "TLS", "PING", "step 2"; may be empty
	Text string // what it found, for a person
	Err  error  // the cause, if there is one
}

// Error returns the step and the text: "connect: connection refused".
func (e *Error) Error() string {
	text := e.Text
	if text == "" {
		text = e.Code.String()
	}
	if e.Step == "" {
		return text
	}
	return e.Step + ": " + text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// AsError returns the *Error in err's tree, or wraps err in one: a deadline that has
// passed is CodeTimeout, a refused connection CodeRefused, one that ended CodeClosed, a
// lack of descriptors, memory or ports CodeInternal, a handshake or a certificate CodeTLS,
// a name or a host that is not to be had CodeUnreachable, all else CodeStatus.
// AsError(nil) is nil.
func AsError(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Code: foreignCode(err), Text: printable(err.Error()), Err: err}
}

// foreignCode sorts an error that a host's own probe returned, as dialError does.
func foreignCode(err error) Code {
	_, isErrno := errors.AsType[syscall.Errno](err)
	_, isDNS := errors.AsType[*net.DNSError](err)
	_, isVerify := errors.AsType[*tls.CertificateVerificationError](err)
	_, isAlert := errors.AsType[tls.AlertError](err)
	_, isRecord := errors.AsType[tls.RecordHeaderError](err)
	switch {
	case errors.Is(err, context.DeadlineExceeded) || isTimeout(err):
		return CodeTimeout
	case balance.LocalFault(err):
		return CodeInternal
	case isDNS:
		return CodeUnreachable
	case errors.Is(err, syscall.ECONNREFUSED):
		return CodeRefused
	case isClosed(err):
		return CodeClosed
	case isVerify || isAlert || isRecord:
		return CodeTLS
	case isErrno:
		return CodeUnreachable
	}
	return CodeStatus
}

// CodeOf returns the code of a probe's result: CodeOK for nil.
func CodeOf(err error) Code {
	if err == nil {
		return CodeOK
	}
	return AsError(err).Code
}

// maxText bounds what a server may put into a reason.
const maxText = 200

// printable returns s fit for a log line: one line, no control characters,
// valid UTF-8 and at most maxText bytes. What a server sends is not trusted.
func printable(s string) string {
	b := make([]byte, 0, min(len(s), maxText))
	space := false
	for _, r := range s {
		if r <= ' ' || r == 0x7f {
			space = len(b) > 0
			continue
		}
		if r == 0xfffd || r >= 0x80 && r < 0xa0 || r == 0x2028 || r == 0x2029 || r >= 0x202a && r <= 0x202e {
			r = '?'
		}
		if len(b)+4 > maxText {
			return string(b) + "..."
		}
		if space {
			b, space = append(b, ' '), false
		}
		b = append(b, string(r)...)
	}
	return string(b)
}
