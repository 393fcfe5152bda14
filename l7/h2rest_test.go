// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bytes"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7/internal/h2"
)

// An idle connection of HTTP/2 holds no memory of what it has served: neither of a
// large head in many frames, nor of many streams at once.
func TestHTTP2RestsWithLittleMemory(t *testing.T) {
	var all bytes.Buffer
	all.WriteString(http2.ClientPreface)
	f := http2.NewFramer(&all, nil)
	require.NoError(t, f.WriteSettings())
	large := bytes.Repeat([]byte{0x90}, 60_000)
	require.NoError(t, f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndStream: true}))
	for len(large) > 0 {
		n := min(len(large), h2.MinMaxFrame)
		require.NoError(t, f.WriteContinuation(1, n == len(large), large[:n]))
		large = large[n:]
	}
	for i := range uint32(100) {
		require.NoError(t, f.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 3, BlockFragment: []byte{0x82}, EndStream: true, EndHeaders: true}))
	}

	var b buffers
	b.setSizes()
	serve := func() *h2Link {
		k := &h2Link{h2: h2.New(&h2.Config{MaxStreams: 101, MaxFrame: h2.MinMaxFrame, MaxBlock: 64 << 10, StreamWindow: h2StreamWindow, MaxWindow: h2MaxWindow, ConnWindow: h2ConnWindow(101)})}
		in := input{buf: &l4.Buffer{B: bytes.Clone(all.Bytes())}}
		var open []*h2.Stream
		require.NoError(t, k.receive(&in, &b, time.Now(), func(ev *h2.Event, _ time.Time) error {
			if ev.Kind != h2.Head {
				return nil
			}
			open = append(open, ev.Stream)
			return k.h2.Decode(ev.Block, nil)
		}))
		require.Len(t, open, 101)
		for _, s := range open {
			k.h2.Reset(s, h2.NoError)
			k.h2.Free(s)
		}
		k.h2.Take(nil)
		k.rest()
		return k
	}
	heap := func() uint64 {
		runtime.GC()
		runtime.GC() // of what pools held
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	links := make([]*h2Link, 64)
	before := heap()
	for i := range links {
		links[i] = serve()
	}
	held := int(heap()-before) / len(links)
	runtime.KeepAlive(links)
	require.Less(t, held, 8<<10, "bytes of a connection")
}
