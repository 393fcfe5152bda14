// SPDX-License-Identifier: Apache-2.0

package health

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/penstock-lb/penstock/balance"
)

// GRPC calls Check of the standard health service and passes if the status is
// SERVING. Without Connect.TLS it speaks HTTP/2 with prior knowledge.
//
// NOT_SERVING, and a service that the server does not know, are CodeStatus; a
// server without the health service is CodeProtocol.
//
// Source: grpc/health/v1/health.proto, "GRPC Health Checking Protocol" and
// "gRPC over HTTP2" of the gRPC project.
type GRPC struct {
	Connect Connect
	Service string      // empty means the server as a whole
	Host    string      // the :authority; empty means the address of the endpoint
	Header  http.Header // metadata
}

// maxGRPC bounds an answer: a HealthCheckResponse has two bytes.
const maxGRPC = 4 << 10

// Probe calls Check.
func (p GRPC) Probe(ctx context.Context, e balance.Endpoint) error {
	h := HTTP{Connect: p.Connect, HTTP2: true, Method: http.MethodPost, Path: "/grpc.health.v1.Health/Check", Host: p.Host, Header: p.Header}
	req, err := h.request(ctx, e)
	if err != nil {
		return err
	}
	message := grpcRequest(p.Service)
	req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(message)), int64(len(message))
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	if deadline, ok := ctx.Deadline(); ok {
		setGRPCTimeout(req.Header, deadline)
	}
	return p.Connect.http2(ctx, e, 0, req, grpcReply)
}

// setGRPCTimeout tells the server how much time there is, and a second more: a
// server that is the first to see it pass resets the stream, as if it refused.
func setGRPCTimeout(h http.Header, deadline time.Time) {
	const most = 99999999 * time.Millisecond // eight digits are allowed
	left := min(max(time.Until(deadline), 0), most-time.Second) + time.Second
	h.Set("Grpc-Timeout", strconv.FormatInt(left.Milliseconds(), 10)+"m")
}

// grpcReply reads the status of the call and the message.
func grpcReply(s *session, r *http.Response) error {
	s.step = "gRPC"
	if r.StatusCode != http.StatusOK {
		return s.error(CodeStatus, "HTTP status %d", r.StatusCode)
	}
	if !strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		return s.error(CodeProtocol, "content type %q", printable(r.Header.Get("Content-Type")))
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxGRPC+1))
	if err != nil {
		return s.failHTTP2(err)
	}
	if len(body) > maxGRPC {
		return s.error(CodeProtocol, "answer longer than %d bytes", maxGRPC)
	}
	status, message := r.Trailer.Get("Grpc-Status"), r.Trailer.Get("Grpc-Message")
	if status == "" { // "Trailers-Only"
		status, message = r.Header.Get("Grpc-Status"), r.Header.Get("Grpc-Message")
	}
	if message, err = url.PathUnescape(message); err != nil {
		message = ""
	}
	switch status {
	case "0":
	case "":
		return s.error(CodeProtocol, "no grpc-status")
	case "4": // DEADLINE_EXCEEDED: the server has one of its own
		return s.error(CodeTimeout, "no answer in time")
	case "5":
		return s.error(CodeStatus, "service unknown")
	case "7", "16":
		return s.error(CodeAuth, "status %s %s", status, printable(message))
	case "12":
		return s.error(CodeProtocol, "the server has no health service")
	default:
		return s.error(CodeStatus, "%s", printable("status "+status+" "+message))
	}
	serving, ok := grpcServing(body)
	switch {
	case !ok:
		return s.error(CodeProtocol, "unexpected answer %s", quote(body))
	case serving == 1:
		return nil
	case serving == 2:
		return s.error(CodeStatus, "NOT_SERVING")
	case serving == 3:
		return s.error(CodeStatus, "SERVICE_UNKNOWN")
	}
	return s.error(CodeStatus, "serving status %d", serving)
}

// grpcRequest returns the framed HealthCheckRequest: string service = 1.
func grpcRequest(service string) []byte {
	var m []byte
	if service != "" {
		m = append(m, 1<<3|2)
		m = binary.AppendUvarint(m, uint64(len(service)))
		m = append(m, service...)
	}
	b := make([]byte, 5, 5+len(m)) // not compressed, length
	binary.BigEndian.PutUint32(b[1:], uint32(len(m)))
	return append(b, m...)
}

// grpcServing reads a framed HealthCheckResponse: enum status = 1. Fields that
// are not known are passed over, the last status counts, a missing one is 0.
func grpcServing(b []byte) (status uint64, ok bool) {
	if len(b) < 5 || b[0] != 0 || uint64(binary.BigEndian.Uint32(b[1:])) != uint64(len(b)-5) {
		return 0, false
	}
	for b = b[5:]; len(b) > 0; {
		tag, n := binary.Uvarint(b)
		if n <= 0 || tag>>3 == 0 {
			return 0, false
		}
		b = b[n:]
		var skip uint64
		switch tag & 7 {
		case 0: // varint
			v, n := binary.Uvarint(b)
			if n <= 0 {
				return 0, false
			}
			if tag>>3 == 1 {
				status = v
			}
			skip = uint64(n)
		case 1: // 64 bits
			skip = 8
		case 2: // length and bytes
			size, n := binary.Uvarint(b)
			if n <= 0 || size > uint64(len(b)) {
				return 0, false
			}
			skip = uint64(n) + size
		case 5: // 32 bits
			skip = 4
		default:
			return 0, false
		}
		if skip > uint64(len(b)) {
			return 0, false
		}
		b = b[skip:]
	}
	return status, true
}
