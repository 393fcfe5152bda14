// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/penstock-lb/penstock/l4"
)

// A Record describes an exchange that has ended. The hooks that get one
// (OnDone) must not keep it: it belongs to the connection.
type Record struct {
	Start      time.Time // when the first byte of the request arrived
	Front      Front
	Remote     netip.AddrPort // as in Exchange
	Local      netip.AddrPort
	Method     string
	Host       string
	Path       string // as the client sent it
	Query      string // likewise, with its leading "?", or empty
	Proto      string // the version of the request: "HTTP/1.1"
	ID         string // made or taken over by RequestID, or ""
	Trace      string // id of the trace it belongs to, set by a handler such as that of l7/otel, or ""
	JA4        string // fingerprint of the client's TLS, as Exchange.JA4 has it, or ""
	User       string // accepted by BasicAuth, or named by the service of a ForwardAuth, or ""
	Status     int    // of the reply; 0 if there was none
	GRPCStatus string // grpc-status of the reply to a gRPC call, as "14" (UNAVAILABLE), or ""; such a reply has the Status 200
	Route      string // name of the route taken, or ""
	Pool       string // name of the pool used, or ""
	Server     string // name of the server that answered or was tried last, or ""

	Tries     int   // requests begun on a server, including the first
	Persisted bool  // the server is the one that a cookie or a table has named (Balance.Prefer)
	Reused    bool  // the last try went over a connection that was already open
	BytesIn   int64 // of the request body, read
	BytesOut  int64 // of the reply body, sent

	// Phases, as durations since Start; 0 means not reached. After several tries
	// they are those of the last one.
	Assigned  time.Duration // a server was chosen, after the queue if there was one
	Connected time.Duration // a connection to it was ready
	FirstByte time.Duration // the head of its reply arrived
	Total     time.Duration // the exchange ended

	Captured []Captured // what Capture kept

	Decision string // what handlers such as ForwardAuth have decided about the request, in their words; "" if none has

	Termination l4.Termination // cause and phase of the end; Local with a reply of the gateway's own is not a failure
	Err         error          // details of Termination or of Decision, or nil
}

// Decide adds the decision of a handler to Decision.
func (r *Record) Decide(what string) {
	if r.Decision != "" {
		what = r.Decision + "; " + what
	}
	r.Decision = what
}

// Front is the front that carried an exchange.
type Front uint8

// The fronts. A Transport counts as one.
const (
	FrontStandard  Front = iota // an http.Server, or a handler that is not native: it gets (w, r), under Server too
	FrontByte                   // the byte front of Server
	FrontTransport              // a Transport: the client is this program
	FrontHTTP2                  // the byte front of Server, over a stream of HTTP/2
	FrontHTTP3                  // an AttachedFront: that of l7/h3
)

func (f Front) String() string { return word(f, "standard", "byte", "transport", "http2", "http3") }

// MarshalText returns what String does, for JSON and slog.
func (f Front) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// word returns the name of i, or its number if it has none.
func word[T ~uint8](i T, names ...string) string {
	if int(i) < len(names) {
		return names[i]
	}
	return strconv.Itoa(int(i))
}

// reached returns d as a phase of a record. It is never 0, however coarse the
// clock is.
func reached(d time.Duration) time.Duration { return max(d, 1) }

// LogValue implements [slog.LogValuer], for a record as a group of a log line: method,
// host, path, status, remote, tries, in and out (bytes of the bodies), assigned, connected,
// first_byte and total (since Start; in JSON a number of nanoseconds), end (the code of
// [l4.Termination]) and front; and, if there are any, grpc_status, id, trace, ja4, user, route,
// pool, server, persisted, decision, what was captured (as request.NAME and reply.NAME), and error.
func (r *Record) LogValue() slog.Value {
	attrs := make([]slog.Attr, 0, 20)
	attrs = append(attrs,
		slog.String("method", r.Method), slog.String("host", r.Host), slog.String("path", r.Path),
		slog.Int("status", r.Status), slog.String("remote", r.Remote.String()))
	for _, a := range [...]slog.Attr{slog.String("grpc_status", r.GRPCStatus), slog.String("id", r.ID), slog.String("trace", r.Trace), slog.String("ja4", r.JA4), slog.String("user", r.User), slog.String("route", r.Route), slog.String("pool", r.Pool), slog.String("server", r.Server)} {
		if a.Value.String() != "" {
			attrs = append(attrs, a)
		}
	}
	if r.Persisted {
		attrs = append(attrs, slog.Bool("persisted", true))
	}
	attrs = append(attrs,
		slog.Int("tries", r.Tries), slog.Int64("in", r.BytesIn), slog.Int64("out", r.BytesOut),
		slog.Duration("assigned", r.Assigned), slog.Duration("connected", r.Connected),
		slog.Duration("first_byte", r.FirstByte), slog.Duration("total", r.Total),
		slog.String("end", r.Termination.String()), slog.String("front", r.Front.String()))
	if r.Decision != "" {
		attrs = append(attrs, slog.String("decision", r.Decision))
	}
	for _, c := range r.Captured {
		attrs = append(attrs, c.attr())
	}
	if r.Err != nil {
		attrs = append(attrs, slog.String("error", r.Err.Error()))
	}
	return slog.GroupValue(attrs...)
}

// LogTo returns an OnDone hook that logs each record with l at level Info, or
// Warn where the server or the gateway was at fault, or where an editor has refused the
// reply and the client got a status of 500 or more, as it does without an error page:
// as a group named request, with the attributes of [Record.LogValue]. The end of a gRPC
// call by its own grpc-timeout is logged at Info, as a client that leaves is.
func LogTo(l *slog.Logger) func(*Record) {
	return func(r *Record) {
		level := slog.LevelInfo
		if r.warns() {
			level = slog.LevelWarn
		}
		l.Log(bg, level, "request", "request", r)
	}
}

// warns reports whether logs show r as a failure: the server or the gateway was at fault,
// but not for a call whose client wanted to wait no longer, or an editor did not want
// what the server sent and the client was told of a failure.
func (r *Record) warns() bool {
	switch r.Termination.Cause {
	case l4.ServerTimeout:
		e, ok := errors.AsType[*TimeoutError](r.Err)
		return !ok || e.Field != callTimeout
	case l4.Denied:
		_, ok := errors.AsType[*RefusedError](r.Err)
		return ok && r.Status >= http.StatusInternalServerError
	}
	return r.Termination.Cause.AtFault()
}

func endOf(c l4.Cause, p l4.Phase) l4.Termination { return l4.Termination{Cause: c, Phase: p} }

// completed reports whether an exchange ended as planned.
func completed(t l4.Termination) bool { return t.Cause == l4.Normal || t.Cause == l4.Local }

// Captured is a field kept by [Capture].
type Captured struct {
	Name  string // as Capture names it
	Value string
	Reply bool // from the reply, not from the request
}

func (c Captured) attr() slog.Attr {
	if c.Reply {
		return slog.String("reply."+c.Name, c.Value)
	}
	return slog.String("request."+c.Name, c.Value)
}
