// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"errors"
	"net"
	"net/http/httptrace"
	"sync/atomic"
	"time"
)

// A tracer calls the hooks that a program has put into the context of a request that
// it sends by a Transport. A nil tracer has none: no Proxy has one, as what is in the
// context there is about the client's request.
type tracer struct {
	httptrace.ClientTrace
	answered atomic.Bool // the first byte of a reply has come
}

// asks says that a connection to addr is wanted.
func (t *tracer) asks(addr string) {
	if t == nil {
		return
	}
	t.answered.Store(false)
	if f := t.GetConn; f != nil {
		f(addr)
	}
}

// got says which connection it is, and since when that has been idle.
func (t *tracer) got(c net.Conn, reused bool, idleAt time.Time) {
	if t == nil || t.GotConn == nil {
		return
	}
	info := httptrace.GotConnInfo{Conn: c, Reused: reused, WasIdle: reused && !idleAt.IsZero()}
	if info.WasIdle {
		info.IdleTime = time.Since(idleAt)
	}
	t.GotConn(info)
}

// wroteHead says that the head of a request has been written, whose lines are those.
func (t *tracer) wroteHead(head string, expects bool) {
	if t == nil {
		return
	}
	if f := t.WroteHeaderField; f != nil {
		_, rest, _ := cutLine(head)
		for {
			line, more, ok := cutLine(rest)
			if !ok || line == "" {
				break
			}
			rest = more
			if colon := indexByte(line, ':'); colon > 0 {
				f(line[:colon], []string{trimOWS(line[colon+1:])})
			}
		}
	}
	if t.WroteHeaders != nil {
		t.WroteHeaders()
	}
	if expects && t.Wait100Continue != nil {
		t.Wait100Continue()
	}
}

// wroteAll says that the request has been written, or why not.
func (t *tracer) wroteAll(err error) {
	if t != nil && t.WroteRequest != nil {
		t.WroteRequest(httptrace.WroteRequestInfo{Err: err})
	}
}

// answers says that a reply begins, once for each connection that was asked.
func (t *tracer) answers() {
	if t != nil && !t.answered.Swap(true) && t.GotFirstResponseByte != nil {
		t.GotFirstResponseByte()
	}
}

// kept says whether a connection of HTTP/1 is kept for later.
func (t *tracer) kept(yes bool) {
	if t == nil || t.PutIdleConn == nil {
		return
	}
	var err error
	if !yes {
		err = errNotKept
	}
	t.PutIdleConn(err)
}

var errNotKept = errors.New("l7: the connection is not kept")

// wrote tells what writing the head, and what of the body was at hand, has come to.
func (t *attempt) wrote(l *try, err error) {
	if t.trace == nil {
		return
	}
	if err == nil {
		req, n := t.request(l)
		t.trace.wroteHead(string(req[:n]), t.x.expect)
	}
	if err != nil || t.whole {
		t.trace.wroteAll(err)
	}
}
