// SPDX-License-Identifier: Apache-2.0

package otel

import (
	"net"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.opentelemetry.io/otel/attribute"

	"github.com/penstock-lb/penstock/l7"
)

// A target is the URL of a request, as its client wrote it.
type target struct{ method, scheme, host, path string }

func targetOf(x *l7.Exchange) target { return target{x.Method, x.Scheme, x.Host, x.Path} }

// requestAttributes are those of a request at the start of its span, where samplers see them.
func requestAttributes(x *l7.Exchange) []attribute.KeyValue {
	a := make([]attribute.KeyValue, 0, 12)
	a = appendMethod(a, x.Method)
	a = append(a, attribute.String("url.scheme", x.Scheme), attribute.String("url.path", clean(x.Path)))
	a = appendAddress(a, "server", x.Host)
	if x.Client.IsValid() {
		a = append(a, attribute.String("client.address", x.Client.String()))
	}
	if p := x.Remote; p.IsValid() {
		a = append(a, attribute.String("network.peer.address", p.Addr().String()), attribute.Int("network.peer.port", int(p.Port())))
	}
	a = append(a, attribute.String("network.protocol.version", strings.TrimSuffix(strings.TrimPrefix(x.Record.Proto, "HTTP/"), ".0")))
	if ua := x.Header.Get("User-Agent"); ua != "" {
		a = append(a, attribute.String("user_agent.original", clean(ua)))
	}
	return a
}

// endAttributes are those of a request that has ended.
func endAttributes(r *l7.Record) []attribute.KeyValue {
	a := make([]attribute.KeyValue, 0, 13)
	for _, s := range [...]struct{ key, value string }{{"http.route", r.Route}, {"penstock.pool", r.Pool}, {"penstock.server", r.Server}} {
		if s.value != "" {
			a = append(a, attribute.String(s.key, clean(s.value)))
		}
	}
	if r.Status != 0 {
		a = append(a, attribute.Int("http.response.status_code", r.Status))
	}
	if code, err := strconv.Atoi(r.GRPCStatus); err == nil {
		a = append(a, attribute.Int("rpc.grpc.status_code", code))
	}
	return append(a, attribute.Int("penstock.tries", r.Tries), attribute.String("penstock.end", r.Termination.String()),
		attribute.Int64("http.request.body.size", r.BytesIn), attribute.Int64("http.response.body.size", r.BytesOut))
}

// tryAttributes are those of a try that begins.
func tryAttributes(r *request, t *l7.Try) []attribute.KeyValue {
	a := make([]attribute.KeyValue, 0, 12)
	a = appendMethod(a, r.target.method)
	a = append(a, attribute.String("url.full", clean(r.target.scheme+"://"+r.target.host+r.target.path)))
	a = appendAddress(a, "server", t.Server.Addr())
	a = append(a, attribute.String("penstock.server", clean(t.Server.Name())))
	if t.Number > 1 {
		a = append(a, attribute.Int("http.request.resend_count", t.Number-1))
	}
	if t.Hedge {
		a = append(a, attribute.Bool("penstock.try.hedge", true))
	}
	return a
}

// triedAttributes are those of a try that has ended.
func triedAttributes(t *l7.Try) []attribute.KeyValue {
	a := make([]attribute.KeyValue, 0, 4)
	a = append(a, attribute.Bool("penstock.try.reused", t.Reused))
	if t.Version != "" {
		a = append(a, attribute.String("network.protocol.version", strings.TrimSuffix(t.Version, ".0")))
	}
	if t.Status != 0 {
		a = append(a, attribute.Int("http.response.status_code", t.Status))
	}
	if t.Lost {
		a = append(a, attribute.Bool("penstock.try.lost", true))
	}
	return a
}

// appendAddress appends name.address and name.port.
func appendAddress(a []attribute.KeyValue, name, hostPort string) []attribute.KeyValue {
	host, port, err := net.SplitHostPort(hostPort)
	if err != nil {
		host, port = strings.Trim(hostPort, "[]"), ""
	}
	if host != "" {
		a = append(a, attribute.String(name+".address", clean(host)))
	}
	if n, err := strconv.ParseUint(port, 10, 16); err == nil {
		a = append(a, attribute.Int(name+".port", int(n)))
	}
	return a
}

// methodName returns the method in the name of a span: "HTTP" if the conventions do not list it.
func methodName(method string) string {
	if known(method) {
		return method
	}
	return "HTTP"
}

func appendMethod(a []attribute.KeyValue, method string) []attribute.KeyValue {
	if known(method) {
		return append(a, attribute.String("http.request.method", method))
	}
	return append(a, attribute.String("http.request.method", "_OTHER"), attribute.String("http.request.method_original", clean(method)))
}

func known(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodConnect, http.MethodOptions, http.MethodTrace:
		return true
	}
	return false
}

func formatStatus(status int) string { return strconv.Itoa(status) }

// word turns a word of this library into a value: "connect failed" becomes connect_failed.
func word(s string) string { return strings.ReplaceAll(s, " ", "_") }

const most = 256 // bytes of a text from a client or server

// clean cuts a text to most bytes, and makes it valid UTF-8.
func clean(s string) string {
	if len(s) > most {
		n := most
		for n > most-utf8.UTFMax && !utf8.RuneStart(s[n]) {
			n-- // not within a rune
		}
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// grpcFailed reports whether a grpc-status makes the span of a server one of an error, by the
// conventions for RPC.
func grpcFailed(code string) bool {
	switch code {
	case "2", "4", "12", "13", "14", "15": // UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS
		return true
	}
	return false
}
