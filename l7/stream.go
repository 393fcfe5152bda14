// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net"
	"strings"
	"time"
)

// Some healthy exchanges are quiet for long: server-sent events, gRPC, and
// upgraded connections. StreamTimeout bounds them, and TCP keep-alive, or PING
// with HTTP/2, detects that a peer has died.

// longer returns the longer of two limits, where 0 means no limit.
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

// wantsStream reports whether a request asks for a stream, as an EventSource
// and a gRPC client do: then the head of the reply may come as late as its
// first message.
func wantsStream(x *Exchange) bool {
	if isGRPC(&x.Header) {
		return true
	}
	v, _, _ := strings.Cut(x.Header.Get("Accept"), ";")
	return equalFold(trimOWS(v), "text/event-stream")
}

// keepAlive detects a dead peer of a stream after two and a half minutes.
func keepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: 60 * time.Second, Interval: 15 * time.Second, Count: 6}
}
