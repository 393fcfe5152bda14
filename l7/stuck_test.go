// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/penstock-lb/penstock/l7"
)

// A server that takes no more of a request body ends it by BodyTimeout, and not by the
// wait for a head, which has no limit here.
func TestServerTakesNoMore(t *testing.T) {
	everyWay(t, func(p *l7.Proxy) { p.HeaderTimeout = -1 }, func(t *testing.T, f *front, h2server bool) {
		startOrigin(t, f.network, one, nil, h2server, func(w http.ResponseWriter, r *http.Request) { time.Sleep(20 * time.Minute) })
		start := time.Now()
		res, err := f.client.Post("http://a.test/", "text/plain", io.MultiReader(strings.NewReader(strings.Repeat("x", 8<<20))))
		if err == nil {
			if res.Body.Close(); res.StatusCode != http.StatusGatewayTimeout {
				t.Errorf("got %d", res.StatusCode)
			}
		}
		r := f.last(t)
		var late *l7.TimeoutError
		if d := time.Since(start); !errors.As(r.Err, &late) || late.Field != "Proxy.BodyTimeout" || d < time.Minute || d > 3*time.Minute {
			t.Errorf("ended with %v, %v, %v after %v", r.Termination, r.Err, err, d)
		}
		time.Sleep(20 * time.Minute)
	})
}
