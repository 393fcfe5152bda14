// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"math"
	"net/http"
	"testing"
	"time"
)

func TestGRPCTimeout(t *testing.T) {
	for v, want := range map[string]time.Duration{
		"1H": time.Hour, "2M": 2 * time.Minute, "10S": 10 * time.Second, "250m": 250 * time.Millisecond, "7u": 7 * time.Microsecond, "99999999n": 99999999,
		"0S": 0, "99999999H": longest,
		"": -1, "S": -1, "1": -1, "1s": -1, "-1S": -1, "+1S": -1, "1 S": -1, "999999999n": -1, "1.5S": -1,
	} {
		if d, ok := grpcTimeout(v); ok != (want >= 0) || ok && d != want {
			t.Errorf("%q is %v, %v; want %v", v, d, ok, want)
		}
	}
	if longest > math.MaxInt64/2 {
		t.Error("adding to the longest overflows")
	}
}

func TestGRPCCodeOfStatus(t *testing.T) {
	for status, want := range map[int]string{
		400: "13", 401: "16", 403: "7", 404: "12", 429: "14", 502: "14", 503: "14", 504: "14", // the table of http-grpc-status-mapping.md
		413: "2", 500: "2", 421: "2",
	} {
		if got := grpcCode(status); got != want {
			t.Errorf("%d is %s; want %s", status, got, want)
		}
	}
}

func TestGRPCIsKnownByItsType(t *testing.T) {
	for v, want := range map[string]bool{
		"application/grpc": true, "application/grpc+proto": true, "application/grpc;x=y": true,
		"application/grpc-web": false, "application/grpc-web+proto": false, "application/grpcx": false, "text/plain": false, "": false,
	} {
		if grpcType(v) != want {
			t.Errorf("%q: %v", v, !want)
		}
	}
	x := &Exchange{Method: http.MethodPost, proto: 1}
	x.Header.Set("Content-Type", "application/grpc")
	if x.isGRPC() {
		t.Error("over HTTP/1 there is no gRPC")
	}
}

func TestGRPCPushback(t *testing.T) {
	for v, want := range map[string]time.Duration{"0": 0, "1500": 1500 * time.Millisecond, "-1": -1, "soon": -1} {
		r := new(Reply)
		r.Header.Set("grpc-retry-pushback-ms", v)
		if d, ok := grpcPushback(r); ok != (want >= 0) || ok && d != want {
			t.Errorf("%q is %v, %v; want %v", v, d, ok, want)
		}
	}
	if d, ok := grpcPushback(new(Reply)); d != 0 || !ok {
		t.Errorf("without the field: %v, %v", d, ok)
	}
}
