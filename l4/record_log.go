// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"
)

// LogValue implements [slog.LogValuer], for a record as a group of a log line: remote,
// local, tries, in and out (bytes on the client's wire), to_server and from_server (payload),
// assigned, connected, first_byte and total (since Start; in JSON a number of nanoseconds) and
// end (the code of [Termination]); and, if there are any, ja4, server and error.
func (r *Record) LogValue() slog.Value {
	attrs := make([]slog.Attr, 0, 15)
	attrs = append(attrs, slog.String("remote", addrText(r.Remote)), slog.String("local", addrText(r.Local)))
	for _, a := range [...]slog.Attr{slog.String("ja4", r.JA4), slog.String("server", r.Server)} {
		if a.Value.String() != "" {
			attrs = append(attrs, a)
		}
	}
	attrs = append(attrs,
		slog.Int("tries", r.Tries), slog.Int64("in", r.BytesIn), slog.Int64("out", r.BytesOut),
		slog.Int64("to_server", r.ToServer), slog.Int64("from_server", r.FromServer),
		slog.Duration("assigned", r.Assigned), slog.Duration("connected", r.Connected),
		slog.Duration("first_byte", r.FirstByte), slog.Duration("total", r.Total),
		slog.String("end", r.Termination.String()))
	if r.Err != nil {
		attrs = append(attrs, slog.String("error", r.Err.Error()))
	}
	return slog.GroupValue(attrs...)
}

func addrText(a net.Addr) string {
	if a == nil {
		return ""
	}
	return a.String()
}

// LogTo returns an OnDone hook, of a [Server] or a [UDPProxy], that logs each record with l
// at level Info, or Warn where the server or the gateway was at fault: as a group named
// connection, with the attributes of [Record.LogValue].
func LogTo(l *slog.Logger) func(*Record) {
	return func(r *Record) {
		level := slog.LevelInfo
		if r.Termination.Cause.AtFault() {
			level = slog.LevelWarn
		}
		l.Log(context.Background(), level, "connection", "connection", r)
	}
}

// AppendHAProxy appends the record to b as a line of HAProxy's TCP log (option tcplog),
// for tools that read such lines (halog, dashboards), without the syslog prefix:
//
//	192.0.2.1:33313 [06/Feb/2009:12:12:51.443] web app/srv1 0/0/5007 212 -- 0/0/0/0/0 0/0
//
// Frontend is the name of the server that accepted the connection, backend that of the
// pool; "" is written as "-". The timers are in milliseconds, -1 if not reached: the time
// until a server was chosen, the time of the connect, the total. The numbers of
// connections and of queued ones are not known, and so 0. The number of bytes is that
// sent to the client.
func (r *Record) AppendHAProxy(b []byte, frontend, backend string) []byte {
	b = appendClient(b, r.Remote)
	b = append(b, " ["...)
	b = r.Start.AppendFormat(b, "02/Jan/2006:15:04:05.000")
	b = append(b, "] "...)
	b = append(AppendLogName(b, frontend), ' ')
	b = append(AppendLogName(b, backend), '/')
	if r.Server == "" {
		b = append(b, "<NOSRV>"...)
	} else {
		b = AppendLogName(b, r.Server)
	}
	b = append(b, ' ')
	b = append(AppendMillis(b, 0, r.Assigned), '/')
	b = append(AppendMillis(b, r.Assigned, r.Connected), '/')
	b = append(AppendMillis(b, 0, max(r.Total, 1)), ' ')
	b = append(strconv.AppendInt(b, r.BytesOut, 10), ' ')
	b = append(b, r.Termination.String()...)
	b = append(b, " 0/0/0/0/"...)
	b = strconv.AppendInt(b, int64(max(0, r.Tries-1)), 10)
	return append(b, " 0/0"...)
}

// appendClient appends an address with its port; HAProxy writes "unix:1" for one that
// has none.
func appendClient(b []byte, a net.Addr) []byte {
	if tcp, ok := a.(*net.TCPAddr); ok {
		b = tcp.AddrPort().Addr().Unmap().AppendTo(b)
		return strconv.AppendInt(append(b, ':'), int64(tcp.Port), 10)
	}
	return append(b, "unix:1"...)
}

// AppendMillis appends the time from one phase of a record to the next in milliseconds,
// or -1 if that was not reached.
// It is for package l7: see "Machinery" in the package documentation.
func AppendMillis(b []byte, from, to time.Duration) []byte {
	if to == 0 {
		return append(b, "-1"...)
	}
	return strconv.AppendInt(b, max(0, to-from).Milliseconds(), 10)
}

// AppendHashed appends s as HAProxy writes it in a log: bytes that are not printable
// ASCII, those that mean something in its lines, and those of more, as #XX.
// It is for package l7: see "Machinery" in the package documentation.
func AppendHashed(b []byte, s, more string) []byte {
	const digits = "0123456789ABCDEF"
	for i := range len(s) {
		switch c := s[i]; {
		case c < 0x20 || c > 0x7e, c == '"', c == '#', c == '{', c == '|', c == '}', strings.IndexByte(more, c) >= 0:
			b = append(b, '#', digits[c>>4], digits[c&15])
		default:
			b = append(b, c)
		}
	}
	return b
}

// AppendLogName appends a name, or "-" if it is empty, escaped so that it stays one
// column, and one part of a column, in a line of HAProxy's log.
//
// It is for package l7: see "Machinery" in the package documentation.
func AppendLogName(b []byte, name string) []byte { return AppendHashed(b, cmp.Or(name, "-"), " /") }
