// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// WebSocket needs no setting either: a Proxy forwards the upgrade, and then bytes in both
// directions. StreamTimeout is how long both sides may be silent; Timeout bounds the
// handshake and not what follows. Upgrades allows other protocols, or none.
func ExampleProxy_webSocket() {
	network := l4test.NewNetwork() // in memory; net.Listen in a program

	// The server takes the upgrade and echoes one message. Programs use a package for this.
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprint(buf, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n",
			"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n") // belongs to the client's key, RFC 6455, section 1.3
		buf.Flush()
		message := make([]byte, 11) // two bytes of head, the mask, five letters
		if _, err := io.ReadFull(buf, message); err == nil {
			buf.Write(append([]byte{0x81, 5}, message[6:]...))
			buf.Flush()
		}
	})
	serverListener, _ := network.Listen("tcp", "10.0.0.1:80")
	server := &http.Server{Handler: echo}
	go server.Serve(serverListener)
	defer server.Close()

	pool := &balance.Pool{}
	if err := pool.Set(balance.Endpoint{Addr: "10.0.0.1:80"}); err != nil {
		panic(err)
	}
	gateway := &l7.Server{Handler: &l7.Proxy{
		Pool:          pool,
		Upstream:      &l7.Upstream{Dial: network.DialContext},
		Timeout:       10 * time.Second,
		StreamTimeout: 5 * time.Minute,
	}}
	gatewayListener, _ := network.Listen("tcp", "10.0.0.9:80")
	go gateway.Serve(gatewayListener)
	defer gateway.Close()

	client := &http.Client{Transport: &http.Transport{DialContext: network.DialContext}}
	req, _ := http.NewRequest(http.MethodGet, "http://10.0.0.9/chat", nil)
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "websocket")
	req.Header.Set("Sec-WebSocket-Version", "13")
	req.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
	resp, err := client.Do(req)
	if err != nil {
		panic(err)
	}
	fmt.Println(resp.Status)
	socket := resp.Body.(io.ReadWriteCloser)
	defer socket.Close()
	socket.Write([]byte{0x81, 0x85, 0, 0, 0, 0, 'h', 'e', 'l', 'l', 'o'}) // a text, masked by zeros
	message := make([]byte, 7)
	if _, err := io.ReadFull(socket, message); err != nil {
		panic(err)
	}
	fmt.Printf("%s\n", message[2:])
	// Output:
	// 101 Switching Protocols
	// hello
}
