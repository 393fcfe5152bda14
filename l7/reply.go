// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"io"
	"net/http"
	"strconv"

	"github.com/penstock-lb/penstock/balance"
)

// A Reply is the head of a reply, final or interim.
type Reply struct {
	Status int
	Header Fields

	// ContentLength is the length of the body in bytes, -1 if it is not known. In
	// a reply to HEAD and in a 304 it is the length for a GET; -1 then sends no
	// Content-Length. A reply editor does not change it.
	ContentLength int64

	Local  bool            // made by the gateway itself
	Server *balance.Server // that sent the reply, or nil

	filters []BodyFilter
	refused error // by an editor; nil if it was not
	unread  bool  // nothing reads the request body any more, although it is not Local
	tunnel  bool  // what a handler of net/http writes behind it belongs to a tunnel

	// Of a handler of net/http.
	own     http.Header // its fields, over HTTP/1, in place of Header; nil if it is not such a reply
	guessed string      // Content-Type that is added; "" if none is
	toClose bool        // the end of the connection ends the body
	reading bool        // a goroutine is reading the request body
	undated bool        // no Date is added
}

// Refuse replaces the reply by a 502, with the error page if there is one. A reply
// editor calls it for a reply that must not be passed on. The editors that were
// registered before see the 502 and not the reply. The rest of the body is not
// waited for: a connection of HTTP/1 on which it has not all come is closed. Err is
// wrapped in the [Record]'s, see [RefusedError]; it may be nil. The record ends with
// cause l4.Denied and phase l4.PhaseHeaders, PH. The refusal does not count against
// the server: outlier detection hears what the server sent, and a [CircuitBreaker]
// counts neither success nor failure. Logs warn of it, unless the error page has another
// status, below 500, see [ErrorPages].Make. Refuse does nothing to an interim reply.
func (r *Reply) Refuse(err error) { r.refused = &RefusedError{err} }

// A RefusedError is in Record.Err if a reply editor has refused a reply.
type RefusedError struct {
	Err error // the reason that the editor gave; may be nil
}

func (e *RefusedError) Error() string {
	if e.Err == nil {
		return "l7: an editor has refused the reply"
	}
	return "l7: an editor has refused the reply: " + e.Err.Error()
}

func (e *RefusedError) Unwrap() error { return e.Err }

// FilterBody adds f as a filter of the body, wherever that comes from. The
// length of the body is unknown from then on.
func (r *Reply) FilterBody(f BodyFilter) {
	r.filters = append(r.filters, f)
	r.ContentLength = -1
}

// requires returns the protocols of a 426, which has to name them (RFC 9110, section
// 15.5.22), and "" for any other reply. Upgrade concerns one connection, and in another
// reply it would offer what the gateway does not have, so it is not passed on (section
// 7.6.1). In a 426 it says why the request was refused. That is true whether or not
// Proxy.Upgrades lets a request for one of them through; HAProxy and nginx pass it on, too.
// Clients of HTTP/1.0 and HTTP/2 cannot upgrade, and get no such field (section 7.8, and
// RFC 9113, section 8.2.2).
func (r *Reply) requires() string {
	if r.Status != http.StatusUpgradeRequired {
		return ""
	}
	return r.Header.Get("Upgrade")
}

// filter returns body with the filters applied, in the order they were added.
func (r *Reply) filter(body io.Reader) io.Reader {
	for _, f := range r.filters {
		body = f(body)
	}
	return body
}

// A ReplyEditor changes the head of a reply before it is sent.
type ReplyEditor interface {
	EditReply(x *Exchange, r *Reply)
}

// A trailerEditor looks at the trailer of a reply, and returns what is left of it.
type trailerEditor interface {
	editTrailer(s *balance.Server, trailer *Fields) *Fields
}

// behind returns the trailer of a reply of s as it is sent.
func (x *Exchange) behind(s *balance.Server, trailer *Fields) *Fields {
	if x.trailed == nil || trailer == nil || trailer.Len() == 0 {
		return trailer
	}
	return x.trailed.editTrailer(s, trailer)
}

// ReplyFunc is a func as a [ReplyEditor].
type ReplyFunc func(x *Exchange, r *Reply)

// EditReply calls f.
func (f ReplyFunc) EditReply(x *Exchange, r *Reply) { f(x, r) }

// bodyAllowed reports whether a final reply of that status has a body (RFC
// 9110, section 6.4.1).
func bodyAllowed(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}

// statusLine returns "404 Not Found".
func statusLine(status int) string {
	if t := http.StatusText(status); t != "" {
		return strconv.Itoa(status) + " " + t
	}
	return strconv.Itoa(status)
}
