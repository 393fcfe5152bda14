// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4/l4test"
)

// output is a buffer for several goroutines.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func TestClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := l4test.NewNetwork()
		served := map[string]*atomic.Int64{"10.0.0.1:80": {}, "10.0.0.2:80": {}}
		for addr, count := range served {
			ln, err := n.Listen("tcp", addr)
			require.NoError(t, err)
			s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				count.Add(1)
				time.Sleep(10 * time.Millisecond)
			})}
			go s.Serve(ln)
			t.Cleanup(func() { s.Close() })
		}
		// The third server is not there: its connections are tried elsewhere.
		c := &Client{Servers: []string{"10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"}, Dial: n.DialContext}
		var out output
		require.NoError(t, c.Run(t.Context(), &out, "http://service/", 40))
		require.NotContains(t, out.buf.String(), "service/", "no request failed")
		total := int64(0)
		for addr, count := range served {
			require.Positive(t, count.Load(), addr)
			total += count.Load()
		}
		require.EqualValues(t, 40, total)
	})
}
