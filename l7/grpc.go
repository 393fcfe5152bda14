// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"errors"
	"net/http"
	"strings"

	"github.com/penstock-lb/penstock/balance"
)

// grpcOutcome has a gRPC status speak for the server as its HTTP status would:
// a gRPC server fails with 200.
func (s *h2Stream) grpcOutcome(o *balance.Outcome) {
	if !strings.HasPrefix(s.rep.Header.Get("Content-Type"), "application/grpc") {
		return
	}
	v := s.rep.Header.Get("Grpc-Status") // without a body, it is in the head
	if s.trailing != nil {
		v = cmpOr(s.trailing.Get("Grpc-Status"), v)
	}
	if status, ok := grpcHTTP[v]; ok && o.Class == balance.OK {
		o.Class, o.Status = balance.StatusError, status
		o.Err = errors.New("l7: grpc-status " + v)
	}
}

// grpcHTTP are the codes of gRPC with which a server says that it failed, as
// HTTP would say it (Envoy's mapping).
var grpcHTTP = map[string]int{
	"2":  http.StatusInternalServerError, // UNKNOWN
	"4":  http.StatusGatewayTimeout,      // DEADLINE_EXCEEDED
	"12": http.StatusNotImplemented,      // UNIMPLEMENTED
	"13": http.StatusInternalServerError, // INTERNAL
	"14": http.StatusServiceUnavailable,  // UNAVAILABLE
	"15": http.StatusInternalServerError, // DATA_LOSS
}
