// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/penstock-lb/penstock/l4"
)

// maxReplay bounds a body that is encoded again for the standard front.
const maxReplay = 1 << 20

// replay returns the bytes from which the standard front can read the current
// request, and the bytes received after it.
func (c *byteConn) replay() ([]byte, error) {
	rest := c.in.bytes()
	b := &c.req
	if !b.touched {
		return append([]byte(b.head), rest...), nil
	}
	head := c.headWithout(func(k kind) bool {
		return k == kindContentLength || k == kindTransferEncoding || k == kindExpect
	})
	var body []byte
	if b.left < 0 && !b.ended() {
		var err error
		body, err = io.ReadAll(io.LimitReader(bodyReader{&c.x}, maxReplay+1))
		if err != nil || len(body) > maxReplay {
			return nil, errors.Join(err, &headError{http.StatusRequestEntityTooLarge, "body too long"})
		}
		rest = c.in.bytes()
	}
	length := int64(len(body)) + max(b.left, 0)
	out := append([]byte(head), "Content-Length: "+strconv.FormatInt(length, 10)+"\r\n\r\n"...)
	return append(append(out, body...), rest...), nil
}

// serveForeign hands the connection over and continues, on this stack, with the
// (w, r) that comes back.
func (c *byteConn) serveForeign(h http.Handler, wraps wrapping) {
	if c.mayOwn() && (wraps == wrapsNative || c.bodyReady()) {
		serveOwn(&c.x, c, h)
		c.resetDeadlines()
		return
	}
	c.srv.warnForeign(h, wraps)
	x := &c.x
	replay, err := c.replay()
	if err != nil {
		x.Record.Err = err
		c.ends.atLeast(endsClosed)
		x.Error(http.StatusRequestEntityTooLarge, endOf(l4.ClientAborted, l4.PhaseRequest))
		return
	}
	c.stopPeek()
	c.unwatch()
	_ = c.c.SetDeadline(time.Time{})
	k := &continuation{ready: make(chan struct{}), done: make(chan any, 1)}
	hc := &handedConn{Conn: c.c, base: c.base, handover: &handover{
		remote: c.remoteAddr(), replay: replay, continuation: k, clientConn: clientConn{owns: c.owns, kept: c.c},
	}}
	hc.requests.Store(c.served - 1)
	c.boundHanded(hc)
	if err := c.srv.handOver(hc, c.withTLS(hc)); err != nil {
		x.Record.Err = err
		c.ends.atLeast(endsClosed)
		x.Error(http.StatusServiceUnavailable, endOf(l4.Killed, l4.PhaseRequest))
		return
	}
	c.owns = nil
	c.moved = true
	c.ends.atLeast(endsHanded)
	x.replied = true
	select {
	case <-k.ready:
	case <-hc.closed:
		x.Record.Termination = endOf(l4.ClientAborted, l4.PhaseRequest)
		return
	}
	x.Record.Front = FrontStandard
	std := &standard{x: x, w: k.w, r: k.r, srv: c.srv}
	x.down, x.replied = std, false
	returned := false
	defer func() {
		if p := recover(); p != nil {
			std.panicked(p)
		} else if !returned {
			std.neverReturned()
		}
		x.down = c
		var p any
		if std.aborted {
			p = http.ErrAbortHandler
			if completed(x.Record.Termination) && !std.cutInside {
				x.Record.Termination = endOf(l4.Internal, l4.PhaseData)
			}
		}
		x.replied = true
		std.lingerBody()
		k.done <- p
	}()
	std.serveForeign(h, wrapsNothing)
	returned = true
}

// warnForeign logs, once for each type and reason, that connections leave the byte front
// because of a handler.
func (s *Server) warnForeign(h http.Handler, wraps wrapping) {
	if _, told := s.warned.LoadOrStore(foreignType{reflect.TypeOf(h), wraps}, true); !told {
		s.logger().Info(whyMoved(wraps), "handler", handlerName(h))
	}
}

// foreignType is a key of Server.warned.
type foreignType struct {
	handler reflect.Type
	wraps   wrapping
}

// whyMoved says why a connection moves, and what helps.
func whyMoved(wraps wrapping) string {
	switch wraps {
	case wrapsNative: // a long body is no reason
		return "l7: middleware in a Wrap is not native: it works, and HTTP/1 connections on which it gets a request that waits for a 100 (Continue) or asks for an upgrade move to the standard front, which costs more; instead of a logger use Server.OnDone and l7.LogTo, instead of other middleware a native one, see l7.Handler"
	case wrapsForeign:
		return "l7: middleware in a Wrap has a Next that is not native: it works, and HTTP/1 connections on which it gets a long body or an upgrade move to the standard front, which costs more; a Wrap helps where its Next is native, see l7.Handler"
	}
	return "l7: handler is not native: it works, and HTTP/1 connections on which it gets a long body or an upgrade move to the standard front, which costs more; see l7.Handler and l7.Wrap"
}

// handlerName returns the type of h, and of a func its name as well: most are of one type.
func handlerName(h http.Handler) string {
	name := fmt.Sprintf("%T", h)
	if v := reflect.ValueOf(h); v.Kind() == reflect.Func {
		name += " " + runtime.FuncForPC(v.Pointer()).Name()
	}
	return name
}

// headWithout returns the request line and the fields as they came, without
// fields of some kinds and without the empty line.
func (c *byteConn) headWithout(drop func(kind) bool) string {
	line, rest, _ := cutLine(c.req.head)
	var b strings.Builder
	b.WriteString(line + "\r\n")
	for {
		l, more, ok := cutLine(rest)
		if !ok || l == "" {
			return b.String()
		}
		if name, _, _ := strings.Cut(l, ":"); !drop(kindOf(name)) {
			b.WriteString(l + "\r\n")
		}
		rest = more
	}
}

// request builds the request from the exchange.
func (c *byteConn) request() *http.Request {
	r := c.x.newRequest(c.ctx)
	r.RemoteAddr = c.remoteName()
	return r
}
