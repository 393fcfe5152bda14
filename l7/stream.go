// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net"
	"strings"
	"time"
)

// Some exchanges are quiet for long and well: server-sent events, gRPC, and what
// was upgraded. They live under StreamTimeout, and what finds out that a peer
// has died is TCP keep-alive, or PING with HTTP/2.

// longer returns the longer of two limits, of which 0 is none.
func longer(a, b time.Duration) time.Duration {
	if a == 0 || b == 0 {
		return 0
	}
	return max(a, b)
}

// isStream reports whether a message is a stream by its type: server-sent events
// (HTML, section 9.2) or gRPC, gRPC-Web included.
func isStream(f *Fields) bool { return isType(f, "text/event-stream") || isGRPC(f) }

func isGRPC(f *Fields) bool {
	v := f.Get("Content-Type")
	const grpc = "application/grpc"
	return len(v) >= len(grpc) && equalFold(v[:len(grpc)], grpc) && (len(v) == len(grpc) || strings.IndexByte("+;- \t", v[len(grpc)]) >= 0)
}

func isType(f *Fields, want string) bool {
	v, _, _ := strings.Cut(f.Get("Content-Type"), ";")
	return equalFold(trimOWS(v), want)
}

// wantsStream reports whether a request asks for a stream: then the head of the
// reply may be as late as its first message. That is how an EventSource, and a
// client of gRPC, asks.
func wantsStream(x *Exchange) bool {
	if isGRPC(&x.Header) {
		return true
	}
	v, _, _ := strings.Cut(x.Header.Get("Accept"), ";")
	return equalFold(trimOWS(v), "text/event-stream")
}

// keepAlive is how a dead peer of a stream is found: after two minutes and a half.
func keepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: 60 * time.Second, Interval: 15 * time.Second, Count: 6}
}
