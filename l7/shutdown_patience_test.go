// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// Shutdown returns when its context ends, whatever handlers do, as that of http.Server.
// One that returns at the end of its context is waited for, and so is its record.
func TestShutdownDoesNotWaitForAHandlerThatGoesOn(t *testing.T) {
	goOn := func() { time.Sleep(10 * time.Second) }
	for name, tc := range map[string]struct {
		handler http.Handler
		took    time.Duration
		told    bool
	}{
		"native, goes on":   {l7.HandlerFunc(func(x *l7.Exchange) { goOn() }), 750 * time.Millisecond, false},
		"net/http, goes on": {http.HandlerFunc(func(http.ResponseWriter, *http.Request) { goOn() }), 750 * time.Millisecond, false},
		"ends with its context": {http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			time.Sleep(50 * time.Millisecond)
		}), 550 * time.Millisecond, true},
	} {
		for _, h2 := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				srv := new(l7.Server)
				byteFront(t, func(*l4test.Network) http.Handler { return tc.handler }, srv, func(t *testing.T, f *front) {
					if h2 {
						f.client.Transport.(*http.Transport).Protocols = protocols("h2c")
					}
					failed := make(chan error, 1)
					go func() {
						_, err := f.client.Get("http://a.test/")
						failed <- err
					}()
					synctest.Wait()
					ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
					defer cancel()
					began := time.Now()
					require.ErrorIs(t, srv.Shutdown(ctx), context.DeadlineExceeded)
					require.Equal(t, tc.took, time.Since(began), "%s, HTTP/2 %v", name, h2)
					require.Error(t, <-failed)
					if tc.told {
						f.last(t)
					}
					time.Sleep(time.Minute)
				})
			})
		}
	}
}
