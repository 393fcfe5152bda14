// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7/internal/h2"
)

// A context that ends calls its func on a goroutine of its own, which may come when the
// request is over. Then the stream may be that of another request, which was reset, and
// whose handler waited until its client left.
func TestInterruptAfterTheEnd(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	go func() { _, _ = io.Copy(io.Discard, b) }()
	u := new(Upstream)
	u.init()
	p := new(balance.Pool)
	require.NoError(t, p.Set(balance.Endpoint{Addr: "10.0.1.1:80"}))
	h := u.host(p.Server("10.0.1.1:80"))
	src, err := h.speak(a, dialingOf(t, h), identity{}, nil, false)
	require.NoError(t, err)
	gone := src.(*h2Stream)
	c := gone.conn
	begin := func(s *h2Stream) {
		c.mu.Lock()
		defer c.mu.Unlock()
		require.NoError(t, c.begin(s))
	}
	begin(gone)
	next := newH2Stream(c, true)
	c.mu.Lock()
	c.reserved++
	c.mu.Unlock()
	gone.close()
	begin(next)
	require.Same(t, gone.st, next.st, "this is about memory that is used again")
	gone.interrupt()
	c.mu.Lock()
	state := next.st.State()
	c.mu.Unlock()
	require.Equal(t, h2.Open, state)
	next.interrupt()
	c.mu.Lock()
	state = next.st.State()
	c.mu.Unlock()
	require.Equal(t, h2.Closed, state)
	next.close()
	u.CloseIdle()
}
