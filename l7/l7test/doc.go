// SPDX-License-Identifier: Apache-2.0

// Package l7test has an [Origin], an HTTP server that misbehaves on demand:
// it replies late or early, stalls, resets, frames badly, sends interim
// replies, trailers, bytes after the end, or GOAWAY. It serves tests of
// gateways, over any listener; over the in-memory network of package l4test a
// test runs in a bubble of testing/synctest. This one waits a minute for a slow
// server, and takes milliseconds:
//
//	func TestSlowServer(t *testing.T) {
//		synctest.Test(t, func(t *testing.T) {
//			n := l4test.NewNetwork()
//			origin := &l7test.Origin{Scripts: []l7test.Script{
//				{l7test.Reset()}, // the first request
//				{l7test.Wait(time.Minute), l7test.Reply(200, "late")}, // the second and all later ones
//			}}
//			ln, _ := n.Listen("tcp", "10.0.0.1:80")
//			go origin.Serve(ln)
//			defer origin.Close()
//
//			pool := &balance.Pool{}
//			_ = pool.Set(balance.Endpoint{Addr: "10.0.0.1:80"})
//			gateway := &l7.Server{Handler: &l7.Proxy{
//				Pool:     pool,
//				Upstream: &l7.Upstream{Dial: n.DialContext},
//				Retry:    l7.Retry{Tries: 2},
//			}}
//			front, _ := n.Listen("tcp", "10.0.0.9:80")
//			go gateway.Serve(front)
//			defer gateway.Close()
//
//			transport := &http.Transport{DialContext: n.DialContext}
//			defer transport.CloseIdleConnections()
//			start := time.Now()
//			resp, err := (&http.Client{Transport: transport}).Get("http://10.0.0.9/")
//			if err != nil {
//				t.Fatal(err)
//			}
//			body, _ := io.ReadAll(resp.Body)
//			resp.Body.Close()
//			if string(body) != "late" || time.Since(start) < time.Minute {
//				t.Errorf("%q after %v", body, time.Since(start))
//			}
//		})
//	}
//
// An Origin reads requests with a strict parser of its own, so what it records
// ([Origin.Requests], [Origin.Faults]) is evidence of what the gateway sent.
package l7test
