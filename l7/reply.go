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

	// ContentLength is the length of the body in bytes, -1 if it is not known.
	// In a reply to HEAD and in a 304 it says what GET would have got; -1 is
	// then left out. A reply editor does not change it.
	ContentLength int64

	Local  bool            // made by the gateway itself
	Server *balance.Server // that answered, or nil

	filters []BodyFilter
	refused error // by an editor; nil if it is not
	undated bool  // gets no Date of ours
}

// Refuse has the client get a 502 in the place of the reply, by the error page if
// there is one: a reply editor calls it for what must not be passed on. The editors
// that were registered before see the 502 and not the reply. The body is not read
// any more. Err becomes the [Record]'s; nil means no more than that it was refused.
// It does nothing to an interim reply.
func (r *Reply) Refuse(err error) { r.refused = &RefusedError{err} }

// A RefusedError is in Record.Err where a reply editor has refused a reply.
type RefusedError struct {
	Err error // what it gave as the reason; may be nil
}

func (e *RefusedError) Error() string {
	if e.Err == nil {
		return "l7: an editor has refused the reply"
	}
	return "l7: an editor has refused the reply: " + e.Err.Error()
}

func (e *RefusedError) Unwrap() error { return e.Err }

// FilterBody has f change the body on its way to the client, wherever it comes
// from. Its length is unknown from then on.
func (r *Reply) FilterBody(f BodyFilter) {
	r.filters = append(r.filters, f)
	r.ContentLength = -1
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
