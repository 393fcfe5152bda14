// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4"
)

// A coarse deadline is never nearer than what was asked for, and is left alone
// while it is near enough.
func TestCoarse(t *testing.T) {
	const most = time.Duration(math.MaxInt64)
	start := time.Now()
	for _, d := range []time.Duration{1, time.Second, time.Hour, most / 2, most - 1, most} {
		var c deadline
		moved := 0
		for i := range 100 {
			now := start.Add(time.Duration(i) * min(d, time.Hour) / 10)
			at, ok := c.due(now, d)
			if ok {
				moved++
			}
			left := at.Sub(now)
			require.GreaterOrEqual(t, left, min(d, longest), "%v, step %d", d, i)
			require.LessOrEqual(t, left-min(d, longest), min(d, longest)/2, "%v, step %d", d, i)
		}
		require.Less(t, moved, 60, "%v", d)
		at, ok := c.due(start, 0)
		require.True(t, ok && at.IsZero())
		_, ok = c.due(start, 0)
		require.False(t, ok)
	}
}

func TestRetryWaitOfLongestDurations(t *testing.T) {
	const most = time.Duration(math.MaxInt64)
	for _, r := range []Retry{{Backoff: most}, {MaxBackoff: most}, {Backoff: most, MaxBackoff: most}, {Backoff: most / 2, MaxBackoff: most}} {
		for n := range 80 {
			require.Positive(t, r.wait(n+2, 0.9999), "%+v, try %d", r, n+2)
		}
	}
}

// A deadline of somebody else's is not undone by one that is set meanwhile, and
// ours comes back behind it.
func TestBoundLeavesOthersDeadlines(t *testing.T) {
	var c deadline
	var set []time.Time
	now := time.Now()
	before, after := false, false // ours is set
	bound := func() bool {
		return c.bound(now, time.Second, func(at time.Time) error {
			set = append(set, at)
			return nil
		}, func() (time.Time, bool) {
			return past, before || after && len(set) > 0
		})
	}
	before = true
	require.False(t, bound())
	require.Empty(t, set)

	before, after = false, true
	require.False(t, bound(), "it was set between")
	require.Equal(t, []time.Time{c.at, past}, set)

	after, set = false, nil
	c.forget()
	require.True(t, bound())
	require.True(t, bound(), "far enough")
	require.Equal(t, []time.Time{c.at}, set)
	require.True(t, c.boundAt(now.Add(1), func(at time.Time) error {
		require.Equal(t, now.Add(1), at)
		return nil
	}, nil))
	require.True(t, bound(), "too near")
	require.Len(t, set, 2)
}

// meanwhileConn has somebody set a deadline while the first one is being set.
type meanwhileConn struct {
	net.Conn
	read, write time.Time
	meanwhile   func()
}

func (c *meanwhileConn) first() {
	if f := c.meanwhile; f != nil {
		c.meanwhile = nil
		f()
	}
}

func (c *meanwhileConn) SetReadDeadline(t time.Time) error {
	c.first()
	c.read = t
	return nil
}

func (c *meanwhileConn) SetWriteDeadline(t time.Time) error {
	c.first()
	c.write = t
	return nil
}

func (c *meanwhileConn) SetDeadline(t time.Time) error { c.read, c.write = t, t; return nil }

func (c *meanwhileConn) Read([]byte) (int, error) { return 0, io.EOF }

// Whoever bounds a read or write of a connection leaves alone what is set meanwhile.
func TestDeadlinesSetMeanwhileStand(t *testing.T) {
	hosts := time.Now().Add(time.Hour)
	c := &meanwhileConn{}
	c.Conn, _ = net.Pipe()
	for name, f := range map[string]func() (want, got time.Time){
		"the host's for a body": func() (want, got time.Time) {
			b := idleByteConn(t, c)
			c.meanwhile = func() { _ = b.setReadDeadline(hosts) }
			require.NoError(t, b.awaitBody())
			return hosts, c.read
		},
		"a body that is not wanted": func() (want, got time.Time) {
			b := idleByteConn(t, c)
			c.meanwhile = b.stopBody
			require.ErrorIs(t, b.awaitBody(), errStopped)
			return past, c.read
		},
		"the host's for a reply": func() (want, got time.Time) {
			b := idleByteConn(t, c)
			c.meanwhile = func() { _ = b.setWriteDeadline(hosts) }
			b.boundSend(time.Now(), time.Minute)
			return hosts, c.write
		},
		"the host's for a body under an http.Server": func() (want, got time.Time) {
			s := &standard{srv: new(Server), w: deadlineWriter{httptest.NewRecorder(), c}, r: httptest.NewRequest("POST", "/", http.NoBody), x: new(Exchange)}
			s.x.down = s
			c.meanwhile = func() {
				s.body.own.set(hosts)
				_ = c.SetReadDeadline(hosts)
			}
			_, err := s.readBody(make([]byte, 1))
			require.ErrorIs(t, err, io.EOF)
			require.Zero(t, s.body.due.Load(), "it is not ours")
			return hosts, c.read
		},
		"an interrupt of a reply": func() (want, got time.Time) {
			u, _ := looseUpConn(t)
			u.c = l4.NewConn(c)
			c.meanwhile = u.interrupt
			u.wait(time.Now(), time.Minute)
			return past, c.read
		},
		"an interrupt of a request": func() (want, got time.Time) {
			u, _ := looseUpConn(t)
			u.c = l4.NewConn(c)
			c.meanwhile = u.interrupt
			u.boundSend(time.Now(), time.Minute)
			return past, c.write
		},
		"an interrupt of a wait for a 100": func() (want, got time.Time) {
			u, _ := looseUpConn(t)
			u.c = l4.NewConn(c)
			c.meanwhile = u.interrupt
			x := &Exchange{expect: true}
			x.down = &noClient{ctx: t.Context(), x: x}
			require.ErrorIs(t, u.awaitHead(&attempt{x: x, p: new(Proxy), up: new(Upstream)}, new(try), time.Now()), io.EOF)
			return past, c.read
		},
		"the host's for a connection that was handed over": func() (want, got time.Time) {
			h := &handedConn{Conn: c}
			h.bound.set(time.Minute)
			c.meanwhile = func() { _ = h.SetWriteDeadline(hosts) }
			require.False(t, h.bound.renew(c, time.Now(), time.Minute))
			return hosts, c.write
		},
	} {
		c.read, c.write = time.Time{}, time.Time{}
		want, got := f()
		require.Nil(t, c.meanwhile, name)
		require.True(t, want.Equal(got), "%s: %v", name, got)
	}
}

// deadlineWriter sets the deadlines of a connection.
type deadlineWriter struct {
	http.ResponseWriter
	c net.Conn
}

func (w deadlineWriter) SetReadDeadline(t time.Time) error { return w.c.SetReadDeadline(t) }
