// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

type tenant string

type route struct {
	Tenant tenant
	zones  [2]string
	addr   netip.Addr
}

// Whatever strings a key is made of, none of them is a piece of what the
// caller had, and none is long.
func TestKeysAreOwnedAndBounded(t *testing.T) {
	head := strings.Repeat("h", 100) + strings.Repeat("x", 30_000)
	inHead := func(s string) bool {
		at := uintptr(unsafe.Pointer(unsafe.StringData(s)))
		from := uintptr(unsafe.Pointer(unsafe.StringData(head)))
		return at >= from && at < from+uintptr(len(head))
	}
	require.True(t, inHead(head[5:10]))
	check := func(text string) {
		t.Helper()
		require.False(t, inHead(text), "the text is the caller's")
		require.LessOrEqual(t, len(text), maxKeyBytes)
	}
	law := GCRA{Rate: PerHour(1)}
	for _, cut := range []string{head[5:10], head[5:]} {
		byText := &Keyed[string]{Law: law}
		allowed(t, byText, cut, 1)
		denied(t, byText, cut, 1)
		byName := &Keyed[tenant]{Law: law}
		allowed(t, byName, tenant(cut), 1)
		denied(t, byName, tenant(cut), 1)
		byRoute := &Keyed[route]{Law: law}
		key := route{tenant(cut), [2]string{cut, cut[1:]}, netip.MustParseAddr("::1")}
		allowed(t, byRoute, key, 1)
		denied(t, byRoute, key, 1)
		for k := range byText.All() {
			check(k)
		}
		for k := range byName.All() {
			check(string(k))
		}
		for k := range byRoute.All() {
			check(string(k.Tenant))
			check(k.zones[0])
			check(k.zones[1])
			require.Equal(t, key.addr, k.addr)
		}
		check((&Shared[tenant]{}).text(tenant(cut))[:0])
		require.LessOrEqual(t, len((&Shared[string]{Key: func(k string) string { return k }}).text(cut)), maxKeyBytes)

		d := allowed(t, byText, "b"+cut, 1)
		byText.Refund("b"+cut, d)
		allowed(t, byText, "b"+cut, 1)
		byText.Forget("b" + cut)
		allowed(t, byText, "b"+cut, 1)
	}
	require.NotEqual(t, shortKey(head), shortKey(head[:len(head)-1]+"y"), "long keys stay apart")
	require.Equal(t, shortKey(head), shortKey(strings.Clone(head)))
	require.Equal(t, head[:maxKeyBytes], shortKey(head[:maxKeyBytes]))
	runtime.KeepAlive(head)
}

// A table that is full holds what it says, however long the keys that came.
func TestKeyedHoldsNoLongKeys(t *testing.T) {
	l := &Keyed[string]{Law: GCRA{Rate: PerHour(1)}, Max: 1024}
	var before, after runtime.MemStats
	l.Take("", 1)
	runtime.GC()
	runtime.ReadMemStats(&before)
	for k := range 2000 {
		l.Take(strings.Repeat(string(rune('a'+k%26)), 16<<10)+string(rune(k)), 1)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	require.Less(t, int64(after.HeapAlloc)-int64(before.HeapAlloc), int64(1<<20))
	runtime.KeepAlive(l)
}
