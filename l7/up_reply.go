// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/penstock-lb/penstock/l4"
)

const (
	maxReplyHead   = 64 << 10
	maxReplyFields = 256
	maxInterim     = 16
)

// upReply is the state of the reply on a connection.
type upReply struct {
	left     int64 // bytes of the body not yet read, -1 if chunked, -2 if until the connection ends
	chunk    chunkDecoder
	keep     bool   // the server keeps the connection open
	private  bool   // the connection itself has been authenticated
	full     bool   // the read of the head filled the buffer: more may be ready
	waited   bool   // a read of the body has waited
	protocol string // Upgrade
	trailer  *Fields
	bodyWait
	x *Exchange // the exchange whose reply is flushed before a wait; nil if there is none
}

const untilClose = -2

// badReply is the error of a reply that is not relayed.
type badReply struct{ err error }

func (e *badReply) Error() string { return "malformed reply: " + e.err.Error() }
func (e *badReply) Unwrap() error { return e.err }

// send writes p, a request, to the server within d and by end.
func (c *upConn) send(p []byte, now time.Time, d time.Duration, end time.Time) error {
	c.boundRequest(p, now, d, end)
	_, err := c.c.Write(p)
	return err
}

// sendBody is send for a body, where d bounds the time without progress and not
// the whole write.
func (c *upConn) sendBody(p []byte, d time.Duration) error {
	now := time.Now()
	wait := patience{limit: d, since: now}
	for {
		c.boundSend(now, slice(d))
		n, err := c.c.Write(p)
		if err == nil || c.lost() || c.enough.Load() || c.c.TLS() != nil {
			return err
		}
		if now = time.Now(); !wait.lasts(n, err, now) {
			return err
		}
		p = p[n:]
	}
}

// boundSend bounds the next write.
func (c *upConn) boundSend(now time.Time, d time.Duration) {
	c.sendAt.bound(now, d, c.c.SetWriteDeadline, c.sendInstead)
}

// boundRequest bounds the write of p, which is all that is sent before a reply: within
// about d, and by end. A short p fits into the buffers of the kernel, so that the time
// at which its write would end does not matter.
func (c *upConn) boundRequest(p []byte, now time.Time, d time.Duration, end time.Time) {
	if len(p) > shortWrite && endsFirst(now, d, end) {
		c.sendAt.boundAt(end, c.c.SetWriteDeadline, c.sendInstead)
		return
	}
	c.boundSend(now, until(now, d, end))
}

const shortWrite = 4 << 10

func (c *upConn) sendInstead() (time.Time, bool) { return past, c.sendOver() }
func (c *upConn) sendOver() bool                 { return c.lost() || c.enough.Load() }

// ask writes a whole request and waits for the beginning of the reply. If n is
// short without an error, the caller has to send the rest. With ErrNotQuiet
// nothing was sent. See Ask of [l4.Conn] for look.
func (c *upConn) ask(req []byte, look bool) (n int, err error) {
	b, n, err := c.c.Ask(req, look, &c.host.up.pool)
	if b != nil {
		c.in.set(b)
		c.gotHead = true
	}
	return n, err
}

// wait bounds the next read.
func (c *upConn) wait(now time.Time, d time.Duration) {
	c.readAt.bound(now, d, c.c.SetReadDeadline, c.readInstead)
}

// waitHead bounds the next read of a head: within about d, and by end. The deadline may
// pass before both, that of the last exchange for one, which saves setting one for each: the
// caller has to look, and to wait again.
func (c *upConn) waitHead(now time.Time, d time.Duration, end time.Time) {
	if !endsFirst(now, d, end) {
		c.wait(now, d)
		return
	}
	if at := c.readAt.at; at.After(end) || at.Sub(now) < end.Sub(now)/2 {
		c.readAt.boundAt(end, c.c.SetReadDeadline, c.readInstead)
	}
}

// endsFirst reports whether end, if it is not zero, may come before a coarse bound of d.
func endsFirst(now time.Time, d time.Duration, end time.Time) bool {
	d = min(d, longest)
	return !end.IsZero() && (d <= 0 || end.Sub(now) < d+d/2)
}

func (c *upConn) readInstead() (time.Time, bool) { return past, c.readOver() }

func (c *upConn) readOver() bool {
	return c.lost() || c.pump != nil && c.pump.clientError() != nil
}

func (c *upConn) fill() error { return c.in.fill(c.c, &c.host.up.buffers) }

// readHead reads the head of a reply, interim or final, into c.rep, and
// determines the framing of its body for a request of that method.
func (c *upConn) readHead(method string) error {
	from := 0
	for {
		if !c.in.empty() {
			n, bad := headEnd(c.in.bytes(), from)
			if bad != nil {
				return &badReply{cmp.Or(otherProtocol(c.in.bytes()), error(bad))}
			}
			if n > 0 {
				if n > maxReplyHead {
					return &badReply{errHeadTooLong}
				}
				return c.parseHead(n, method)
			}
			if from = len(c.in.bytes()); from >= len(replyPrefix) && string(c.in.bytes()[:len(replyPrefix)]) != replyPrefix {
				return &badReply{cmp.Or(otherProtocol(c.in.bytes()), errNotHTTP)} // no further byte can make it HTTP
			}
			if from >= maxReplyHead {
				return &badReply{errHeadTooLong}
			}
		}
		if err := c.fill(); err != nil {
			if !c.in.empty() && errors.Is(err, io.EOF) {
				return &badReply{io.ErrUnexpectedEOF}
			}
			return err
		}
		c.gotHead = true
	}
}

