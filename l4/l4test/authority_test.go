// SPDX-License-Identifier: Apache-2.0

package l4test_test

import (
	"crypto/tls"
	"fmt"

	"github.com/penstock-lb/penstock/l4/l4test"
)

func ExampleAuthority() {
	ca := l4test.NewAuthority("authority")
	client, server := l4test.Pipe()
	go tls.Server(server, &tls.Config{
		Certificates: []tls.Certificate{ca.Issue("a.test")},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(),
	}).Handshake()
	c := tls.Client(client, &tls.Config{
		ServerName: "a.test", RootCAs: ca.Pool(), Certificates: []tls.Certificate{ca.Sub("department").Issue("ann")},
	})
	fmt.Println(c.Handshake(), c.ConnectionState().PeerCertificates[0].Subject)
	// Output: <nil> CN=a.test
}
