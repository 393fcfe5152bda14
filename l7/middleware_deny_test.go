// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestTarpitDelays: 0 means 10s, negative means none.
func TestTarpitDelays(t *testing.T) {
	for delay, want := range map[time.Duration]time.Duration{0: 10 * time.Second, time.Minute: time.Minute, -1: 0} {
		synctest.Test(t, func(t *testing.T) {
			start, w := time.Now(), httptest.NewRecorder()
			(&Tarpit{Delay: delay}).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
			require.Equal(t, want, time.Since(start))
			require.Equal(t, 500, w.Code)
		})
	}
}
