// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// ownDeadlines holds the deadlines that a foreign handler has set on a
// connection: they replace the server's own until the exchange ends. Any
// goroutine may read the body.
type ownDeadlines struct{ read, write hostDeadline }

// mayOwn reports whether the front can make (w, r) for the request itself.
// Requests that ask for an upgrade or wait for a 100 go to the http.Server.
func (c *byteConn) mayOwn() bool {
	return c.x.upgrade == "" && !c.x.expect && c.x.asked.method != http.MethodConnect
}

// ownRequest makes r the request that net/http makes from the same head.
func (c *byteConn) ownRequest(r *http.Request, ctx *requestContext) {
	x := &c.x
	line, fields, _ := cutLine(c.req.head)
	_, target, _ := strings.Cut(line, " ")
	target, _, _ = strings.Cut(target, " ")
	major, minor := x.Proto()
	r.Method, r.Proto, r.ProtoMajor, r.ProtoMinor = x.asked.method, x.protoName(), major, minor
	r.Host, r.RequestURI, r.RemoteAddr, r.TLS = x.asked.host, target, c.remoteName(), c.from.tls
	r.Close = c.frame.close || x.proto == 0 && !c.frame.keepAlive
	if !c.req.ended() {
		r.ContentLength = c.req.left
	}
	r.URL = urlOf(target)
	if r.URL == nil {
		r.URL = &url.URL{Path: x.asked.path, RawQuery: strings.TrimPrefix(x.asked.query, "?")}
	}
	r.Header = headerOf(fields)
	if c.frame.coded {
		delete(r.Header, "Transfer-Encoding")
		r.TransferEncoding = []string{"chunked"}
		r.Trailer = announced(&x.Header)
		delete(r.Header, "Trailer")
	}
	if p := r.Header["Pragma"]; len(p) > 0 && p[0] == "no-cache" && r.Header["Cache-Control"] == nil {
		r.Header["Cache-Control"] = []string{"no-cache"} // RFC 9111, section 5.4
	}
	ctx.Context = c.ctx
	*r = *r.WithContext(ctx)
}

// urlOf returns what [url.ParseRequestURI] makes of a target of the bytes that one may
// have, and nil for an error. It needs no parser for a path of bytes that mean themselves.
func urlOf(target string) *url.URL {
	path, query, asks := strings.Cut(target, "?")
	if path != "" && path[0] == '/' && all(path, isPlainByte) {
		return &url.URL{Path: path, RawQuery: query, ForceQuery: asks && query == ""}
	}
	u, err := url.ParseRequestURI(target)
	if err != nil {
		return nil
	}
	return u
}

// headerOf makes a header map of the lines of a head, without Host. They have been
// validated before.
func headerOf(lines string) http.Header {
	n := max(0, strings.Count(lines, "\n")-1) // the last one is empty
	h := make(http.Header, n)
	all := make([]string, 0, n)
	for {
		l, rest, ok := cutLine(lines)
		if !ok || l == "" {
			return h
		}
		lines = rest
		colon := strings.IndexByte(l, ':')
		name, v := http.CanonicalHeaderKey(l[:colon]), trimOWS(l[colon+1:])
		if name == "Host" {
			continue
		}
		if old, more := h[name]; more {
			h[name] = append(old, v)
			continue
		}
		all = append(all, v)
		h[name] = all[len(all)-1 : len(all) : len(all)]
	}
}

func (c *byteConn) server() *Server { return c.srv }

func (c *byteConn) origin() *origin {
	if c.kept == nil {
		o := c.from
		c.kept = &o
	}
	return c.kept
}

// wrote sends what net/http would have sent by now: it buffers 4 KiB.
func (c *byteConn) wrote() {
	if c.out != nil && len(c.out.B) >= 4<<10 {
		_ = c.flush()
	}
}

func (c *byteConn) lastReply()    { c.mustClose() }
func (c *byteConn) heldBack() int { return 2 << 10 } // as net/http

// setReadDeadline bounds reads of the request body.
func (c *byteConn) setReadDeadline(t time.Time) error {
	c.own.read.set(t)
	return c.c.SetReadDeadline(t)
}

// setWriteDeadline bounds writes of the reply.
func (c *byteConn) setWriteDeadline(t time.Time) error {
	c.own.write.set(t)
	return c.c.SetWriteDeadline(t)
}

// sendFile sends n bytes of a file behind the head, with sendfile(2). It reports false if
// it cannot.
func (c *byteConn) sendFile(f *os.File, n int64) (done int64, err error, ok bool) {
	to, ok := c.c.NetConn().(*net.TCPConn)
	if !ok || c.nc != c.raw {
		return 0, nil, false
	}
	if err := c.push(true); err != nil {
		return 0, err, true
	}
	var b writeBound
	if !c.own.write.stands() {
		b.set(orDefault(c.srv.SendTimeout, defaultSendTimeout))
	}
	if done, err = b.sendFile(to, f, n); err != nil {
		c.ends.atLeast(endsBroken)
	}
	c.sendAt.forget()
	c.rep.left -= done
	return done, err, true
}

// resetDeadlines puts the server's own deadlines in force again.
func (c *byteConn) resetDeadlines() {
	if c.own.read.clear() {
		c.readAt.forget()
		_ = c.c.SetReadDeadline(time.Time{})
	}
	if c.own.write.clear() {
		c.sendAt.forget()
		_ = c.c.SetWriteDeadline(time.Time{})
	}
}

// takeConn gives the connection to a handler, with the bytes that the client
// has sent after its request.
func (c *byteConn) takeConn(w *ownWriter) (net.Conn, *bufio.ReadWriter, error) {
	if w.status != 0 {
		w.buf = nil // net/http loses what it has buffered, and the handler may write it itself
		if err := w.push(nil, false); err != nil {
			return nil, nil, err
		}
	}
	if err := c.flush(); err != nil {
		return nil, nil, err
	}
	hc := &handedConn{Conn: c.c, base: c.base, handover: &handover{remote: c.remoteAddr(), clientConn: clientConn{owns: c.owns, kept: c.c}}}
	c.srv.trackHanded(hc, false)
	c.stopPeek()
	c.unwatch()
	c.owns, c.moved = nil, true
	c.ends.atLeast(endsHanded)
	_ = c.c.SetDeadline(time.Time{})
	nc := c.withTLS(hc)
	if b := w.body; b != nil && b.closed.Load() && c.bodyReady() { // net/http has read it
		c.in.use(int(max(c.req.left, 0)))
		c.req.left = 0
	}
	early := string(c.in.bytes())
	br := bufio.NewReaderSize(io.MultiReader(strings.NewReader(early), nc), max(len(early), 4<<10))
	if early != "" {
		_, _ = br.Peek(len(early))
	}
	return nc, bufio.NewReadWriter(br, bufio.NewWriter(nc)), nil
}

func (c *byteConn) awaitTaken(bool) {}
func (c *byteConn) mayHijack() bool { return true }
