// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

func ExampleForwardClientCert() {
	ca := l4test.NewAuthority("authority")
	ann := ca.Issue("ann")
	h := &l7.ForwardClientCert{XFCC: l7.XFCCSet, Subject: true, DNS: true, Next: l7.HandlerFunc(func(x *l7.Exchange) {
		_, rest, _ := strings.Cut(x.Header.Get("X-Forwarded-Client-Cert"), ";")
		fmt.Println(rest)
	})}
	r := httptest.NewRequest("GET", "https://a.test/", nil)
	r.Header.Set("X-Forwarded-Client-Cert", `Hash=1;Subject="CN=root"`)
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{ann.Leaf}, VerifiedChains: [][]*x509.Certificate{{ann.Leaf, ca.Leaf}}}
	h.ServeHTTP(httptest.NewRecorder(), r)
	// Output: Subject="CN=ann";DNS=ann
}

func ExampleVerifyClient() {
	ca, other := l4test.NewAuthority("authority"), l4test.NewAuthority("other")
	clients := &l4.ClientVerifier{CAs: ca.Pool(), Late: true} // with CAFiles and CRLFiles: go clients.Run(ctx)
	_ = clients.Load()
	h := &l7.VerifyClient{
		Clients: clients,
		Refuse: l7.HandlerFunc(func(x *l7.Exchange) {
			why := "show a certificate"
			if e, ok := errors.AsType[*l4.ClientCertError](x.Record.Err); ok {
				why = e.Cert.Subject.String() + " is not known here"
			}
			x.Respond(403, nil, why)
		}),
		Next: l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(200, nil, "hello, "+x.TLS.VerifiedChains[0][0].Subject.CommonName) }),
	}
	// server := &l7.Server{TLSConfig: clients.Config(config), Handler: h}
	for _, cert := range []tls.Certificate{ca.Issue("ann"), other.Issue("eve"), {}} {
		r := httptest.NewRequest("GET", "https://a.test/", nil)
		r.TLS = new(tls.ConnectionState)
		if cert.Leaf != nil {
			r.TLS.PeerCertificates = []*x509.Certificate{cert.Leaf}
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		fmt.Println(w.Code, w.Body)
	}
	// Output:
	// 200 hello, ann
	// 403 CN=eve is not known here
	// 403 show a certificate
}
