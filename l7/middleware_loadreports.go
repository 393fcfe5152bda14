// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7/internal/orca"
)

// LoadReports reads from replies what servers say of their own load, and hands it to the
// server ([balance.Server.ReportLoad]), where a [balance.Scored] and the host find it. The
// fields are those of Open Request Cost Aggregation (ORCA), as LLM servers, gRPC servers and
// applications behind Envoy send them:
//
//	Endpoint-Load-Metrics: TEXT cpu_utilization=0.3, named_metrics.kv_cache_usage_perc=0.8
//	Endpoint-Load-Metrics: JSON {"cpu_utilization": 0.3, "named_metrics": {"kv_cache_usage_perc": 0.8}}
//	Endpoint-Load-Metrics: BIN base64 of the message in protobuf
//	Endpoint-Load-Metrics-Bin: the same base64
//
// They may be in the header or, as those of gRPC are, in the trailer. The names of the
// numbers are those of the text form, whichever form is used. The costs of the single request
// (request_cost) are not taken. A report that is malformed is ignored.
//
// A server that gets no requests reports nothing, so its numbers grow old; see MaxAge of
// [balance.Scored].
type LoadReports struct {
	// Ask adds "Endpoint-Load-Metrics-Format: TEXT" to requests. Servers such as vLLM and
	// Triton report only if they are asked; others report unasked.
	Ask bool
	// Keep leaves the fields in replies. By default clients do not see them, as they
	// say how busy the servers are.
	Keep bool

	Next http.Handler

	checked
}

const (
	loadField       = "Endpoint-Load-Metrics"
	loadFieldBin    = "Endpoint-Load-Metrics-Bin"
	loadFieldFormat = "Endpoint-Load-Metrics-Format"
)

// ServeHTTP implements [http.Handler].
func (h *LoadReports) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(h, w, r) }

// ServeExchange implements [Handler].
func (h *LoadReports) ServeExchange(x *Exchange) {
	if h.Ask {
		x.Header.Set(loadFieldFormat, "TEXT")
	}
	x.OnReply(h)
	x.trailed = h
	Serve(h.Next, x)
}

// EditReply implements [ReplyEditor].
func (h *LoadReports) EditReply(_ *Exchange, r *Reply) {
	if !reportsLoad(&r.Header) {
		return
	}
	if r.Server != nil {
		h.report(r.Server, &r.Header)
	}
	h.strip(&r.Header)
}

// EditInterim implements [InterimEditor]: clients must not see the fields there either.
func (h *LoadReports) EditInterim(_ *Exchange, r *Reply) { h.strip(&r.Header) }

func reportsLoad(f *Fields) bool { return f.Has(loadField) || f.Has(loadFieldBin) }

// editTrailer implements trailerEditor.
func (h *LoadReports) editTrailer(s *balance.Server, trailer *Fields) *Fields {
	if !reportsLoad(trailer) {
		return trailer
	}
	h.report(s, trailer)
	rest := trailer.Clone()
	h.strip(&rest)
	return &rest
}

// report hands on what f says.
func (h *LoadReports) report(s *balance.Server, f *Fields) {
	var buf [16]balance.Load
	loads := buf[:0]
	for v := range f.Values(loadField) {
		loads, _ = orca.Parse(loads, v)
	}
	for v := range f.Values(loadFieldBin) {
		loads, _ = orca.ParseBinary(loads, v)
	}
	if len(loads) > 0 {
		s.ReportLoad(loads...)
	}
}

func (h *LoadReports) strip(f *Fields) {
	if !h.Keep {
		f.Del(loadField)
		f.Del(loadFieldBin)
	}
}

// Check returns what is wrong with h and its handler.
func (h *LoadReports) Check() error { return checkAll(h) }

func (h *LoadReports) check(c *checks) {
	c.next("LoadReports.Next", h.Next)
}
