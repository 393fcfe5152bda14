// SPDX-License-Identifier: Apache-2.0

// Floor answers HTTP/2 over TLS with what a server says in HTTP/1, and does no more than
// that takes: it does not look at the request, whose path it is told, nor at fields of the
// reply but Content-Length. What it costs is what crypto/tls, the scheduler and the kernel
// cost a Go program, and so what a proxy in Go cannot go below. It is no proxy.
//
//	floor -tls 127.0.0.1:8443 -cert c.pem -key k.pem -to 127.0.0.1:8000 -path /small
//
// With -idle it answers one request of HTTP/1.1 on each connection by itself, and keeps the
// connection without a goroutine: then its memory is that of crypto/tls.
package main

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"flag"
	"io"
	"log"
	"net"
	"runtime"
	"strconv"
	"sync"
)

func main() {
	addr := flag.String("tls", "", "serve HTTP/2 over TLS on `ADDR`")
	cert, key := flag.String("cert", "", "PEM `FILE`"), flag.String("key", "", "PEM `FILE`")
	to := flag.String("to", "", "the server, `HOST:PORT`")
	path := flag.String("path", "/small", "`PATH` of all requests")
	size := flag.Int("buffer", 64<<10, "`BYTES` that are read from the server at once")
	yield := flag.Bool("yield", true, "let other streams add their output before a write")
	idle := flag.Bool("idle", false, "answer one request of HTTP/1.1 on each connection, and keep it")
	flag.Parse()
	pair, err := tls.LoadX509KeyPair(*cert, *key)
	if err != nil {
		log.Fatal(err)
	}
	ln, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	f := &floor{
		cfg: &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2"}},
		to:  *to, size: *size, yield: *yield, idle: *idle,
		request: []byte("GET " + *path + " HTTP/1.1\r\nHost: " + *to + "\r\n\r\n"),
	}
	log.Fatal(f.serve(ln))
}

type floor struct {
	cfg         *tls.Config
	to          string
	size        int
	yield, idle bool
	request     []byte

	mu   sync.Mutex
	kept []*tls.Conn
}

func (f *floor) serve(ln net.Listener) error {
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		go func() {
			if err := f.serveConn(c); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				log.Print(err)
			}
		}()
	}
}

func (f *floor) serveConn(nc net.Conn) error {
	out := &records{Conn: nc}
	t := tls.Server(out, f.cfg)
	if err := t.Handshake(); err != nil {
		return err
	}
	if f.idle {
		f.mu.Lock()
		f.kept = append(f.kept, t)
		f.mu.Unlock()
		if _, err := t.Read(make([]byte, 512)); err != nil {
			return err
		}
		_, err := io.WriteString(t, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		return err
	}
	defer t.Close()
	c := &conn{f: f, t: t, records: out, window: 65535}
	c.more.L = &c.mu
	return c.serve()
}

// records makes one write of the TLS records of a long one.
type records struct {
	net.Conn
	gather bool
	buf    []byte
}

func (r *records) Write(p []byte) (int, error) {
	if r.gather {
		r.buf = append(r.buf, p...)
		return len(p), nil
	}
	return r.Conn.Write(p)
}

// A conn is one of HTTP/2 (RFC 9113).
type conn struct {
	f       *floor
	t       *tls.Conn
	records *records

	mu      sync.Mutex
	more    sync.Cond // window has grown
	window  int
	out     []byte // frames to be written
	spare   []byte
	writing bool
	idle    []chan uint32 // workers that wait for a stream
}

const (
	preface   = 24
	headerLen = 9
	maxFrame  = 16 << 10

	frameData, frameHeaders, frameSettings, frameWindow = 0, 1, 4, 8

	flagEnd, flagAck, flagEndHeaders = 1, 1, 4
)

func (c *conn) serve() error {
	c.out = append(c.out, 0, 0, 0, frameSettings, 0, 0, 0, 0, 0)
	buf, n, skip := make([]byte, 32<<10), 0, preface
	for {
		m, err := c.t.Read(buf[n:])
		if err != nil {
			return err
		}
		n += m
		pos := min(skip, n)
		skip -= pos
		for skip == 0 && n-pos >= headerLen {
			size := headerLen + (int(buf[pos])<<16 | int(buf[pos+1])<<8 | int(buf[pos+2]))
			if n-pos < size {
				break
			}
			if err := c.frame(buf[pos : pos+size]); err != nil {
				return err
			}
			pos += size
		}
		n = copy(buf, buf[pos:n])
	}
}

func (c *conn) frame(b []byte) error {
	id := binary.BigEndian.Uint32(b[5:])
	switch kind, flags := b[3], b[4]; {
	case kind == frameSettings && flags&flagAck == 0:
		c.mu.Lock()
		c.out = append(c.out, 0, 0, 0, frameSettings, flagAck, 0, 0, 0, 0)
		c.mu.Unlock()
		c.flush()
	case kind == frameWindow && id == 0:
		c.mu.Lock()
		c.window += int(binary.BigEndian.Uint32(b[headerLen:]))
		c.mu.Unlock()
		c.more.Broadcast()
	case kind == frameHeaders:
		w, err := c.worker()
		if err != nil {
			return err
		}
		w <- id
	}
	return nil
}

// worker returns a goroutine that has a connection to the server.
func (c *conn) worker() (chan uint32, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.idle); n > 0 {
		w := c.idle[n-1]
		c.idle = c.idle[:n-1]
		return w, nil
	}
	up, err := net.Dial("tcp", c.f.to)
	if err != nil {
		return nil, err
	}
	w := make(chan uint32, 1)
	go func() {
		buf := make([]byte, c.f.size)
		for id := range w {
			if err := c.answer(id, up, buf); err != nil {
				c.t.Close()
				return
			}
			c.mu.Lock()
			c.idle = append(c.idle, w)
			c.mu.Unlock()
			c.flush()
		}
	}()
	return w, nil
}

