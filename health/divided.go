// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/balance"
)

// Divided is a [Probe] for a fleet of gateways that all use the same servers: each server is
// probed by a few of the gateways, and the others are told what they found.
//
//	checker := &health.Checker{
//		Pools: []*balance.Pool{pool},
//		Probe: &health.Divided{Of: health.HTTP{Path: "/healthz"}, Share: share, Board: board},
//	}
//
// With a hundred gateways a server is then probed twice in an interval instead of a hundred times. Each
// gateway counts rise and fall by itself, as if it had probed, and what was found counts
// once for each: a gateway that finds nothing new on the board, as the others have gone or the board is
// away, probes itself. So the board may be lost at any time.
//
// The price is that a gateway may believe in a server that only it cannot reach; let live
// traffic count too ([Observe], [Outlier]). Without a Board, or where each gateway uses a [balance.Portion]
// of the servers, each had better probe its own: leave Divided out.
//
// The fields must not change after first use.
type Divided struct {
	Of    Probe          // what is divided; nil means TCP{}
	Share *balance.Share // which gateway this is, of how many
	Board Board          // where the gateways tell each other
	Each  int            // gateways that probe each server; 0 means 2
	Fresh time.Duration  // how old what is told may be; 0 means 5s. It should be twice Checker.Interval or more

	Logger *slog.Logger // told when the board goes and comes back; nil means slog.Default()

	mu    sync.Mutex // guards the rest
	told  map[string]Told
	used  map[string]uint64 // the Told.ID that has counted last, by server
	asked time.Time         // when told was asked for
	pause time.Time         // the board has failed: until when it is left alone
	gone  bool
	busy  chan struct{} // told is being asked for; closed when it is there
}

// A Board is where gateways tell each other what their probes have found. Its methods may
// be called at once. A [MemoryBoard] is one for tests; package health/redisboard has one in Redis.
type Board interface {
	// Tell makes known what was found of the server of that name.
	Tell(ctx context.Context, server string, t Told) error

	// All returns what was told in the last span of that length, the latest of each server.
	All(ctx context.Context, span time.Duration) (map[string]Told, error)
}

// Told is what a gateway has found of a server.
type Told struct {
	ID   uint64 // differs from one finding to the next
	Code Code   // CodeOK if the server is well
	Text string // else what was found
	By   string // the gateway
}

// Check returns what is wrong with d and its probe. The [Checker] that uses d calls it.
func (d *Divided) Check() error {
	var m penstock.Mistakes
	if d.Of != nil {
		m.Need("Divided.Of", d.Of, "must be left out, or hold a probe: there is a nil pointer in it")
	}
	m.In("Divided.Of", d.Of)
	m.Need("Divided.Share", d.Share, "must say which gateway this is")
	m.In("Divided.Share", d.Share)
	m.Need("Divided.Board", d.Board, "must be the Board that the gateways share")
	m.In("Divided.Board", d.Board)
	m.If(d.Each < 0, "Divided.Each", d.Each, notNegative)
	m.If(d.Fresh < 0, "Divided.Fresh", d.Fresh, notNegative)
	return m.Err()
}

// The board is asked at most once in boardPause, and for boardTimeout at most.
const (
	boardPause   = time.Second
	boardTimeout = 250 * time.Millisecond
)

// Probe probes e if that is this gateway's part, or if no other has told of it, and
// tells the others. Else it returns what another has found.
func (d *Divided) Probe(ctx context.Context, e balance.Endpoint) error {
	name := e.Name
	if name == "" {
		name = e.Addr
	}
	if !d.mine(name) {
		if t, ok := d.news(ctx, name); ok {
			return t.err()
		}
	}
	probe := d.Of
	if probe == nil {
		probe = TCP{}
	}
	err := probe.Probe(ctx, e)
	if CodeOf(err) != CodeInternal { // which says nothing of the server
		d.tell(ctx, name, err)
	}
	return err
}

// mine reports whether this gateway is one of those that probe the server of that name.
func (d *Divided) mine(name string) bool {
	gateways, self := d.Share.Count(), d.Share.Index()
	first := int(balance.Hash(name) % uint64(gateways))
	return (self-first+gateways)%gateways < or(d.Each, 2)
}

