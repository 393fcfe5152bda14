// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// TestLayout keeps what every lease touches on one line of 64 bytes.
func TestLayout(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) != 8 {
		t.Skip("32 bits")
	}
	p := &Pool{}
	require.NoError(t, p.Set(Endpoint{Addr: "a:1"}, Endpoint{Addr: "b:1"}))
	for s := range p.All() {
		begin := uintptr(unsafe.Pointer(s))
		end := begin + unsafe.Offsetof(s.outcomes) + unsafe.Sizeof(s.outcomes[OK])
		require.Equal(t, begin/64, (end-1)/64)
	}
}
