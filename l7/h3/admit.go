// SPDX-License-Identifier: Apache-2.0

package h3

import (
	"context"
	"errors"
	"net"
	"sync/atomic"

	"github.com/quic-go/quic-go"

	"github.com/penstock-lb/penstock/l7"
)

// Stats are figures of a Front, in addition to those of its Server, which include its
// connections and requests. All but Open and Handshaking only grow.
type Stats struct {
	Open        int    // connections, handshakes in progress included
	Handshaking int    // handshakes in progress
	Retries     uint64 // clients that had to show that they receive at their address
	Refused     uint64 // packets that would have begun a connection above Server.MaxConns; a client sends a few
	Early       uint64 // requests that were served before the end of the handshake
	TooEarly    uint64 // requests answered 425
	Migrations  uint64 // changes of a client's address that a request has shown
	GoAways     uint64 // frames sent
}

type figures struct {
	shaking, open                                                atomic.Int64
	retries, refused, earlyServed, tooEarly, migrations, goAways atomic.Uint64
}

// Stats returns the figures of f.
func (f *Front) Stats() Stats {
	return Stats{
		Open: int(f.open.Load()), Handshaking: int(f.shaking.Load()), Retries: f.retries.Load(), Refused: f.refused.Load(),
		Early: f.earlyServed.Load(), TooEarly: f.tooEarly.Load(), Migrations: f.migrations.Load(), GoAways: f.goAways.Load(),
	}
}

// mustRetry reports whether a client has to show its address first.
func (f *Front) mustRetry(net.Addr) bool {
	limit := int64(f.RetryAbove)
	if limit == 0 {
		limit = defaultRetryAbove
	}
	if limit < 0 || f.shaking.Load() < limit {
		return false
	}
	f.retries.Add(1)
	return true
}

// A place is a connection as the Server counts it, from its first packet on.
type place struct {
	*l7.FrontConn
	served atomic.Bool // its conn ends it
	shaken atomic.Bool // its handshake has ended
}

type seatKey struct{}

var errFull = errors.New("h3: too many connections")

// admit is called for the first packet of a connection. The context ends with it.
func (f *Front) admit(ctx context.Context, _ *quic.ClientInfo) (context.Context, error) {
	seat, ok := f.attach.NewConn()
	if !ok {
		f.refused.Add(1)
		return nil, errFull
	}
	p := &place{FrontConn: seat}
	f.open.Add(1)
	f.shaking.Add(1)
	ctx = context.WithValue(ctx, seatKey{}, p)
	context.AfterFunc(ctx, func() {
		f.shaken(ctx, false)
		f.open.Add(-1)
		if !p.served.Load() {
			p.End()
		}
	})
	return ctx, nil
}

// shaken counts the end of a handshake, once.
func (f *Front) shaken(ctx context.Context, ok bool) {
	if p, is := ctx.Value(seatKey{}).(*place); is && !p.shaken.Swap(true) {
		f.shaking.Add(-1)
		p.Handshaken(ok)
	}
}