const replyPrefix = "HTTP/1."

var (
	errHeadTooLong = errors.New("head too long")
	errNotHTTP     = errors.New("not HTTP/1")
	errIsHTTP2     = errors.New("not HTTP/1, but HTTP/2: Upstream.Protocols must allow that (UnencryptedHTTP2 alone for h2c)")
	errIsTLS       = errors.New("not HTTP/1, but TLS: Upstream.TLS must be set for this server")
)

// otherProtocol returns an error that says which setting is missing, if b is how a server
// of HTTP/2 (a SETTINGS frame of stream 0, RFC 9113, section 3.4) or of TLS (an alert, RFC
// 8446, section 5.1) answers a request of HTTP/1 in the clear. Otherwise it returns nil.
func otherProtocol(b []byte) error {
	switch {
	case len(b) < 7:
	case b[0] == 0 && strings.HasPrefix("\x04\x00\x00\x00\x00\x00", string(b[3:min(len(b), 9)])):
		return errIsHTTP2
	case string(b[:2]) == "\x15\x03" && string(b[3:5]) == "\x00\x02":
		return errIsTLS
	}
	return nil
}

func (c *upConn) parseHead(n int, method string) error {
	var f framing
	head := sameOr(c.head, c.in.bytes()[:n])
	c.head = head
	c.full = c.in.full()
	c.in.use(n)
	c.consumed()
	r := &c.rep
	minor, bad := parseReply(r, &f, head, maxReplyFields)
	if bad != nil {
		return &badReply{bad}
	}
	c.keep = !f.close && (minor > 0 || f.keepAlive)
	c.private = c.private || logsIn(r)
	c.protocol = f.protocol.join()
	if r.Status == http.StatusUpgradeRequired && c.protocol != "" {
		r.Header.list = append(r.Header.list, Field{Name: "Upgrade", Value: c.protocol, kind: kindUpgrade, checked: true})
	}
	c.trailer, c.waited = nil, false
	clear(r.filters)
	r.Local, r.Server, r.ContentLength, r.filters = false, nil, f.length, r.filters[:0]
	switch {
	case method == http.MethodConnect && r.Status/100 == 2:
		c.left, r.ContentLength = 0, -1 // a tunnel (RFC 9110, section 9.3.6)
	case method == http.MethodHead || !bodyAllowed(r.Status):
		c.left = 0
		if r.Status == http.StatusNoContent {
			r.ContentLength = -1
		}
	case f.chunked:
		c.left = -1
		c.chunk = chunkDecoder{trailer: c.chunk.trailer[:0]}
	case f.length >= 0:
		c.left = f.length
	default:
		c.left, c.keep = untilClose, false
	}
	return nil
}

// logsIn reports whether a reply begins an authentication of the whole
// connection: later requests over it would have the identity of this client.
func logsIn(r *Reply) bool {
	if r.Status != http.StatusUnauthorized && r.Status != http.StatusProxyAuthRequired {
		return false
	}
	for _, name := range [...]string{"WWW-Authenticate", "Proxy-Authenticate"} {
		for v := range r.Header.Values(name) {
			if connectionScheme(v) {
				return true
			}
		}
	}
	return false
}

// logsIn reports whether a request authenticates its connection without a
// challenge (RFC 4559, section 4).
func (f *Fields) logsIn() bool {
	for i := range f.list {
		if fd := &f.list[i]; fd.kind == kindAuthorization && connectionScheme(fd.Value) {
			return true
		}
	}
	return false
}

// connectionScheme reports whether an authentication scheme authenticates the
// connection.
func connectionScheme(v string) bool {
	if i := strings.IndexAny(v, " \t,"); i >= 0 {
		v = v[:i]
	}
	return equalFold(v, "ntlm") || equalFold(v, "negotiate")
}

// consumed releases the input buffer once all of it has been used.
func (c *upConn) consumed() { c.in.consumed(&c.host.up.buffers) }

// ended reports whether the body has been read to its end.
func (c *upConn) ended() bool {
	return c.left == 0 || c.left == -1 && c.chunk.state == chunkDone
}

