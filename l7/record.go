// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"log/slog"
	"net/netip"
	"strconv"
	"time"

	"github.com/penstock-lb/penstock/l4"
)

// A Record is what is to be said of an exchange when it has ended. The hooks
// that get one (OnDone) must not keep it: it belongs to the connection.
type Record struct {
	Start  time.Time // when the first byte of the request was there
	Front  Front
	Remote netip.AddrPort // as in Exchange
	Local  netip.AddrPort
	Method string
	Host   string
	Path   string // as the client sent it
	Query  string // likewise, with its leading "?", or empty
	Proto  string // the version the client spoke: "HTTP/1.1"
	ID     string // that RequestID made or took over, or ""
	User   string // that BasicAuth accepted, or ""
	Status int    // of the reply; 0 if there was none
	Route  string // name of the route taken, or ""
	Pool   string // name of the pool asked, or ""
	Server string // name of the server that answered or was tried last, or ""

	Tries     int   // requests begun on a server, the first one included
	Persisted bool  // the server is the one that a handler has named, by a cookie or a table: Balance.Prefer
	Reused    bool  // the last try went over a connection that was open already
	BytesIn   int64 // of the request body that were read
	BytesOut  int64 // of the reply body that were sent

	// Phases, as durations since Start; 0 means not reached. Of several tries the
	// last one counts.
	Assigned  time.Duration // a server was chosen, after a queue if there was one
	Connected time.Duration // a connection to it was there
	FirstByte time.Duration // the head of its reply was there
	Total     time.Duration // all was done

	Captured []Captured // what Capture kept

	Termination l4.Termination // who ended it, and when; Local with a reply of our own is no failure
	Err         error          // what there is to say about Termination, or nil
}

// Front names the front that carried an exchange.
type Front uint8

// The two fronts, and what is none.
const (
	FrontStandard  Front = iota // an http.Server
	FrontByte                   // the byte front of Server
	FrontTransport              // a Transport: the client is this program
	FrontHTTP2                  // the byte front of Server, over a stream of HTTP/2
)

func (f Front) String() string { return word(f, "standard", "byte", "transport", "http2") }

// word returns the name of i, or its number if it has none.
func word[T ~uint8](i T, names ...string) string {
	if int(i) < len(names) {
		return names[i]
	}
	return strconv.Itoa(int(i))
}

// reached returns the phase of a record that has been reached after d. No phase
// that has is 0, however coarse the clock.
func reached(d time.Duration) time.Duration { return max(d, 1) }

// LogValue implements [slog.LogValuer], for a record as a group of a log line.
func (r *Record) LogValue() slog.Value {
	attrs := make([]slog.Attr, 0, 16)
	attrs = append(attrs,
		slog.String("method", r.Method), slog.String("host", r.Host), slog.String("path", r.Path),
		slog.Int("status", r.Status), slog.String("remote", r.Remote.String()))
	for _, a := range [...]slog.Attr{slog.String("id", r.ID), slog.String("user", r.User), slog.String("route", r.Route), slog.String("pool", r.Pool), slog.String("server", r.Server)} {
		if a.Value.String() != "" {
			attrs = append(attrs, a)
		}
	}
	attrs = append(attrs,
		slog.Int("tries", r.Tries), slog.Int64("in", r.BytesIn), slog.Int64("out", r.BytesOut),
		slog.Duration("assigned", r.Assigned), slog.Duration("connected", r.Connected),
		slog.Duration("first_byte", r.FirstByte), slog.Duration("total", r.Total),
		slog.String("end", r.Termination.String()), slog.String("front", r.Front.String()))
	for _, c := range r.Captured {
		attrs = append(attrs, c.attr())
	}
	if r.Err != nil {
		attrs = append(attrs, slog.String("error", r.Err.Error()))
	}
	return slog.GroupValue(attrs...)
}

// LogTo returns an OnDone hook that logs each record with l at level Info, or
// Warn where the server or the gateway was at fault.
func LogTo(l *slog.Logger) func(*Record) {
	return func(r *Record) {
		level := slog.LevelInfo
		if atFault(r.Termination.Cause) {
			level = slog.LevelWarn
		}
		l.Log(bg, level, "request", "request", r)
	}
}

func endOf(c l4.Cause, p l4.Phase) l4.Termination { return l4.Termination{Cause: c, Phase: p} }

// completed reports whether an exchange came to its planned end.
func completed(t l4.Termination) bool { return t.Cause == l4.Normal || t.Cause == l4.Local }

// Captured is a field that [Capture] kept.
type Captured struct {
	Name  string // as Capture names it
	Value string
	Reply bool // of the reply, not of the request
}

func (c Captured) attr() slog.Attr {
	if c.Reply {
		return slog.String("reply."+c.Name, c.Value)
	}
	return slog.String("request."+c.Name, c.Value)
}

// atFault reports whether an exchange ended by the doing of a server or of the
// gateway.
func atFault(c l4.Cause) bool {
	switch c {
	case l4.ServerAborted, l4.ServerTimeout, l4.Resource, l4.Internal, l4.ServerDown:
		return true
	}
	return false
}
