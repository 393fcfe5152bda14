// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
)

func TestProxyStatusIsForTrustedClientsOnly(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		s.origin("10.1.0.1:80", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Add("Proxy-Status", "inner; error=dns_error")
			status := 200
			_, _ = fmt.Sscan(strings.TrimPrefix(r.URL.Path, "/"), &status)
			w.WriteHeader(status)
		})
		down := s.proxy("10.1.0.2:80")
		up := s.proxy("10.1.0.1:80")
		return &ProxyStatus{
			Name: "edge.example", Trust: RemoteIn{netip.MustParsePrefix("10.9.9.9/32")},
			Next: HandlerFunc(func(x *Exchange) {
				switch x.Path {
				case "/down":
					Serve(down, x)
				case "/denied":
					x.Error(403, endOf(l4.Denied, l4.PhaseRequest))
				case "/local":
					x.Respond(200, nil, "")
				default:
					Serve(up, x)
				}
			}),
		}
	}, func(s *site) {
		stranger := s.from("10.8.8.8")
		for path, want := range map[string][]string{
			"/200":    {"inner; error=dns_error"},
			"/404":    {"inner; error=dns_error"},
			"/503":    {"inner; error=dns_error", `edge.example; received-status=503; next-hop="10.1.0.1:80"`},
			"/denied": {"edge.example; error=http_request_denied"},
			"/local":  nil,
		} {
			require.Equal(s, want, s.get(path).Header["Proxy-Status"], path)
			a, err := s.ask(stranger, path, "")
			require.NoError(s, err)
			require.Nil(s, a.Header["Proxy-Status"], path)
		}
		a := s.get("/down")
		require.Equal(s, 502, a.StatusCode)
		require.Regexp(s, `^edge\.example; error=connection_refused; next-hop="10\.1\.0\.2:80"; details="[^"]*refused"$`, a.Header.Get("Proxy-Status"))
		a, err := s.ask(stranger, "/down", "")
		require.NoError(s, err)
		require.Equal(s, 502, a.StatusCode)
		require.Nil(s, a.Header["Proxy-Status"])
	})
}

func TestProxyStatusTrustsNobodyByDefault(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		return &ProxyStatus{Name: "edge", Next: s.proxy("10.1.0.2:80")}
	}, func(s *site) { require.Nil(s, s.get("/").Header["Proxy-Status"]) })
}

func TestProxyStatusNamesTheError(t *testing.T) {
	late := &TimeoutError{Field: "Proxy.HeaderTimeout", Limit: time.Second}
	for _, tc := range []struct {
		cause l4.Cause
		phase l4.Phase
		err   error
		want  string
	}{
		{l4.Normal, l4.PhaseNone, nil, ""},
		{l4.Local, l4.PhaseRequest, nil, ""},
		{l4.Denied, l4.PhaseTarpit, nil, "http_request_denied"},
		{l4.ClientTimeout, l4.PhaseRequest, nil, "http_request_error"},
		{l4.ClientAborted, l4.PhaseRequest, io.ErrUnexpectedEOF, "http_request_error"},
		{l4.Internal, l4.PhaseRequest, nil, "proxy_internal_error"},
		{l4.Killed, l4.PhaseHeaders, nil, "proxy_internal_error"},
		{l4.ServerDown, l4.PhaseHeaders, &cutError{"gone"}, "destination_unavailable"},
		{l4.Resource, l4.PhaseQueue, balance.ErrQueueFull, "connection_limit_reached"},
		{l4.ServerTimeout, l4.PhaseQueue, balance.ErrQueueTimeout, "connection_limit_reached"},
		{l4.ServerTimeout, l4.PhaseConnect, errConnectTimeout, "connection_timeout"},
		{l4.ServerTimeout, l4.PhaseHeaders, late, "http_response_timeout"},
		{l4.Denied, l4.PhaseHeaders, &RefusedError{}, "http_request_denied"}, // RFC 9209 has none for replies
		{l4.ServerAborted, l4.PhaseConnect, balance.ErrNoServer, "destination_unavailable"},
		{l4.ServerAborted, l4.PhaseConnect, errors.New("x"), "destination_unavailable"},
		{l4.ServerAborted, l4.PhaseConnect, &net.OpError{Err: syscall.ECONNREFUSED}, "connection_refused"},
		{l4.ServerAborted, l4.PhaseConnect, syscall.EHOSTUNREACH, "destination_ip_unroutable"},
		{l4.ServerAborted, l4.PhaseConnect, &net.DNSError{IsNotFound: true}, "dns_error"},
		{l4.ServerTimeout, l4.PhaseConnect, &net.DNSError{IsTimeout: true}, "dns_timeout"},
		{l4.ServerAborted, l4.PhaseConnect, &tlsError{"a", &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}}, "tls_certificate_error"},
		{l4.ServerAborted, l4.PhaseConnect, &tlsError{"a", tls.AlertError(40)}, "tls_alert_received"},
		{l4.ServerAborted, l4.PhaseConnect, &tlsError{"a", io.EOF}, "tls_protocol_error"},
		{l4.ServerAborted, l4.PhaseHeaders, &badReply{errors.New("x")}, "http_protocol_error"},
		{l4.ServerAborted, l4.PhaseHeaders, io.EOF, "connection_terminated"},
		{l4.ServerAborted, l4.PhaseHeaders, context.Canceled, "connection_terminated"},
	} {
		require.Equal(t, tc.want, proxyError(&Record{Termination: endOf(tc.cause, tc.phase), Err: tc.err}), "%v", tc)
	}
}

func TestProxyStatusIsAStructuredField(t *testing.T) {
	require.Equal(t, `"a\"b\\c??"`, sfString("a\"b\\c\r\xff"))
	require.LessOrEqual(t, len(sfString(strings.Repeat(`"`, 5000))), 300)
	for name, ok := range map[string]bool{"edge.example": true, "*": true, "a:80/b": true, "": false, "8a": false, "a b": false, "a\"": false, "-": false} {
		require.Equal(t, ok, isSFToken(name), name)
	}
	var p balance.Pool
	err := (&ProxyStatus{Name: "a b", Trust: RemoteIn{netip.Prefix{}}, Next: &Proxy{Pool: &p, Via: "a b"}}).Check()
	for _, field := range []string{"ProxyStatus.Name", "ProxyStatus.Trust", "ProxyStatus.Next.Proxy.Via"} {
		require.ErrorContains(t, err, field)
	}
}
