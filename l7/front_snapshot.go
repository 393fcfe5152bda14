// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"slices"
	"time"

	"github.com/penstock-lb/penstock/l4"
)

// A snapshot is an exchange as it was handed over to a foreign handler, for exchanges
// inside to begin with. It must outlive the request, since they may begin late: a third
// of what a foreign handler costs was the memory of it. So it is a copy only if handlers
// outside have said something, and otherwise what the exchange was made of.
type snapshot struct {
	asked    asked
	origin   *origin
	start    time.Time
	last     Handler
	front    Front
	proto    int8
	trailers bool

	all *Exchange // nil if the fields above say all
}

// take makes n the snapshot of x, which came by a connection of that origin.
func (n *snapshot) take(x *Exchange, o *origin) {
	if !x.untold() || x.Remote != o.remote || x.Local != o.local || x.TLS != o.tls || x.proxied != o.proxied || x.ja4 != o.ja4 {
		all := *x
		all.down, all.lent, all.Header = nil, nil, Fields{own: slices.Clone(x.Header.own)}
		all.editors, all.filters = nil, nil
		all.values = slices.Clone(x.values)
		all.Record.Captured = slices.Clone(x.Record.Captured)
		n.all = &all
		return
	}
	n.asked, n.origin = x.asked, o
	n.start, n.last, n.front, n.proto, n.trailers = x.Record.Start, x.last, x.Record.Front, x.proto, x.trailers
}

// begin makes x, which is empty, the exchange as it was, without its header.
func (n *snapshot) begin(x *Exchange) {
	if n.all != nil {
		*x = *n.all
		x.values = slices.Clone(x.values)
		x.Record.Captured = slices.Clone(x.Record.Captured)
		return
	}
	a := n.asked
	x.from(n.origin)
	x.Method, x.Scheme, x.Host, x.Path, x.Query = a.method, a.scheme, a.host, a.path, a.query
	x.proto, x.last, x.trailers = n.proto, n.last, n.trailers
	x.begin(n.front)
	x.asked, x.Record.Start = a, n.start
}

// captured returns how many fields had been captured.
func (n *snapshot) captured() int {
	if n.all == nil {
		return 0
	}
	return len(n.all.Record.Captured)
}

// own returns the names of fields that were the gateway's own.
func (n *snapshot) own() []ownName {
	if n.all == nil {
		return nil
	}
	return slices.Clone(n.all.Header.own)
}

// untold reports whether x says only what is known of its connection and of the first
// line of its request: no handler has added to it.
func (x *Exchange) untold() bool {
	switch {
	case x.Client != x.Remote.Addr(), x.Scheme != x.asked.scheme, x.Path != x.asked.path, x.Query != x.asked.query,
		!x.Balance.IsZero(), x.ErrorPage != nil, len(x.Header.own) > 0,
		x.upgrade != "", x.wsKey != "", x.lastOne, x.expect, x.trailed != nil, len(x.values) > 0,
		x.buffered != nil, len(x.observers) > 0, x.holding != nil, x.cookie != nil, x.hedged != "",
		x.trusted, x.rfc7239, x.replied:
		return false
	}
	return x.Record.untold(x)
}

func (r *Record) untold(x *Exchange) bool {
	switch {
	case r.Remote != x.Remote, r.Local != x.Local, r.JA4 != x.ja4, r.Proto != x.protoName(),
		r.Method != x.asked.method, r.Host != x.asked.host, r.Path != x.asked.path, r.Query != x.asked.query,
		r.ID != "", r.Trace != "", r.User != "", r.Status != 0, r.GRPCStatus != "", r.Route != "", r.Pool != "", r.Server != "",
		r.Tries != 0, r.Persisted, r.Reused, r.BytesIn != 0, r.BytesOut != 0,
		r.Assigned != 0, r.Connected != 0, r.FirstByte != 0, r.Total != 0,
		len(r.Captured) > 0, r.Decision != "", r.Termination != l4.Termination{}, r.Err != nil:
		return false
	}
	return true
}
