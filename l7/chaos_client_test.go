// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/require"
)

// path chooses a pool.
func path(token string) string {
	if rand.N(2) == 0 {
		return "/tls/" + token
	}
	return "/" + token
}

func (c *chaos) dial(addr string) (net.Conn, bool) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		time.Sleep(time.Millisecond) // between two gateways
		return nil, false
	}
	_ = nc.SetDeadline(time.Now().Add(chaosPatience / 2))
	return nc, true
}

// finish checks why reading ended: time must not be the reason.
func (c *chaos) finish(err error) {
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		c.wrong("no reply: %v", err)
	}
}

// pipeliner sends several requests at once.
func (c *chaos) pipeliner() {
	nc, ok := c.dial(c.plain)
	if !ok {
		return
	}
	defer nc.Close()
	br := bufio.NewReader(nc)
	for !c.over() {
		var reqs bytes.Buffer
		tokens := make([]string, 1+rand.N(5))
		for i := range tokens {
			tokens[i] = c.token()
			fmt.Fprintf(&reqs, "GET %s HTTP/1.1\r\nHost: a.test\r\nX-Token: %s\r\nX-Want: %d\r\n\r\n", path(tokens[i]), tokens[i], rand.N(20000))
		}
		if _, err := nc.Write(reqs.Bytes()); err != nil {
			return
		}
		for _, token := range tokens {
			if !c.readReply(br, token) {
				return
			}
		}
	}
}

// readReply reads one reply of a raw connection and reports whether the connection
// goes on.
func (c *chaos) readReply(br *bufio.Reader, token string) bool {
	for {
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			c.finish(err)
			return false
		}
		if resp.StatusCode == 103 {
			continue
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			c.finish(err)
			return false
		}
		c.check(token, resp.StatusCode, resp.Header, body)
		return !resp.Close
	}
}

// aborter leaves at some point of an exchange.
func (c *chaos) aborter() {
	nc, ok := c.dial(c.plain)
	if !ok {
		return
	}
	defer nc.Close()
	token := c.token()
	text := c.body(token, 30000)
	req := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: a.test\r\nX-Token: %s\r\nContent-Length: %d\r\n\r\n%s", path(token), token, len(text), text)
	if _, err := io.WriteString(nc, req[:rand.N(len(req)+1)]); err != nil {
		return
	}
	switch rand.N(3) {
	case 0:
		_, _ = io.CopyN(io.Discard, nc, int64(rand.N(2)))
	case 1:
		_ = nc.(*net.TCPConn).SetLinger(0)
	}
}

// pauser lets its connection idle until the gateway parks it.
func (c *chaos) pauser() {
	addr, secure := c.plain, rand.N(2) == 0
	if secure {
		addr = c.secure
	}
	nc, ok := c.dial(addr)
	if !ok {
		return
	}
	defer nc.Close()
	if secure {
		nc = tls.Client(nc, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	}
	br := bufio.NewReader(nc)
	for !c.over() {
		token := c.token()
		if _, err := fmt.Fprintf(nc, "GET %s HTTP/1.1\r\nHost: a.test\r\nX-Token: %s\r\nX-Want: 10\r\n\r\n", path(token), token); err != nil {
			return
		}
		if !c.readReply(br, token) {
			return
		}
		select {
		case <-time.After(time.Duration(rand.N(400)) * time.Millisecond):
		case <-c.stop:
		}
	}
}

// uploader sends bodies in pieces, chunked or not, and expects a 100 now and then.
func (c *chaos) uploader() {
	tr := &http.Transport{ExpectContinueTimeout: time.Second}
	defer tr.CloseIdleConnections()
	for range 20 {
		token := c.token()
		text := c.body(token, rand.N(100000))
		req, err := http.NewRequest("POST", "http://"+c.plain+path(token), struct{ io.Reader }{strings.NewReader(text)})
		require.NoError(c, err)
		if rand.N(2) == 0 {
			req.ContentLength = int64(len(text))
		}
		if rand.N(4) == 0 {
			req.Header.Set("Expect", "100-continue")
		}
		c.do(tr, req, token)
	}
}

func (c *chaos) h1Client() { c.get("http://"+c.plain, &http.Transport{}) }

func (c *chaos) standardClient() { c.get("http://"+c.standard, &http.Transport{}) }

func (c *chaos) h2Client() {
	p := new(http.Protocols)
	p.SetHTTP2(true)
	c.get("https://"+c.secure, &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, Protocols: p})
}

// get sends requests from several goroutines, some of which leave early.
func (c *chaos) get(base string, tr *http.Transport) {
	defer tr.CloseIdleConnections()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 10 {
				token := c.token()
				ctx, cancel := context.WithCancel(context.Background())
				req, err := http.NewRequestWithContext(ctx, "GET", base+path(token), nil)
				require.NoError(c, err)
				req.Header.Set("X-Want", strconv.Itoa(rand.N(50000)))
				if rand.N(5) == 0 {
					time.AfterFunc(time.Duration(rand.N(5000))*time.Microsecond, cancel)
				}
				c.do(tr, req, token)
				cancel()
			}
		})
	}
	wg.Wait()
}

// do sends a request and checks its reply, if there is one.
func (c *chaos) do(tr *http.Transport, req *http.Request, token string) {
	req.Header.Set("X-Token", token)
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err == nil {
		c.check(token, resp.StatusCode, resp.Header, body)
	}
}
