// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"cmp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/penstock-lb/penstock/l4"
)

// AppendCLF appends the record to b as a line of the Common Log Format, without the
// end of the line:
//
//	192.0.2.1 - alice [10/Oct/2000:13:55:36 -0700] "GET /a?b HTTP/1.1" 200 2326
//
// Values from outside are escaped as Apache does: a quote, a backslash and bytes that
// are not printable ASCII as \", \\ and \xhh.
func (r *Record) AppendCLF(b []byte) []byte {
	if r.Remote.IsValid() {
		b = r.Remote.Addr().AppendTo(b)
	} else {
		b = append(b, '-')
	}
	b = append(b, " - "...)
	b = appendWord(b, r.User)
	b = append(b, " ["...)
	b = r.Start.AppendFormat(b, "02/Jan/2006:15:04:05 -0700")
	b = append(b, `] "`...)
	b = r.appendRequestLine(b, appendEscaped)
	b = append(b, `" `...)
	b = appendCode(b, r.Status)
	b = append(b, ' ')
	return strconv.AppendInt(b, r.BytesOut, 10)
}

// AppendCombined appends the record to b as a line of the Combined Log Format: AppendCLF
// with the request fields Referer and User-Agent. A record keeps no fields by itself:
// both are "-" unless the tree has a [Capture] of them.
//
//	... 200 2326 "https://a.example/" "curl/8.5"
//
//	&l7.Capture{Request: []string{"Referer", "User-Agent"}, Next: router}
func (r *Record) AppendCombined(b []byte) []byte {
	b = r.AppendCLF(b)
	for _, name := range [...]string{"Referer", "User-Agent"} {
		b = append(b, ` "`...)
		if v := r.captured(name); v != "" {
			b = appendEscaped(b, v)
		} else {
			b = append(b, '-')
		}
		b = append(b, '"')
	}
	return b
}

// captured returns the captured request field of that name.
func (r *Record) captured(name string) string {
	for i := range r.Captured {
		if c := &r.Captured[i]; !c.Reply && strings.EqualFold(c.Name, name) {
			return c.Value
		}
	}
	return ""
}

// AppendHAProxy appends the record to b as a line of HAProxy's HTTP log (option httplog),
// for tools that read such lines (halog, dashboards), without the syslog prefix:
//
//	192.0.2.1:33317 [06/Feb/2009:12:14:14.655] web static/srv1 0/10/30/69/109 200 2750 - - ---- 0/0/0/0/0 0/0 {a.example} {} "GET /a HTTP/1.1"
//
// Frontend is the name of the server that served the request. The five timers are in
// milliseconds, -1 if not reached: 0, since the time of the request head is part of the
// next one; the time until a server was chosen; the time of the connect; the time until
// the head of the reply; the total. The numbers of connections and of queued requests are
// not known, and so 0. The number of bytes is that of the reply's body. Values from
// outside are escaped as HAProxy does: as #XX.
func (r *Record) AppendHAProxy(b []byte, frontend string) []byte {
	if r.Remote.IsValid() {
		b = r.Remote.Addr().AppendTo(b)
		b = append(b, ':')
		b = strconv.AppendUint(b, uint64(r.Remote.Port()), 10)
	} else {
		b = append(b, "-:0"...)
	}
	b = append(b, " ["...)
	b = r.Start.AppendFormat(b, "02/Jan/2006:15:04:05.000")
	b = append(b, "] "...)
	b = l4.AppendLogName(b, frontend)
	b = append(b, ' ')
	b = l4.AppendLogName(b, cmp.Or(r.Pool, frontend))
	b = append(b, '/')
	b = l4.AppendLogName(b, cmp.Or(r.Server, "<NOSRV>"))
	b = append(b, " 0"...)
	for _, span := range [...][2]time.Duration{{0, r.Assigned}, {r.Assigned, r.Connected}, {r.Connected, r.FirstByte}, {0, max(r.Total, 1)}} {
		b = append(b, '/')
		b = l4.AppendMillis(b, span[0], span[1])
	}
	b = append(b, ' ')
	if r.Status == 0 {
		b = append(b, "-1"...)
	} else {
		b = strconv.AppendInt(b, int64(r.Status), 10)
	}
	b = append(b, ' ')
	b = strconv.AppendInt(b, r.BytesOut, 10)
	b = append(b, " - - "...)
	b = append(b, r.Termination.String()...)
	if r.Persisted {
		b = append(b, 'V')
	} else {
		b = append(b, '-')
	}
	b = append(b, "- 0/0/0/0/"...)
	b = strconv.AppendInt(b, int64(max(0, r.Tries-1)), 10)
	b = append(b, " 0/0"...)
	if len(r.Captured) > 0 {
		b = r.appendCaptured(b, false)
		b = r.appendCaptured(b, true)
	}
	b = append(b, ` "`...)
	b = r.appendRequestLine(b, func(b []byte, s string) []byte { return l4.AppendHashed(b, s, "") })
	return append(b, '"')
}

// appendCaptured appends the captured fields of the request, or of the reply.
func (r *Record) appendCaptured(b []byte, reply bool) []byte {
	b = append(b, " {"...)
	first := true
	for _, c := range r.Captured {
		if c.Reply != reply {
			continue
		}
		if !first {
			b = append(b, '|')
		}
		b, first = l4.AppendHashed(b, c.Value, ""), false
	}
	return append(b, '}')
}

// appendRequestLine appends the request line, or <BADREQ> if none could be
// parsed.
func (r *Record) appendRequestLine(b []byte, escape func([]byte, string) []byte) []byte {
	if r.Method == "" {
		return append(b, "<BADREQ>"...)
	}
	b = append(escape(b, r.Method), ' ')
	b = escape(escape(b, r.Path), r.Query)
	b = append(b, ' ')
	return append(b, r.Proto...)
}

func appendCode(b []byte, status int) []byte {
	if status == 0 {
		return append(b, '-')
	}
	return strconv.AppendInt(b, int64(status), 10)
}

// appendWord appends s as one word, or "-" if it is empty.
func appendWord(b []byte, s string) []byte {
	if s == "" {
		return append(b, '-')
	}
	at := len(b)
	b = appendEscaped(b, s)
	for i := at; i < len(b); i++ {
		if b[i] == ' ' {
			b[i] = '_'
		}
	}
	return b
}

const upperHex = "0123456789ABCDEF"

// appendEscaped appends s, escaped for use between quotes.
func appendEscaped(b []byte, s string) []byte {
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < 0x20 || c > 0x7e:
			b = append(b, '\\', 'x', upperHex[c>>4]|0x20, upperHex[c&15]|0x20)
		default:
			b = append(b, c)
		}
	}
	return b
}

// SampleRecords returns an OnDone hook that passes on one record in n, and each record of a
// request that ended with a status of 500 or more or a grpc-status that means the same, was
// cut, or failed because of a server or the gateway. If n is 1 or less it passes on all.
func SampleRecords(n int, hook func(*Record)) func(*Record) {
	if hook == nil {
		panic("l7: SampleRecords needs a hook")
	}
	var count atomic.Uint64
	return func(r *Record) {
		if n <= 1 || r.failed() || notable(r.Termination.Cause) || count.Add(1)%uint64(n) == 0 {
			hook(r)
		}
	}
}

// notable reports whether every sample includes an exchange that ended this way.
func notable(c l4.Cause) bool { return c.AtFault() || c == l4.Killed }