// next returns the next piece of the body, valid until the call after, and io.EOF
// at the end of a complete body. c.bodyWait bounds the wait.
func (c *upConn) next() ([]byte, error) {
	c.consumed()
	for !c.ended() {
		if c.in.empty() {
			if err := c.more(); err != nil {
				return nil, err
			}
		}
		src := c.in.bytes()
		switch c.left {
		case untilClose:
			c.in.use(len(src))
			return src, nil
		case -1:
			data, used, bad := c.chunk.decode(src)
			if bad != nil {
				return nil, &badReply{bad}
			}
			if len(data) > 0 {
				data, used = c.joinShort(data, src, used)
			}
			c.in.use(used)
			if len(data) > 0 {
				c.endAtHand()
				return data, nil
			}
			c.consumed()
			if err := c.readTrailer(); err != nil {
				return nil, err
			}
		default:
			n := int(min(int64(len(src)), c.left))
			c.in.use(n)
			c.left -= int64(n)
			return src[:n], nil
		}
	}
	return nil, io.EOF
}

// joinShort moves the data of short chunks that have come behind data to its end, over their
// framing, so that chunks of one byte do not make as many pieces. Of src, used bytes have
// been decoded.
func (c *upConn) joinShort(data, src []byte, used int) ([]byte, int) {
	const short = 512
	for len(data) < headBuffer && used < len(src) {
		before := c.chunk
		next, n, bad := c.chunk.decode(src[used:])
		if bad != nil || len(next) > short || c.chunk.state == chunkDone {
			c.chunk = before // the next call does this
			break
		}
		data = append(data, next...)
		used += n
	}
	return data, used
}

// endAtHand reads the end of a chunked body if it is already in the input. A reader
// that finds the end in the data itself does not read on.
func (c *upConn) endAtHand() {
	rest := c.in.bytes()
	if !bytes.HasPrefix(rest, []byte("\r\n0")) {
		return
	}
	end := c.chunk
	_, used, bad := end.decode(rest)
	if bad != nil || end.state != chunkDone {
		return // the next call finds the error
	}
	if f, bad := end.fields(maxReplyFields); bad == nil {
		c.chunk, c.trailer = end, f
		c.in.use(used)
	}
}

func (c *upConn) readTrailer() error {
	if c.chunk.state != chunkDone {
		return nil
	}
	f, bad := c.chunk.fields(maxReplyFields)
	if c.trailer = f; bad != nil {
		return &badReply{bad}
	}
	return nil
}

// more reads a buffer of body, a large one if much is left. Bytes that came
// with the head are sent to the client first, unless more are ready: then they
// are sent together.
func (c *upConn) more() error {
	pool := &c.host.up.pool
	if c.left == untilClose || c.left > headBuffer || c.left == -1 && c.chunk.n > headBuffer {
		pool = &c.host.up.bulk
	}
	if c.full {
		c.full = false
		b, err := c.c.TryReadBuffer(pool)
		if c.in.set(b); b != nil || err != nil {
			return c.noMore(err)
		}
	}
	if c.x != nil {
		if err := c.x.down.flush(); err != nil {
			return &clientError{err}
		}
	}
	c.idleAt = time.Now()
	c.awaitBody(c.idleAt)
	err := c.endedBy(c.in.read(c.c, pool))
	for errors.Is(err, os.ErrDeadlineExceeded) && !c.lost() {
		now := time.Now()
		left := c.bodyWait.longer(now, c.pump, &c.rep)
		if left <= 0 {
			break
		}
		c.waitBody(now, left)
		err = c.endedBy(c.in.read(c.c, pool))
	}
	c.waited = true
	if c.x != nil {
		c.x.now = time.Time{} // that was a wait
	}
	return c.noMore(err)
}

// noMore returns the error of the body for err, which may be the end of the
// connection.
func (c *upConn) noMore(err error) error {
	switch {
	case !errors.Is(err, io.EOF):
		return err
	case c.left == untilClose && cutShort(c.c.NetConn()):
		return errNoCloseNotify
	case c.left == untilClose:
		c.left = 0
		return io.EOF
	}
	return io.ErrUnexpectedEOF
}

// behind reports whether there are unused bytes after the reply.
func (c *upConn) behind() bool { return !c.in.empty() }

// spliceMin is the length of a body in bytes from which splicing through a pipe pays.
const spliceMin = 512 << 10

// splice implements replyReader.
func (c *upConn) splice(to replyWriter) (tried bool, err error) {
	if c.left < spliceMin {
		return true, nil
	}
	if c.behind() {
		return false, nil
	}
	dst := to.direct(c.left)
	if dst == nil {
		return true, nil
	}
	c.consumed()
	reading := false
	n, err := l4.Transfer(dst.conn(), c.c, c.left, func(side *l4.Conn) {
		if reading = side == c.c; reading {
			c.idleAt = time.Now()
			c.awaitBody(c.idleAt)
		} else {
			dst.sending()
		}
	})
	c.left -= n
	dst.sent(n)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return true, nil
	case err != nil && !reading:
		return true, &clientError{err}
	}
	return true, c.endedBy(err)
}

// endedBy returns what has ended a wait for the body. An error of the request's
// body on the client's side ends it by a deadline.
func (c *upConn) endedBy(err error) error {
	if c.pump != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		if perr := c.pump.clientError(); perr != nil {
			return &clientError{perr}
		}
	}
	return err
}