var (
	headEnd = []byte("\r\n\r\n")
	length  = []byte("Content-Length: ")
)

// answer asks the server and adds the reply to the output.
func (c *conn) answer(id uint32, up net.Conn, buf []byte) error {
	if _, err := up.Write(c.f.request); err != nil {
		return err
	}
	n, err := up.Read(buf)
	if err != nil {
		return err
	}
	head := bytes.Index(buf[:n], headEnd)
	at := bytes.Index(buf[:n], length)
	if head < at || at < 0 {
		return errors.New("the head of a reply must come in one piece and have a Content-Length")
	}
	text := buf[at+len(length):]
	text = text[:bytes.IndexByte(text, '\r')]
	left, err := strconv.Atoi(string(text))
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	end := flagEndHeaders
	if left == 0 {
		end |= flagEnd
	}
	c.header(4+len(text), frameHeaders, end, id)
	c.out = append(c.out, 0x88, 0x0f, 0x0d, byte(len(text))) // :status 200, content-length (RFC 7541, appendix A)
	c.out = append(c.out, text...)
	for body := buf[head+len(headEnd) : n]; ; body = buf[:n] {
		for left -= len(body); len(body) > 0; {
			m := min(len(body), maxFrame)
			for c.window < m {
				if len(c.out) == 0 || c.writing {
					c.more.Wait()
					continue
				}
				c.unlocked(c.flush)
			}
			c.window -= m
			end = 0
			if left == 0 && m == len(body) {
				end = flagEnd
			}
			c.header(m, frameData, end, id)
			c.out = append(c.out, body[:m]...)
			body = body[m:]
		}
		if left == 0 {
			return nil
		}
		c.unlocked(func() {
			c.flush()
			n, err = up.Read(buf)
		})
		if err != nil {
			return err
		}
	}
}

func (c *conn) unlocked(f func()) {
	c.mu.Unlock()
	defer c.mu.Lock()
	f()
}

func (c *conn) header(size, kind, flags int, id uint32) {
	c.out = append(c.out, byte(size>>16), byte(size>>8), byte(size), byte(kind), byte(flags))
	c.out = binary.BigEndian.AppendUint32(c.out, id)
}

// flush writes the output, unless another goroutine does so.
func (c *conn) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.writing {
		return
	}
	c.writing = true
	if c.f.yield {
		c.unlocked(runtime.Gosched)
	}
	for len(c.out) > 0 {
		out := c.out
		c.out = c.spare[:0]
		c.unlocked(func() { c.write(out) })
		c.spare = out
	}
	c.writing = false
}

func (c *conn) write(p []byte) {
	c.records.gather = len(p) > maxFrame
	_, err := c.t.Write(p)
	if c.records.gather && err == nil {
		_, err = c.records.Conn.Write(c.records.buf)
	}
	c.records.gather, c.records.buf = false, c.records.buf[:0]
	if err != nil {
		c.t.Close()
	}
}
