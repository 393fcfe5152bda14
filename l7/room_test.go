// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4"
)

// A request is held until its reply comes, so it is held in little memory, and grows no
// buffer.
func TestRequestsAreHeldInLittleMemory(t *testing.T) {
	up := new(Upstream)
	up.setSizes()
	for name, c := range map[string]struct {
		length int64
		field  string
		want   int
	}{
		"no body":             {0, "a", shortBuffer},
		"a long head":         {0, strings.Repeat("a", shortBuffer), headBuffer},
		"a longer head":       {0, strings.Repeat("a", headBuffer), bulkBuffer},
		"a body that may fit": {100, "a", headBuffer},
		"a long body":         {headBuffer + 1, "a", shortBuffer},
		"an unknown length":   {-1, "a", shortBuffer},
	} {
		x := &Exchange{Method: "GET", Host: "a.test", Path: "/", ContentLength: c.length, Header: MakeFields("X-A", c.field)}
		x.down = &noClient{}
		at := &attempt{x: x, p: &Proxy{}, up: up}
		require.Equal(t, c.want, cap(at.room().B), name)
		require.LessOrEqual(t, len(appendRequest(nil, x, at.p)), c.want, name)
	}
}

// A body that comes fast is read into long buffers, and one that comes slowly holds little.
func TestBodiesAreReadIntoFittingBuffers(t *testing.T) {
	b := new(buffers)
	b.setSizes()
	const full = headBuffer - chunkRoomBefore - chunkRoomAfter
	buf := b.pool.Get()
	for i, c := range []struct{ n, want int }{
		{100, headBuffer}, {full - 1, headBuffer}, {full, bulkBuffer}, {full, bulkBuffer}, {bulkBuffer - 100, bulkBuffer},
		{headBuffer/4 - 1, headBuffer}, {full, bulkBuffer}, {headBuffer / 4, bulkBuffer},
	} {
		buf = b.fitting(buf, c.n)
		require.Equal(t, c.want, cap(buf.B), i)
	}
}

// A buffer that has been given back may have another owner, so it is not looked at again.
// The race detector sees that.
func TestBufferIsLeftAloneOnceGivenBack(t *testing.T) {
	b := new(buffers)
	b.setSizes()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 1000 {
				for _, pool := range []*l4.BufferPool{&b.short, &b.pool, &b.bulk} {
					buf := pool.Get()
					buf.B = buf.B[:1]
					b.giveBack(buf)
				}
			}
		})
	}
	wg.Wait()
}
