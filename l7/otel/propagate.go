// SPDX-License-Identifier: Apache-2.0

package otel

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"strings"

	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/trace"

	"github.com/penstock-lb/penstock/l7"
)

// A parent is what the traceparent of a request says (W3C Trace Context, section 3.2).
type parent struct {
	valid   bool
	sampled bool
	flags   trace.TraceFlags
	trace   trace.TraceID
	span    trace.SpanID
}

// The parts of a traceparent: version, trace id, parent id, flags.
const (
	traceAt   = len("00-")
	spanAt    = traceAt + 32 + len("-")
	flagsAt   = spanAt + 16 + len("-")
	parentLen = flagsAt + 2
)

// parentOf returns the parent in h. If h has several, none is used.
func parentOf(h *l7.Fields) parent {
	v, ok := h.Lookup("Traceparent")
	if !ok {
		return parent{}
	}
	n := 0
	for range h.Values("Traceparent") {
		n++
	}
	if n > 1 {
		return parent{}
	}
	return parseParent(v)
}

func parseParent(v string) (p parent) {
	var version, flags [1]byte
	ok := len(v) >= parentLen && v[traceAt-1] == '-' && v[spanAt-1] == '-' && v[flagsAt-1] == '-' &&
		unhex(version[:], v[:traceAt-1]) && unhex(p.trace[:], v[traceAt:spanAt-1]) && unhex(p.span[:], v[spanAt:flagsAt-1]) && unhex(flags[:], v[flagsAt:parentLen])
	switch {
	case !ok, version[0] == 0xff, !p.trace.IsValid(), !p.span.IsValid():
		return parent{}
	case len(v) > parentLen && (version[0] == 0 || v[parentLen] != '-'): // section 4.3: later versions may have more parts
		return parent{}
	}
	p.valid = true
	p.flags = trace.TraceFlags(flags[0])
	p.sampled = p.flags.IsSampled()
	return p
}

// unhex decodes s, which must be in lower case.
func unhex(to []byte, s string) bool {
	for i := range to {
		hi, lo := digit(s[2*i]), digit(s[2*i+1])
		if hi > 15 || lo > 15 {
			return false
		}
		to[i] = hi<<4 | lo
	}
	return true
}

func digit(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	}
	return 0xff
}

// unsampled returns the traceparent of a new trace that is not sampled.
func unsampled() string {
	var ids [24]byte
	binary.LittleEndian.PutUint64(ids[:], rand.Uint64()|1) // neither id may be zero
	binary.LittleEndian.PutUint64(ids[8:], rand.Uint64())
	binary.LittleEndian.PutUint64(ids[16:], rand.Uint64()|1)
	return formatParent(ids[:16], ids[16:], 0)
}

func formatParent(traceID, spanID []byte, flags trace.TraceFlags) string {
	b := [parentLen]byte{0: '0', 1: '0', traceAt - 1: '-', spanAt - 1: '-', flagsAt - 1: '-'}
	hex.Encode(b[traceAt:], traceID)
	hex.Encode(b[spanAt:], spanID)
	hex.Encode(b[flagsAt:], []byte{byte(flags)})
	return string(b[:])
}

func formatSpan(sc trace.SpanContext) string {
	t, s := sc.TraceID(), sc.SpanID()
	return formatParent(t[:], s[:], sc.TraceFlags()&trace.FlagsSampled)
}

// into returns ctx with the baggage of the request, and with its parent unless ctx has a
// span already.
func (p *parent) into(ctx context.Context, h *l7.Fields) context.Context {
	if p.valid && !trace.SpanContextFromContext(ctx).IsValid() {
		c := trace.SpanContextConfig{TraceID: p.trace, SpanID: p.span, TraceFlags: p.flags, Remote: true}
		if state, err := trace.ParseTraceState(joined(h, "Tracestate")); err == nil {
			c.TraceState = state
		}
		ctx = trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(c))
	}
	if v := joined(h, "Baggage"); v != "" {
		if b, err := baggage.Parse(v); err == nil {
			ctx = baggage.ContextWithBaggage(ctx, b)
		}
	}
	return ctx
}

// out writes the span of a request into the fields to be forwarded.
func (p *parent) out(h *l7.Fields, sc trace.SpanContext) {
	if !sc.IsValid() {
		return // a no-op tracer
	}
	h.Set("Traceparent", formatSpan(sc))
	if state := sc.TraceState(); state.Len() > 0 {
		h.Set("Tracestate", state.String())
	} else {
		h.Del("Tracestate")
	}
}

// joined returns the lines of a list field as one.
func joined(h *l7.Fields, name string) string {
	var lines []string
	for v := range h.Values(name) {
		lines = append(lines, v)
	}
	return strings.Join(lines, ",")
}
