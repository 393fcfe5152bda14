// SPDX-License-Identifier: Apache-2.0

// # The way of a request
//
// This is a list for a first reading of the source: each step with its file and its
// function, most of them not exported. `go doc -u -src l7 byteConn.serve` shows one.
//
// The client's side. The byte front, in one part for HTTP/1 and one for HTTP/2, or the
// standard front makes an [Exchange] of a request:
//
//	front.go            byteConn.loop            HTTP/1 on the byte front: one goroutine per connection
//	front_head.go       byteConn.next            waits for a request and reads its head
//	head.go             parseRequest             parses it, strictly, into the Exchange
//	front.go            byteConn.serve           runs the tree of handlers
//
//	front_h2.go         h2Front.run              HTTP/2: reads frames
//	front_h2_stream.go  h2Exchange.serve         runs the tree for a stream
//
//	front_standard.go   ServeHTTP                (w, r) of an http.Server
//	front_standard.go   standard.run             runs the tree
//
// The tree. Each handler answers, or goes on with the next one:
//
//	handler.go          Serve                    calls a native handler, or goes to a foreign one
//	router.go           Router.ServeExchange     chooses a route, by its index
//	exchange.go         Exchange.OnReply         registers a change of the reply to come
//	exchange.go         Exchange.Respond         answers in place of a server
//
// The server's side. A Proxy, and a Transport, forwards it:
//
//	up_proxy.go         Proxy.ServeExchange      refuses what is not forwarded
//	up_attempt.go       attempt.begin            writes the request into a buffer
//	up_attempt.go       attempt.answer           tries servers until one replies:
//	up_attempt.go       attempt.open             takes a lease on one from the pool,
//	up_dial.go          upHost.get               a connection or stream that is open already, or a new one,
//	up_h1.go            upConn.roundTrip         sends the request by HTTP/1 and reads the head of the reply,
//	up_h2_stream.go     h2Stream.roundTrip       or by HTTP/2;
//	up_pump.go          pump.run                 sends a body that is not there yet, meanwhile
//	up_failure.go       sourceEnd.blame          says what an error means, here and below
//	up_retry.go         attempt.again            decides whether there is another try
//
// The way back:
//
//	up_relay.go         attempt.deliver          takes over the reply,
//	exchange.go         Exchange.writeHead       has it edited and its head sent,
//	up_relay.go         attempt.relayBody        and relays its body as it arrives
//	up_host.go          upHost.put               keeps the connection to the server
//	front.go            byteConn.finishExchange  sends what is left, and completes the record:
//	exchange.go         Exchange.end             calls OnDone
//	front_park.go       byteConn.settle          parks an idle connection, without goroutine and buffer
//
// The interfaces between the two sides are in seams.go (the client's side) and up_try.go
// (the server's). The states of a connection of the byte front are in
// front_state.go.
package l7
