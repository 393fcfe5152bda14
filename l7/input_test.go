// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7/internal/h2"
)

// piecesConn gives pieces, and the last one together with an error.
type piecesConn struct {
	net.Conn
	pieces []string
	err    error
}

func (c *piecesConn) Read(p []byte) (int, error) {
	if len(c.pieces) == 0 {
		return 0, c.err
	}
	n := copy(p, c.pieces[0])
	if c.pieces[0] = c.pieces[0][n:]; c.pieces[0] == "" {
		c.pieces = c.pieces[1:]
	}
	if len(c.pieces) == 0 {
		return n, c.err
	}
	return n, nil
}

// Whatever is used or not between two reads, no byte is lost, moved or read twice,
// and an error that comes with bytes is returned behind them.
func TestInputKeepsBytes(t *testing.T) {
	want := strings.Repeat("0123456789abcdef", 16<<10) // of which a buffer holds a part
	gone := errors.New("gone")
	for _, use := range []int{0, 999, 8 << 10, 1 << 20} {
		for name, fill := range map[string]func(*input, *l4.Conn, *buffers) error{"fill": (*input).fill, "fillBulk": (*input).fillBulk} {
			var b buffers
			b.setSizes()
			c := l4.NewConn(&piecesConn{pieces: []string{want[:3], want[3:5000], want[5000:]}, err: gone})
			var in input
			var got strings.Builder
			for {
				err := fill(&in, c, &b)
				if err != nil {
					require.Equal(t, gone, err)
					require.True(t, use < 1<<20 || in.empty(), "the error came before bytes")
					break
				}
				n := min(use, len(in.bytes()))
				got.Write(in.bytes()[:n])
				in.use(n)
				in.consumed(&b)
			}
			got.Write(in.bytes())
			require.True(t, got.String() == want, "%s, %d used at a time: %d bytes of %d", name, use, got.Len(), len(want))
			in.release(&b)
			require.Zero(t, in)
			require.Equal(t, headBuffer, cap(b.pool.Get().B))
			require.Equal(t, bulkBuffer, cap(b.bulk.Get().B))
		}
	}
}

// Without bytes no buffer is held.
func TestInputHoldsNothing(t *testing.T) {
	var b buffers
	b.setSizes()
	var in input
	require.True(t, in.empty())
	require.Empty(t, in.bytes())
	require.Equal(t, io.EOF, in.fill(l4.NewConn(&piecesConn{err: io.EOF}), &b))
	require.Zero(t, in)
	require.NoError(t, in.fill(l4.NewConn(&piecesConn{pieces: []string{"ab", "c"}}), &b))
	in.use(1)
	in.consumed(&b)
	require.Equal(t, "b", string(in.bytes()))
	c := l4.NewConn(&piecesConn{pieces: []string{"c", "d"}, err: io.EOF})
	require.NoError(t, in.fill(c, &b))
	require.Equal(t, headBuffer, cap(in.buf.B), "there was room")
	require.NoError(t, in.fillBulk(c, &b), "bytes come before the error")
	require.Equal(t, bulkBuffer, cap(in.buf.B))
	require.Equal(t, "bcd", string(in.bytes()))
	in.use(3)
	require.True(t, in.empty())
	in.consumed(&b)
	require.Zero(t, in)
}

// A connection of HTTP/2 that has no part of a frame holds no buffer.
func TestFramesLeaveNoBuffer(t *testing.T) {
	var b buffers
	b.setSizes()
	k := &h2Link{h2: h2.New(h2ClientConfig(defaultUpStreams))}
	const settings = "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	var in input
	require.NoError(t, in.fill(l4.NewConn(&piecesConn{pieces: []string{settings + settings[:5]}}), &b))
	events := 0
	handle := func(*h2.Event, time.Time) error { events++; return nil }
	require.NoError(t, k.receive(&in, &b, time.Now(), handle))
	require.Len(t, in.bytes(), 5)
	require.NoError(t, in.fill(l4.NewConn(&piecesConn{pieces: []string{settings[5:]}}), &b))
	require.NoError(t, k.receive(&in, &b, time.Now(), handle))
	require.Zero(t, in)
	require.Equal(t, 2, events)
	require.True(t, k.mu.TryLock())
}

// A peer that has answers written without end, and reads none, is refused.
func TestAnswersThatAreNotReadEnd(t *testing.T) {
	var b buffers
	b.setSizes()
	k := &h2Link{h2: h2.New(h2ClientConfig(defaultUpStreams))}
	const settings, ping = "\x00\x00\x00\x04\x00\x00\x00\x00\x00", "\x00\x00\x08\x06\x00\x00\x00\x00\x00" + "12345678"
	in := input{buf: &l4.Buffer{B: []byte(settings)}}
	now := time.Now()
	var err error
	for i := 0; err == nil && i < 2*h2OutLimit/len(ping)/100; i++ {
		now = now.Add(time.Minute) // as slow as PING may come
		err = k.receive(&in, &b, now, func(*h2.Event, time.Time) error { return nil })
		in.set(&l4.Buffer{B: []byte(strings.Repeat(ping, 100))})
	}
	ce, ok := errors.AsType[*h2.ConnError](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, h2.EnhanceYourCalm, ce.Code)
	require.Greater(t, len(k.h2.Out), h2OutLimit)
	require.Less(t, len(k.h2.Out), h2OutLimit+1000)
}
