// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bytes"
	"io"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
)

// Of 400 requests that come at once, a connection begins a few before it is the
// turn of other goroutines: else all other connections would wait until it has begun all.
func TestHTTP2BeginsStreamsInTurns(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var all bytes.Buffer
	all.WriteString(http2.ClientPreface)
	f := http2.NewFramer(&all, nil)
	require.NoError(t, f.WriteSettings())
	for i := range uint32(400) {
		require.NoError(t, f.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: []byte{0x82, 0x84, 0x86, 0x01, 1, 'a'}, EndStream: true, EndHeaders: true}))
	}
	synctest.Test(t, func(t *testing.T) {
		begun := make(chan int64, 400) // streams that were open when each began to be served
		s := &Server{MaxStreams: 400}
		s.Handler = HandlerFunc(func(x *Exchange) {
			begun <- s.serving.Load()
			x.Respond(200, nil, "")
		})
		defer sendAtOnce(t, s, all.Bytes())()
		require.Len(t, begun, 400)
		require.LessOrEqual(t, <-begun, int64(4*h2Begins)) // the scheduler may let it on first, now and then
	})
}

// A request that is reset in the same breath is not served, but recorded: a flood of
// resets causes a server no other work (CVE-2023-44487).
func TestHTTP2ResetStreamsAreNotServed(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var all bytes.Buffer
	all.WriteString(http2.ClientPreface)
	f := http2.NewFramer(&all, nil)
	require.NoError(t, f.WriteSettings())
	for i := range uint32(100) {
		require.NoError(t, f.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: []byte{0x82, 0x84, 0x86, 0x01, 1, 'a'}, EndStream: true, EndHeaders: true}))
		require.NoError(t, f.WriteRSTStream(2*i+1, http2.ErrCodeCancel))
	}
	synctest.Test(t, func(t *testing.T) {
		served := make(chan int, 100)
		done := make(chan l4.Cause, 100)
		s := &Server{
			Handler: HandlerFunc(func(x *Exchange) {
				served <- 1
				x.Respond(200, nil, "")
			}),
			OnDone: func(r *Record) { done <- r.Termination.Cause },
		}
		defer sendAtOnce(t, s, all.Bytes())()
		require.Less(t, len(served), 10) // none, but the scheduler may interrupt the reader now and then
		require.Len(t, done, 100)
		for range 100 - len(served) {
			require.Equal(t, l4.ClientAborted, <-done)
		}
	})
}

// sendAtOnce sends all that a client has to say in one piece, and lets s answer it. The
// func that it returns ends both.
func sendAtOnce(t *testing.T, s *Server, all []byte) func() {
	n := l4test.NewNetwork()
	ln, err := n.Listen("tcp", "10.0.0.9:80")
	require.NoError(t, err)
	go func() { _ = s.Serve(ln) }()
	c, err := n.DialContext(t.Context(), "tcp", "10.0.0.9:80")
	require.NoError(t, err)
	go func() { _, _ = io.Copy(io.Discard, c) }()
	_, err = c.Write(all)
	require.NoError(t, err)
	time.Sleep(time.Second)
	return func() {
		require.NoError(t, c.Close())
		require.NoError(t, s.Close())
	}
}
