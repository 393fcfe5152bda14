// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"io"
	"net/http"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
)

// Close interrupts a Read in progress. The Read may have ended the body meanwhile, and
// the connection is free then, or another request's.
func TestCloseBehindTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := l4test.NewNetwork()
		ln, err := n.Listen("tcp", "10.0.0.1:80")
		require.NoError(t, err)
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "ok") })}
		go func() { _ = srv.Serve(ln) }()
		defer srv.Close()
		p := new(balance.Pool)
		require.NoError(t, p.Set(balance.Endpoint{Addr: "10.0.0.1:80"}))
		tr := &Transport{Pool: p, Upstream: &Upstream{Dial: n.DialContext}}
		defer tr.CloseIdleConnections()
		req, err := http.NewRequest("GET", "http://a.test/", nil)
		require.NoError(t, err)
		resp, err := tr.RoundTrip(req)
		require.NoError(t, err)
		b := resp.Body.(*replyBody)
		src := b.c.attempt.try.src

		b.turn <- struct{}{} // a Read is in progress, and comes to the end
		for err == nil {
			_, err = src.next()
		}
		require.Equal(t, io.EOF, err)
		b.end(nil)
		closed := make(chan error)
		go func() { closed <- b.Close() }()
		synctest.Wait()
		if src.end().interrupted.Load() {
			t.Error("the connection is idle, and interrupted")
		}
		<-b.turn // the Read returns
		require.NoError(t, <-closed)
	})
}
