// SPDX-License-Identifier: Apache-2.0

package l7test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// An Origin is an HTTP/1 and HTTP/2 (prior knowledge) server that follows
// scripts. The zero value answers every request with 200 and "ok". All its
// methods may be called at once by many goroutines; the fields must not change
// once it serves.
type Origin struct {
	// Scripts are used for the requests in the order in which their heads arrive,
	// over all connections; the last one is also used for all later requests.
	Scripts []Script
	// Choose, if not nil, returns the script instead.
	Choose func(r *Request) Script

	once  sync.Once
	done  chan struct{} // closed by Close
	wg    sync.WaitGroup
	mu    sync.Mutex
	lns   []net.Listener
	open  map[net.Conn]bool
	conns int
	reqs  []*Request
	fault []error
}

func (o *Origin) init() {
	o.once.Do(func() {
		o.done = make(chan struct{})
		o.open = make(map[net.Conn]bool)
	})
}

// Serve accepts connections until Close, then returns [http.ErrServerClosed].
func (o *Origin) Serve(ln net.Listener) error {
	o.init()
	o.mu.Lock()
	o.lns = append(o.lns, ln)
	o.mu.Unlock()
	for {
		c, err := ln.Accept()
		select {
		case <-o.done:
			if err == nil {
				c.Close()
			}
			ln.Close()
			return http.ErrServerClosed
		default:
		}
		if err != nil {
			return err
		}
		o.start(c)
	}
}

func (o *Origin) start(c net.Conn) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.open[c] = true
	n := o.conns
	o.conns++
	o.wg.Go(func() {
		defer func() {
			c.Close()
			o.mu.Lock()
			delete(o.open, c)
			o.mu.Unlock()
		}()
		br := bufio.NewReader(c)
		var err error
		if p, _ := br.Peek(3); string(p) == "PRI" {
			err = o.serveH2(c, br, n)
		} else {
			err = (&h1Conn{o: o, Conn: c, br: br, n: n}).serve()
		}
		if err != nil && !errors.Is(err, errEnd) && !errors.Is(err, io.EOF) {
			o.mu.Lock()
			o.fault = append(o.fault, err)
			o.mu.Unlock()
		}
	})
}

// Close closes all listeners and connections and waits for their goroutines.
func (o *Origin) Close() error {
	o.init()
	o.mu.Lock()
	select {
	case <-o.done:
	default:
		close(o.done)
	}
	for _, ln := range o.lns {
		ln.Close()
	}
	for c := range o.open {
		c.Close()
	}
	o.mu.Unlock()
	o.wg.Wait()
	return nil
}

// Requests returns the requests whose head has arrived, in that order.
func (o *Origin) Requests() []Request {
	o.mu.Lock()
	defer o.mu.Unlock()
	list := make([]Request, len(o.reqs))
	for i, r := range o.reqs {
		list[i] = *r
		list[i].Body = slices.Clone(r.Body)
	}
	return list
}

// Faults returns the errors of the peers: malformed and incomplete requests.
func (o *Origin) Faults() []error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.fault)
}

// Conns returns how many connections there have been, and how many are open.
func (o *Origin) Conns() (all, open int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.conns, len(o.open)
}

// add records a request and returns its script.
func (o *Origin) add(r *Request) Script {
	o.mu.Lock()
	r.Index = len(o.reqs)
	o.reqs = append(o.reqs, r)
	o.mu.Unlock()
	switch {
	case o.Choose != nil:
		return o.Choose(r)
	case len(o.Scripts) == 0:
		return Script{Reply(http.StatusOK, "ok")}
	}
	return o.Scripts[min(r.Index, len(o.Scripts)-1)]
}

// addBody is the callback of readBody.
func (o *Origin) addBody(r *Request) func([]byte) {
	return func(p []byte) {
		o.mu.Lock()
		defer o.mu.Unlock()
		r.Body = append(r.Body, p...)
	}
}

// wait sleeps until Close.
func (o *Origin) wait(d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-o.done:
		return errEnd
	}
}

// run does the steps of a script.
func (o *Origin) run(script Script, c *Call) error {
	if len(script) == 0 || !script[0].early {
		if err := c.tx.readBody(); err != nil {
			return err
		}
	}
	for _, step := range script {
		if err := step.do(c); err != nil {
			return err
		}
	}
	return nil
}

// h1Conn is an HTTP/1 connection.
type h1Conn struct {
	net.Conn
	o  *Origin
	br *bufio.Reader
	n  int
	r  *Request // the current one
}

func (h *h1Conn) serve() error {
	for {
		r, err := readHead(h.br)
		if err != nil {
			return err
		}
		r.Conn, h.r = h.n, r
		if err := h.o.run(h.o.add(r), &Call{Request: r, o: h.o, tx: h}); err != nil {
			return err
		}
	}
}

func (h *h1Conn) readBody() error {
	r := *h.r // a copy, since others read the request once it is in the list
	if r.Complete {
		return nil
	}
	err := r.readBody(h.br, h.o.addBody(h.r))
	h.o.mu.Lock()
	defer h.o.mu.Unlock()
	h.r.Trailer, h.r.Complete = r.Trailer, r.Complete
	return err
}

func (h *h1Conn) reply(status int, fields []Field, body string, trailer []Field) error {
	s := head(status, fields)
	switch {
	case trailer != nil:
		s += fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n", len(body), body)
		for _, f := range trailer {
			s += f.Name + ": " + f.Value + "\r\n"
		}
		s += "\r\n"
	case status == http.StatusNoContent || status == http.StatusNotModified:
		s += "\r\n"
	case h.r.Method == http.MethodHead:
		s += fmt.Sprintf("Content-Length: %d\r\n\r\n", len(body))
	default:
		s += fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)
	}
	_, err := io.WriteString(h, s)
	return err
}

func (h *h1Conn) hold() { _, _ = io.Copy(io.Discard, h.br) }

func (h *h1Conn) reset() error {
	if t, ok := h.Conn.(interface{ SetLinger(int) error }); ok {
		_ = t.SetLinger(0)
	}
	return errEnd
}

func (h *h1Conn) goAway(uint32) error { return errors.New("l7test: GoAway on HTTP/1") }

func (h *h1Conn) hangUp(write bool) error {
	if cw, ok := h.Conn.(interface{ CloseWrite() error }); ok && write {
		return cw.CloseWrite()
	}
	return errEnd
}
