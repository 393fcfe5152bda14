// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"
	"time"

	"github.com/penstock-lb/penstock/l4"
)

// tunnel implements replyReader.
func (c *upConn) tunnel(method string) serverTunnel {
	if c.rep.Status == http.StatusSwitchingProtocols || method == http.MethodConnect && c.rep.Status/100 == 2 {
		return c
	}
	return nil
}

// The methods below implement serverTunnel.

func (c *upConn) conn() *l4.Conn     { return c.c }
func (c *upConn) switchedTo() string { return c.protocol }

func (c *upConn) onCut(f func(reason string)) {
	c.whenCut.Store(&f)
	if r := c.cutReason.Load(); r != nil {
		f(*r)
	}
}

func (c *upConn) open() {
	_ = c.c.SetDeadline(time.Time{})
	if c.lost() { // seen here, or the deadline is in force
		c.interrupt()
	}
}

func (c *upConn) takeEarly(take func([]byte) error) error {
	defer c.releaseInput()
	if c.in.empty() {
		return nil
	}
	return take(c.in.bytes())
}

func (c *upConn) read(p []byte, limit time.Duration) (int, error) {
	if !c.in.empty() {
		n := copy(p, c.in.bytes())
		c.in.use(n)
		c.consumed()
		return n, nil
	}
	c.wait(time.Now(), limit)
	return c.c.Read(p)
}

func (c *upConn) write(p []byte, limit time.Duration) error { return c.sendBody(p, limit) }

func (c *upConn) leave() {
	c.interrupt()
	c.shut()
	c.forget()
}
