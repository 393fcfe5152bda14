// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bufio"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// Server-sent events need no setting: each event is sent on before the next one is waited
// for. A stream may be quiet for an hour; StreamTimeout changes that for one route, and
// leaves the timeouts of ordinary requests alone.
func ExampleProxy_serverSentEvents() {
	network := l4test.NewNetwork() // in memory; net.Listen in a program
	got := make(chan struct{})
	events := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			fmt.Fprintf(w, "data: event %d\n\n", i)
			w.(http.Flusher).Flush()
			<-got // the next one comes once the client has this one
		}
	})
	serverListener, _ := network.Listen("tcp", "10.0.0.1:80")
	server := &http.Server{Handler: events}
	go server.Serve(serverListener)
	defer server.Close()

	pool := &balance.Pool{}
	if err := pool.Set(balance.Endpoint{Addr: "10.0.0.1:80"}); err != nil {
		panic(err)
	}
	upstream := &l7.Upstream{Dial: network.DialContext}
	gateway := &l7.Server{Handler: l7.NewRouter(
		l7.Route{Match: l7.Path("/events"), Handler: &l7.Proxy{Pool: pool, Upstream: upstream, StreamTimeout: 6 * time.Hour}},
		l7.Route{Handler: &l7.Proxy{Pool: pool, Upstream: upstream, Timeout: 10 * time.Second}},
	)}
	gatewayListener, _ := network.Listen("tcp", "10.0.0.9:80")
	go gateway.Serve(gatewayListener)
	defer gateway.Close()

	client := &http.Client{Transport: &http.Transport{DialContext: network.DialContext}}
	resp, err := client.Get("http://10.0.0.9/events")
	if err != nil {
		panic(err)
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			fmt.Println(data)
			got <- struct{}{}
		}
	}
	// Output:
	// event 0
	// event 1
	// event 2
}
