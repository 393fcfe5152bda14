// SPDX-License-Identifier: Apache-2.0

package l7test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// A Script is what an [Origin] does with one request. It begins when the
// request has been read to its end, or, if its first step is [Early], when the
// head has. After it, the connection continues with the next request, unless a
// step has ended it.
type Script []Step

// A Step is one thing to do.
type Step struct {
	do    func(c *Call) error
	early bool
}

// Do is a step of your own. An error ends the connection and is one of
// [Origin.Faults].
func Do(do func(c *Call) error) Step { return Step{do: do} }

// A Call is the current request, for steps.
type Call struct {
	Request *Request // must not be changed

	o  *Origin
	tx transport
}

// transport is an HTTP/1 connection, or an HTTP/2 stream.
type transport interface {
	io.Writer
	readBody() error
	reply(status int, fields []Field, body string, trailer []Field) error
	hold() // until the peer ends the connection or stream
	reset() error
	goAway(code uint32) error
	hangUp(write bool) error
}

// errEnd ends the connection without being a fault.
var errEnd = errors.New("l7test: end of the connection")

// Write sends bytes unchanged.
func (c *Call) Write(p []byte) (int, error) { return c.tx.Write(p) }

// Early makes the script begin before the request body is read. The body is
// then read by the step [ReadBody], or never.
func Early() Step { return Step{func(*Call) error { return nil }, true} }

// ReadBody reads the request body to its end.
func ReadBody() Step { return Do(func(c *Call) error { return c.tx.readBody() }) }

// Reply sends a well-formed reply with a Content-Length. Fields are name,
// value, name, value, ... In HTTP/2 it ends the stream.
func Reply(status int, body string, fields ...string) Step {
	return Do(func(c *Call) error { return c.tx.reply(status, pairs(fields), body, nil) })
}

// ReplyTrailer is Reply with a chunked body and a trailer of one field.
func ReplyTrailer(status int, body, name, value string) Step {
	return Do(func(c *Call) error { return c.tx.reply(status, nil, body, []Field{{name, value}}) })
}

// Echo replies 200 with the request's body.
func Echo() Step {
	return Do(func(c *Call) error { return c.tx.reply(http.StatusOK, nil, string(c.Request.Body), nil) })
}

// Interim sends a 1xx reply.
func Interim(status int, fields ...string) Step {
	return Do(func(c *Call) error {
		if h, ok := c.tx.(*h2Stream); ok {
			return h.head(status, pairs(fields), false)
		}
		_, err := io.WriteString(c.tx, head(status, pairs(fields))+"\r\n")
		return err
	})
}

// Send sends bytes unchanged, in one write. "{T}" in them is replaced by the
// request's target.
func Send(s string) Step {
	return Do(func(c *Call) error {
		_, err := io.WriteString(c.tx, strings.ReplaceAll(s, "{T}", c.Request.Target))
		return err
	})
}

// Repeat sends bytes n times.
func Repeat(n int, s string) Step {
	return Do(func(c *Call) error {
		for range n {
			if _, err := io.WriteString(c.tx, s); err != nil {
				return err
			}
		}
		return nil
	})
}

// Trickle sends bytes in pieces of n, waiting d before each.
func Trickle(n int, d time.Duration, s string) Step {
	return Do(func(c *Call) error {
		for s := s; s != ""; {
			k := min(n, len(s))
			if err := c.o.wait(d); err != nil {
				return err
			}
			if _, err := io.WriteString(c.tx, s[:k]); err != nil {
				return err
			}
			s = s[k:]
		}
		return nil
	})
}

// Wait waits for a time.
func Wait(d time.Duration) Step { return Do(func(c *Call) error { return c.o.wait(d) }) }

// Stall does nothing until the peer ends the connection or, in HTTP/2, the
// stream. It discards what the peer sends meanwhile.
func Stall() Step {
	return Do(func(c *Call) error {
		c.tx.hold()
		return errEnd
	})
}

// Close closes the connection cleanly.
func Close() Step { return Do(func(c *Call) error { return c.tx.hangUp(false) }) }

// CloseWrite ends the sending direction; the origin keeps reading.
func CloseWrite() Step { return Do(func(c *Call) error { return c.tx.hangUp(true) }) }

// Reset resets the connection; in HTTP/2 it resets the stream.
func Reset() Step { return Do(func(c *Call) error { return c.tx.reset() }) }

// GoAway tells an HTTP/2 peer that no stream after this one will be served,
// with an error code of RFC 9113, section 7. On HTTP/1 it is an error.
func GoAway(code uint32) Step { return Do(func(c *Call) error { return c.tx.goAway(code) }) }

// Tunnel answers 101 for a protocol and then echoes bytes until the peer ends
// the connection.
func Tunnel(protocol string) Step {
	return Do(func(c *Call) error {
		h, ok := c.tx.(*h1Conn)
		if !ok {
			return errors.New("l7test: Tunnel on HTTP/2")
		}
		if err := Send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + protocol + "\r\n\r\n").do(c); err != nil {
			return err
		}
		if _, err := io.Copy(c.tx, h.br); err != nil {
			return err
		}
		return errEnd
	})
}

func pairs(list []string) []Field {
	if len(list)%2 != 0 {
		panic("l7test: a field name without a value")
	}
	var fs []Field
	for i := 0; i < len(list); i += 2 {
		fs = append(fs, Field{list[i], list[i+1]})
	}
	return fs
}

// head returns a status line and fields, without the empty line.
func head(status int, fields []Field) string {
	var b strings.Builder
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", status, http.StatusText(status))
	for _, f := range fields {
		fmt.Fprintf(&b, "%s: %s\r\n", f.Name, f.Value)
	}
	return b.String()
}
