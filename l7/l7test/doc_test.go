// SPDX-License-Identifier: Apache-2.0

package l7test_test

import (
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/l7test"
)

func TestSlowServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := l4test.NewNetwork()
		origin := &l7test.Origin{Scripts: []l7test.Script{
			{l7test.Reset()}, // the first request
			{l7test.Wait(time.Minute), l7test.Reply(200, "late")}, // the second and all later ones
		}}
		ln, _ := n.Listen("tcp", "10.0.0.1:80")
		go origin.Serve(ln)
		defer origin.Close()

		pool := &balance.Pool{}
		_ = pool.Set(balance.Endpoint{Addr: "10.0.0.1:80"})
		gateway := &l7.Server{Handler: &l7.Proxy{
			Pool:     pool,
			Upstream: &l7.Upstream{Dial: n.DialContext},
			Retry:    l7.Retry{Tries: 2},
		}}
		front, _ := n.Listen("tcp", "10.0.0.9:80")
		go gateway.Serve(front)
		defer gateway.Close()

		transport := &http.Transport{DialContext: n.DialContext}
		defer transport.CloseIdleConnections()
		start := time.Now()
		resp, err := (&http.Client{Transport: transport}).Get("http://10.0.0.9/")
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(body) != "late" || time.Since(start) < time.Minute {
			t.Errorf("%q after %v", body, time.Since(start))
		}
	})
}

// The package comment shows TestSlowServer as it is here.
func TestPackageCommentIsATest(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	src, err := os.ReadFile("doc_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(src), "func TestSlowServer")
	body, _, _ = strings.Cut("func TestSlowServer"+body, "\n}\n")
	shown := "//\t" + strings.ReplaceAll(body, "\n", "\n//\t") + "\n//\t}\n"
	shown = strings.ReplaceAll(shown, "//\t\n", "//\n")
	if !strings.Contains(string(doc), shown) {
		t.Errorf("doc.go does not show:\n%s", shown)
	}
}
