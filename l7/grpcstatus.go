// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"cmp"
	"net/http"
	"strings"
)

// isGRPC reports whether x is a gRPC call. That needs HTTP/2: replies end with
// a trailer that older clients do not read.
func (x *Exchange) isGRPC() bool {
	return x.proto >= 2 && x.Method == http.MethodPost && grpcType(x.Header.Get("Content-Type"))
}

// grpcType reports whether a Content-Type is that of gRPC over HTTP/2, which
// gRPC-Web is not.
func grpcType(v string) bool {
	rest, ok := strings.CutPrefix(v, "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// The gRPC codes in replies of the gateway itself.
const (
	grpcUnknown          = "2"
	grpcDeadlineExceeded = "4"
	grpcPermissionDenied = "7"
	grpcUnimplemented    = "12"
	grpcInternal         = "13"
	grpcUnavailable      = "14"
	grpcUnauthenticated  = "16"
)

// grpcCode maps an HTTP status to the code that a gRPC client makes of it
// (gRPC, doc/http-grpc-status-mapping.md).
func grpcCode(status int) string {
	switch status {
	case http.StatusBadRequest:
		return grpcInternal
	case http.StatusUnauthorized:
		return grpcUnauthenticated
	case http.StatusForbidden:
		return grpcPermissionDenied
	case http.StatusNotFound:
		return grpcUnimplemented
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return grpcUnavailable
	}
	return grpcUnknown
}

// grpcStatus makes the fields of a status. The message must be printable ASCII
// without '%'.
func grpcStatus(code, message string) Fields {
	return MakeFields("Grpc-Status", code, "Grpc-Message", message)
}

// grpcError answers with a gRPC status and nothing else (gRPC,
// doc/PROTOCOL-HTTP2.md: Trailers-Only).
func (x *Exchange) grpcError(code, message string) {
	r := Reply{Status: http.StatusOK, Header: grpcStatus(code, message), ContentLength: -1, Local: true}
	r.Header.Set("Content-Type", "application/grpc")
	if x.writeHead(&r) == nil {
		_ = x.down.finish(nil)
	}
}

// grpcHTTP maps the gRPC codes with which a server reports that it failed to
// HTTP statuses (Envoy's mapping).
var grpcHTTP = map[string]int{
	"2":  http.StatusInternalServerError, // UNKNOWN
	"4":  http.StatusGatewayTimeout,      // DEADLINE_EXCEEDED
	"12": http.StatusNotImplemented,      // UNIMPLEMENTED
	"13": http.StatusInternalServerError, // INTERNAL
	"14": http.StatusServiceUnavailable,  // UNAVAILABLE
	"15": http.StatusInternalServerError, // DATA_LOSS
}

// noteGRPC notes the status of a call, which is in the head of its reply or in the trailer.
func (x *Exchange) noteGRPC(f *Fields) {
	if x.grpc {
		x.Record.GRPCStatus = f.Get("Grpc-Status")
	}
}

// noteForeignGRPC is noteGRPC for the reply of a foreign handler, whose fields and trailer are in h.
func (x *Exchange) noteForeignGRPC(h http.Header) {
	if x.grpc && x.Record.GRPCStatus == "" {
		x.Record.GRPCStatus = cmp.Or(h.Get(http.TrailerPrefix+"Grpc-Status"), h.Get("Grpc-Status"))
	}
}

// failed reports whether the reply says that the server or the gateway has failed.
func (r *Record) failed() bool {
	return r.Status >= http.StatusInternalServerError || grpcHTTP[r.GRPCStatus] != 0
}
