// SPDX-License-Identifier: Apache-2.0

package l4_test

import (
	"crypto/tls"
	"fmt"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
)

func ExampleParseClientHello() {
	client, server := l4test.Pipe()
	defer server.Close()
	go tls.Client(client, &tls.Config{ServerName: "www.example.com", NextProtos: []string{"h2"}}).Handshake()
	b := make([]byte, 16<<10)
	n, _ := server.Read(b)
	h, err := l4.ParseClientHello(b[:n])
	fmt.Println(h.ServerName, h.ALPN, tls.VersionName(h.MaxVersion()), err)
	// Output: www.example.com [h2] TLS 1.3 <nil>
}

func ExampleClientHello_JA4() {
	client, server := l4test.Pipe()
	defer server.Close()
	go tls.Client(client, &tls.Config{ServerName: "www.example.com", NextProtos: []string{"h2"}, MaxVersion: tls.VersionTLS12}).Handshake()
	b := make([]byte, 16<<10)
	n, _ := server.Read(b)
	h, _ := l4.ParseClientHello(b[:n])
	fmt.Println(h.JA4()[:4])
	// Output: t12d
}
