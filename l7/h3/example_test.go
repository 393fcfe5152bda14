// SPDX-License-Identifier: Apache-2.0

package h3_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"

	"github.com/quic-go/quic-go/http3"

	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/h3"
)

// One Server, over TCP and over QUIC, and one Shutdown.
func ExampleFront() {
	cert := httptest.NewUnstartedServer(nil)
	cert.StartTLS() // for its certificate
	defer cert.Close()

	gateway := &l7.Server{
		Handler:   &l7.FixedReply{Body: "hello\n"},
		TLSConfig: &tls.Config{Certificates: cert.TLS.Certificates},
	}
	front := &h3.Front{Server: gateway, AltSvc: `h3=":443"; ma=86400`}

	udp, _ := net.ListenPacket("udp", "127.0.0.1:0") // or front.ListenAndServeTLS
	tcp, _ := net.Listen("tcp", "127.0.0.1:0")
	go func() { _ = front.ServeTLS(udp, "", "") }()
	go func() { _ = gateway.ServeTLS(tcp, "", "") }()

	trust := cert.Client().Transport.(*http.Transport).TLSClientConfig
	quic := &http3.Transport{TLSClientConfig: &tls.Config{RootCAs: trust.RootCAs}}
	res, err := (&http.Client{Transport: quic}).Get("https://" + udp.LocalAddr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(res.Proto, res.Status)
	res, err = cert.Client().Get("https://" + tcp.Addr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(res.Proto, res.Header.Get("Alt-Svc"))

	_ = quic.Close()
	fmt.Println(gateway.Shutdown(context.Background()))
	// Output:
	// HTTP/3.0 200 OK
	// HTTP/1.1 h3=":443"; ma=86400
	// <nil>
}
