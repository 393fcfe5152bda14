// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"crypto/tls"
	"errors"
	"strconv"
	"time"

	"github.com/penstock-lb/penstock/l4"
)

// handshake does the TLS handshake, if there is one: with cfg, or that of a TLS
// connection from the listener. It reports whether it succeeded.
func (c *byteConn) handshake(cfg *tls.Config) bool {
	t, ready := c.nc.(*tls.Conn)
	if cfg == nil && !ready {
		return true
	}
	var h *handedConn
	if !ready {
		h = &handedConn{Conn: l4.NewConn(c.nc), base: c.base} // an l4.Conn has cheaper reads and writes
		t = tls.Server(h, cfg)
	}
	ctx := c.base
	if d := orDefault(c.srv.HandshakeTimeout, defaultHandshakeTimeout); d > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d)
		defer cancel()
	}
	if err := c.shakeHands(ctx, t); err != nil {
		c.srv.totals.handshakeErrors.Add(1)
		c.answerPlain(err)
		if errors.Is(ctx.Err(), context.DeadlineExceeded) && c.base.Err() == nil {
			err = &TimeoutError{"Server.HandshakeTimeout", orDefault(c.srv.HandshakeTimeout, defaultHandshakeTimeout), err}
		}
		if e := l4.ClientCertErrorOf(err); e != nil {
			err = e // which names the certificate
		}
		c.srv.logger().Debug("l7: TLS handshake failed", "remote", c.nc.RemoteAddr(), "error", err)
		c.tellHandshake(err)
		return false
	}
	c.srv.totals.handshakes.Add(1)
	c.opaque = h == nil
	if c.nc = t; h != nil {
		h.bound.set(orDefault(c.srv.SendTimeout, defaultSendTimeout))
	}
	return true
}

// tellHandshake calls OnHandshakeError.
func (c *byteConn) tellHandshake(err error) {
	if c.srv.OnHandshakeError == nil {
		return
	}
	defer func() {
		if p := recover(); p != nil {
			_ = recovered(c.srv.logger(), p, "OnHandshakeError")
		}
	}()
	c.srv.OnHandshakeError(addrPort(c.remoteAddr()), err)
}

// keepJA4 returns a GetConfigForClient that keeps the fingerprint of the client, and then
// does what next does, which may be nil.
func keepJA4(next func(*tls.ClientHelloInfo) (*tls.Config, error)) func(*tls.ClientHelloInfo) (*tls.Config, error) {
	return func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if h, ok := hello.Conn.(*handedConn); ok {
			below := *hello
			below.Conn = h.Conn
			l4.KeepJA4(&below)
		}
		if next == nil {
			return nil, nil
		}
		return next(hello)
	}
}

// answerPlain tells a client that sends plain HTTP that the port expects TLS.
// It does not parse the request, since it came over the wrong channel.
func (c *byteConn) answerPlain(err error) {
	re, ok := errors.AsType[tls.RecordHeaderError](err)
	if !ok || re.Conn == nil || !looksLikeHTTP(re.RecordHeader[:]) {
		return
	}
	const body = "This port expects HTTPS.\n"
	plain := l4.NewConn(re.Conn)
	_ = plain.SetDeadline(time.Now().Add(lingerTime))
	_, _ = plain.Write([]byte("HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: " +
		strconv.Itoa(len(body)) + "\r\nConnection: close\r\n\r\n" + body))
	c.c = plain
	c.ends.atLeast(endsLate)
}

// looksLikeHTTP reports whether an HTTP/1 request may begin with b: a method of
// capital letters, followed by a space if b is long enough.
func looksLikeHTTP(b []byte) bool {
	n := 0
	for n < len(b) && 'A' <= b[n] && b[n] <= 'Z' {
		n++
	}
	return n == len(b) || n >= 3 && b[n] == ' '
}

// shakeHands does the handshake and returns a panic of the configuration's
// callbacks as an error.
func (c *byteConn) shakeHands(ctx context.Context, t *tls.Conn) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = recovered(c.srv.logger(), p, "TLS handshake", "remote", c.nc.RemoteAddr())
		}
	}()
	return l4.Handshake(ctx, t)
}
