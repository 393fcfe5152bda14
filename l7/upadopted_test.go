// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7"
)

// Connections to servers over real sockets, more than a few so that l4's own pollers wait for
// them: what a server does between requests is seen before the next one is sent.
func TestServerBetweenRequestsOverSockets(t *testing.T) {
	for name, act := range map[string]func(c *net.TCPConn){
		"nothing":      func(*net.TCPConn) {},
		"second reply": func(c *net.TCPConn) { io.WriteString(c, wrongReply) },
		"late end":     func(c *net.TCPConn) { c.Close() },
		"half end":     func(c *net.TCPConn) { c.CloseWrite() },
		"reset":        func(c *net.TCPConn) { c.SetLinger(0); c.Close() },
		"408":          func(c *net.TCPConn) { io.WriteString(c, "HTTP/1.1 408 Late\r\nContent-Length: 0\r\n\r\n"); c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			tr, conns := idleConns(t)
			for _, c := range conns {
				act(c)
			}
			pollersTell(t)
			for i := range conns {
				method := http.MethodGet
				if i%2 == 0 {
					method = http.MethodPost // is not sent again
				}
				assert.Equal(t, "right", askBy(tr, method, "http://a.test/"))
			}
		})
	}
}

// What must not be sent twice is not sent over a connection that has ended, told of or not: no
// poller runs between the end and the request.
func TestServerEndsBeforeAPostOverSockets(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for range 5 {
		tr, conns := idleConns(t)
		for _, c := range conns {
			c.Close()
		}
		for range conns {
			assert.Equal(t, "right", askBy(tr, http.MethodPost, "http://a.test/"))
		}
	}
}

// idleConns returns a Transport with some idle connections to a server, and the server's ends
// of them.
func idleConns(t *testing.T) (*l7.Transport, []*net.TCPConn) {
	const n = 12
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { ln.Close() })
	var mu sync.Mutex
	var conns []*net.TCPConn
	var together sync.WaitGroup // all of the first requests have come
	together.Add(n)
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			c := nc.(*net.TCPConn)
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			go serveRight(c, &together)
		}
	}()
	tr := &l7.Transport{Pool: newPool(ln.Addr().String()), Upstream: &l7.Upstream{}}
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() { assert.Equal(t, "right", askBy(tr, http.MethodGet, "http://a.test/first")) })
	}
	wg.Wait()
	mu.Lock()
	defer mu.Unlock()
	return tr, append([]*net.TCPConn(nil), conns...)
}

func askBy(tr *l7.Transport, method, url string) string {
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		return err.Error()
	}
	res, err := tr.RoundTrip(req)
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// pollersTell returns once the pollers of l4 have told what has happened on sockets before the
// call: they tell of later things later.
func pollersTell(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	for range 2 * runtime.GOMAXPROCS(0) { // each of them gets some
		nc, err := net.Dial("tcp", ln.Addr().String())
		require.NoError(t, err)
		c := l4.NewConn(l4.Adopt(nc))
		defer c.Close()
		peer, err := ln.Accept()
		require.NoError(t, err)
		defer peer.Close()
		require.NoError(t, c.SetReadDeadline(time.Unix(1, 0)))
		_, err = c.Read(make([]byte, 1)) // joins one of them
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.NoError(t, c.SetReadDeadline(time.Time{}))
		_, err = peer.Write([]byte("x"))
		require.NoError(t, err)
		_, err = c.Read(make([]byte, 1))
		require.NoError(t, err)
	}
}

// serveRight answers requests, the first ones once they have all come.
func serveRight(c *net.TCPConn, together *sync.WaitGroup) {
	defer c.Close()
	for r := bufio.NewReader(c); ; {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		io.Copy(io.Discard, req.Body)
		if req.URL.Path == "/first" {
			together.Done()
			together.Wait()
		}
		if _, err := io.WriteString(c, rightReply); err != nil {
			return
		}
	}
}
