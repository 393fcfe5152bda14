// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"syscall"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
)

// ProxyStatus tells trusted clients which server failed, and how, in the Proxy-Status
// field of replies (RFC 9209):
//
//	Proxy-Status: edge.example; error=connection_refused; next-hop="web-1"; details="dial tcp 10.0.0.1:80: connect: connection refused"
//	Proxy-Status: edge.example; received-status=503; next-hop="web-1"
//
// The first is about an error reply of the gateway itself, the second about a reply of 500
// or above that a server has sent. Other replies get no line. Lines of proxies behind the
// gateway come before ours, as section 2 asks. A client that is not trusted gets neither:
// they say what stands behind the gateway (section 4).
type ProxyStatus struct {
	Name  string  // that this gateway has in the field: a host name, or another token
	Trust Matcher // of requests whose clients are told, such as RemoteIn; nil means none

	Next http.Handler

	checked
}

// ServeHTTP implements [http.Handler].
func (h *ProxyStatus) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(h, w, r) }

// ServeExchange implements [Handler].
func (h *ProxyStatus) ServeExchange(x *Exchange) {
	if h.Trust != nil && Matches(h.Trust, x) {
		x.OnReply(h)
	} else {
		x.OnReply(hideStatus{})
	}
	Serve(h.Next, x)
}

// hideStatus removes what proxies behind the gateway say.
type hideStatus struct{}

func (hideStatus) EditReply(_ *Exchange, r *Reply) { r.Header.Del("Proxy-Status") }

// EditReply implements [ReplyEditor].
func (h *ProxyStatus) EditReply(x *Exchange, r *Reply) {
	rec := &x.Record
	line := h.Name
	switch {
	case !r.Local && r.Server != nil && r.Status >= 500:
		line += "; received-status=" + formatInt(int64(r.Status))
	case r.Local:
		what := proxyError(rec)
		if what == "" {
			return
		}
		line += "; error=" + what
	default:
		return
	}
	if rec.Server != "" {
		line += "; next-hop=" + sfString(rec.Server)
	}
	if r.Local && rec.Err != nil {
		line += "; details=" + sfString(rec.Err.Error())
	}
	r.Header.Add("Proxy-Status", line)
}

// proxyError returns the type of the error that the gateway answers for (section 2.3),
// "" if it answers as planned.
func proxyError(rec *Record) string {
	end, err := rec.Termination, rec.Err
	switch end.Cause {
	case l4.Normal, l4.Local:
		return ""
	case l4.Denied:
		return "http_request_denied"
	case l4.ClientAborted, l4.ClientTimeout:
		return "http_request_error"
	case l4.Internal, l4.Killed:
		return "proxy_internal_error"
	case l4.Resource:
		return "connection_limit_reached"
	case l4.ServerDown:
		return "destination_unavailable"
	}
	if s := connectErrorType(err); s != "" {
		return s
	}
	switch {
	case errors.Is(err, balance.ErrQueueTimeout):
		return "connection_limit_reached"
	case end.Cause == l4.ServerTimeout && end.Phase == l4.PhaseConnect:
		return "connection_timeout"
	case end.Cause == l4.ServerTimeout:
		return "http_response_timeout"
	case errors.Is(err, balance.ErrNoServer), end.Phase == l4.PhaseConnect:
		return "destination_unavailable"
	}
	if _, ok := errors.AsType[*badReply](err); ok {
		return "http_protocol_error"
	}
	return "connection_terminated"
}

// connectErrorType returns the type of an error of making a connection.
func connectErrorType(err error) string {
	if e, ok := errors.AsType[*tlsError](err); ok {
		if e.untrusted() {
			return "tls_certificate_error"
		}
		if _, alert := errors.AsType[tls.AlertError](e.err); alert {
			return "tls_alert_received"
		}
		return "tls_protocol_error"
	}
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		if e.IsTimeout {
			return "dns_timeout"
		}
		return "dns_error"
	}
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection_refused"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "destination_ip_unroutable"
	}
	return ""
}

// sfString returns s as a String of structured fields (RFC 9651, section 3.3.3), which
// has printable ASCII only, cut to a length that a head can bear.
func sfString(s string) string {
	const most = 256
	b := make([]byte, 0, min(len(s), most)+2)
	b = append(b, '"')
	for i := 0; i < len(s) && len(b) < most; i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < 0x20 || c > 0x7e:
			b = append(b, '?')
		default:
			b = append(b, c)
		}
	}
	return string(append(b, '"'))
}

// isSFToken reports whether s is a Token of structured fields (RFC 9651, section 3.3.4).
func isSFToken(s string) bool {
	if s == "" || !(s[0] == '*' || 'a' <= s[0]|0x20 && s[0]|0x20 <= 'z') {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c != ':' && c != '/' && !isToken(s[i:i+1]) {
			return false
		}
	}
	return true
}

// Check returns what is wrong with h and its handler.
func (h *ProxyStatus) Check() error { return checkAll(h) }

func (h *ProxyStatus) check(c *checks) {
	c.If(!isSFToken(h.Name), "ProxyStatus.Name", h.Name, `must be a token that begins with a letter, such as "edge.example"`)
	c.matcher("ProxyStatus.Trust", h.Trust)
	c.next("ProxyStatus.Next", h.Next)
}
