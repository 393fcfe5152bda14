// SPDX-License-Identifier: Apache-2.0

package l4

// Check returns what is wrong with p and its pool.
func (p *Proxy) Check() error { return checkAll(p) }

func (p *Proxy) check(c *checks) {
	c.Need("Proxy.Pool", p.Pool, "must be the pool of servers")
	c.In("Proxy.Pool", p.Pool)
	c.In("Proxy.Socket", p.Socket)
	c.If(p.BufferBytes < 0, "Proxy.BufferBytes", p.BufferBytes, notNegative)
	c.If(p.BufferBytes > maxBufferBytes, "Proxy.BufferBytes", p.BufferBytes, "must be at most 64 MiB: each direction of a connection takes that much while it moves data")
}

// maxBufferBytes is far more than a socket of a common system holds, and so more than one
// read returns.
const maxBufferBytes = 64 << 20

// Check returns what is wrong with d and its pool. [Dialer.DialContext] calls it
// at the first dial.
func (d *Dialer) Check() error { return checkAll(d) }

func (d *Dialer) check(c *checks) {
	c.Need("Dialer.Pool", d.Pool, "must be the pool of servers")
	c.In("Dialer.Pool", d.Pool)
	c.In("Dialer.Socket", d.Socket)
}
