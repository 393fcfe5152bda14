// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// Two ports behind a load balancer that says by the PROXY protocol who the client is: HTTPS,
// whose TLS ends here, and HTTP, which is redirected to it. The client's address is that of
// the header from then on: in the record, for limits and access, and in X-Forwarded-For. A
// load balancer that speaks HTTP is trusted by TrustForwarded instead.
func ExampleServer_proxyProtocol() {
	network := l4test.NewNetwork() // in memory; net.Listen in a program

	site := l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(200, nil, fmt.Sprint("hello ", x.Client)) }) // or a Proxy
	https := &l7.Server{Handler: site, TLSConfig: &tls.Config{
		// l4.CertificateFiles follows files instead: GetCertificate: certs.Get
		Certificates: []tls.Certificate{l4test.NewAuthority("authority").Issue("a.test")},
	}}
	plain := &l7.Server{Handler: &l7.Redirect{Scheme: "https", Status: http.StatusPermanentRedirect}}

	trusted := l4.MustParsePrefixes("192.0.2.0/24") // of the load balancer; others are closed
	open := func(addr string, serve func(net.Listener) error) (closeBoth func()) {
		ln, _ := network.Listen("tcp", addr)
		local := new(l4.Listener) // from the l4.Server to the l7.Server
		port := &l4.Server{Handler: &l4.AcceptProxy{Trusted: trusted, Next: local}}
		go port.Serve(ln)
		go serve(local)
		return func() { port.Close(); local.Close() }
	}
	defer open("10.0.0.9:443", func(ln net.Listener) error { return https.ServeTLS(ln, "", "") })()
	defer open("10.0.0.9:80", plain.Serve)()

	// The load balancer, for a client at 203.0.113.9.
	header, _ := (&l4.ProxyHeader{
		Source:      &net.TCPAddr{IP: net.IPv4(203, 0, 113, 9), Port: 50000},
		Destination: &net.TCPAddr{IP: net.IPv4(198, 51, 100, 1), Port: 443},
	}).AppendBinary(nil)
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			_, port, _ := net.SplitHostPort(addr)
			c, err := network.DialContext(ctx, "tcp", "10.0.0.9:"+port)
			if err == nil {
				_, err = c.Write(header)
			}
			return c, err
		},
	}}
	resp, err := client.Get("http://a.test/")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	fmt.Println(resp.Request.URL, string(body))
	// Output: https://a.test/ hello 203.0.113.9
}