// news returns what another gateway has found of a server and did not count yet.
func (d *Divided) news(ctx context.Context, name string) (Told, bool) {
	if !d.listen(ctx) {
		return Told{}, false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	t, ok := d.told[name]
	if !ok || t.By == d.Share.Self || d.used[name] == t.ID {
		return Told{}, false
	}
	if d.used == nil {
		d.used = make(map[string]uint64)
	}
	d.used[name] = t.ID
	return t, true
}

// listen asks the board if its last answer is older than boardPause, and reports whether
// there is a recent answer. One caller asks, and the others wait for it.
func (d *Divided) listen(ctx context.Context) bool {
	for {
		d.mu.Lock()
		now := time.Now()
		if now.Before(d.pause) || !d.asked.IsZero() && now.Sub(d.asked) < boardPause {
			ok := !now.Before(d.pause)
			d.mu.Unlock()
			return ok
		}
		busy := d.busy
		if busy == nil {
			d.busy = make(chan struct{})
			d.mu.Unlock()
			d.ask(ctx)
			continue
		}
		d.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return false
		}
	}
}

// ask asks the board.
func (d *Divided) ask(ctx context.Context) {
	var all map[string]Told
	err := d.onBoard(ctx, func(ctx context.Context) (err error) {
		all, err = d.Board.All(ctx, or(d.Fresh, 5*time.Second))
		return err
	})
	d.heard(err)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		d.told, d.asked = all, time.Now()
		for name := range d.used {
			if _, ok := all[name]; !ok {
				delete(d.used, name)
			}
		}
	}
	close(d.busy)
	d.busy = nil
}

// tell tells the others of err, unless the board is away.
func (d *Divided) tell(ctx context.Context, name string, err error) {
	d.mu.Lock()
	away := time.Now().Before(d.pause)
	d.mu.Unlock()
	if away || d.Share.Count() == 1 {
		return
	}
	t := Told{By: d.Share.Self, ID: uint64(time.Now().UnixNano()) ^ balance.Hash(d.Share.Self)}
	if e := AsError(err); e != nil {
		t.Code, t.Text = e.Code, printable(e.Error())
	}
	d.heard(d.onBoard(context.WithoutCancel(ctx), func(ctx context.Context) error { return d.Board.Tell(ctx, name, t) }))
}

// onBoard has f use the board, which may panic.
func (d *Divided) onBoard(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, boardTimeout)
	defer cancel()
	return askGuarded(ctx, d.logger(), f)
}

// heard notes how the board answered.
func (d *Divided) heard(err error) {
	d.mu.Lock()
	changed := d.gone != (err != nil)
	d.gone = err != nil
	if err != nil {
		d.pause = time.Now().Add(boardPause)
	}
	d.mu.Unlock()
	switch {
	case !changed:
	case err != nil:
		d.logger().Warn("health: the board is away: this gateway probes all servers", "error", err)
	default:
		d.logger().Info("health: probes are divided again")
	}
}

func (d *Divided) logger() *slog.Logger {
	if d.Logger != nil {
		return d.Logger
	}
	return slog.Default()
}

// err returns t as the error of a probe.
func (t *Told) err() error {
	if t.Code == CodeOK {
		return nil
	}
	return &Error{Code: t.Code, Text: printable(t.By + ": " + t.Text)}
}

// A MemoryBoard is a [Board] for gateways in one process, in tests say. The zero
// MemoryBoard is ready to use.
type MemoryBoard struct {
	mu   sync.Mutex
	told map[string]toldAt
}

type toldAt struct {
	Told
	at time.Time
}

// Tell implements [Board].
func (b *MemoryBoard) Tell(_ context.Context, server string, t Told) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.told == nil {
		b.told = make(map[string]toldAt)
	}
	b.told[server] = toldAt{t, time.Now()}
	return nil
}

// All implements [Board]. What is older is forgotten.
func (b *MemoryBoard) All(_ context.Context, span time.Duration) (map[string]Told, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make(map[string]Told, len(b.told))
	for server, t := range b.told {
		if time.Since(t.at) > span {
			delete(b.told, server)
		} else {
			all[server] = t.Told
		}
	}
	return all, nil
}
