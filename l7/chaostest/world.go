// SPDX-License-Identifier: Apache-2.0

package chaostest

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
)

// front is where the gateway serves.
const front = "10.9.9.9:80"

// maxFaults is how many faults of a story are kept.
const maxFaults = 5

// A World is what surrounds the gateway of one story. Its exported methods are for
// building that.
type World struct {
	plan    Plan
	net     *l4test.Network
	start   time.Time
	servers []*server
	clients [clients]*http.Transport
	asking  sync.WaitGroup
	serving sync.WaitGroup

	mu       sync.Mutex
	faults   []string
	pools    []*balance.Pool
	members  map[string]bool // endpoints that are in the pools
	cleanups []func()
	asked    int
	whole    map[string]int // how often a request of POST has reached servers whole
}

func newWorld(p Plan) *World {
	w := &World{plan: p, net: l4test.NewNetwork(), start: time.Now(), members: make(map[string]bool), whole: make(map[string]int)}
	for i := range p.Servers {
		s := &server{w: w, name: fmt.Sprintf("server-%d", i), addr: fmt.Sprintf("10.0.0.%d:80", i+1)}
		w.members[s.name] = true
		w.servers = append(w.servers, s)
		s.open()
	}
	for i := range w.clients {
		t := &http.Transport{DialContext: w.net.DialContext, DisableCompression: true, Protocols: new(http.Protocols)}
		t.Protocols.SetUnencryptedHTTP2(i%2 == 1)
		t.Protocols.SetHTTP1(i%2 == 0)
		w.clients[i] = t
	}
	return w
}

// Endpoints returns the servers.
func (w *World) Endpoints() (list []balance.Endpoint) {
	for _, s := range w.servers {
		if w.members[s.name] {
			list = append(list, balance.Endpoint{Name: s.name, Addr: s.addr})
		}
	}
	return list
}

// Dial connects to a server: the gateway must dial with it. It is a DialContext.
func (w *World) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := w.net.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	for _, s := range w.servers {
		if s.addr == addr {
			s.connected(c.(*l4test.Conn))
		}
	}
	return c, nil
}

// Pool has the story change the endpoints of a pool, drain its servers and put them in
// maintenance, and has it watched that no limit is exceeded and no lease left. The
// endpoints must be those of Endpoints, or of those a part or a variation.
func (w *World) Pool(p *balance.Pool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pools = append(w.pools, p)
}

// Cleanup has f called at the end of the story, behind Shutdown: it ends what the
// gateway keeps in the background, such as idle connections to servers, and checkers.
func (w *World) Cleanup(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cleanups = append(w.cleanups, f)
}

func (w *World) wrong(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.faults) < maxFaults {
		at := time.Since(w.start).Round(time.Millisecond)
		w.faults = append(w.faults, fmt.Sprintf("at %v: ", at)+fmt.Sprintf(format, args...))
	}
}

func (w *World) do(s step) {
	if s.kind == request {
		w.mu.Lock()
		w.asked++
		token := fmt.Sprintf("%d", w.asked)
		w.mu.Unlock()
		w.asking.Go(func() { w.ask(s.who, token, s.ask) })
		return
	}
	srv := w.servers[s.who]
	switch s.kind {
	case remove, restore:
		w.set(srv, s.kind == restore)
	case drain, maint, ready:
		w.steer(srv, s.kind)
	default:
		srv.suffer(s)
	}
}

// set takes a server out of the pools, or back in. A pool keeps what it was given of
// the others.
func (w *World) set(srv *server, in bool) {
	srv.trouble(!in, removed)
	if w.members[srv.name] == in {
		return
	}
	w.members[srv.name] = in
	for _, p := range w.pools {
		var list []balance.Endpoint
		for s := range p.All() {
			list = append(list, s.Endpoint())
		}
		if in {
			list = append(list, balance.Endpoint{Name: srv.name, Addr: srv.addr})
		} else {
			list = slices.DeleteFunc(list, func(e balance.Endpoint) bool { return e.Name == srv.name })
		}
		if err := p.Set(list...); err != nil {
			w.wrong("Set: %v", err)
		}
	}
}

func (w *World) steer(srv *server, k kind) {
	srv.trouble(k != ready, steered)
	for _, p := range w.pools {
		if s := p.Server(srv.name); s != nil {
			s.SetAdmin(map[kind]balance.Admin{drain: balance.Drain, maint: balance.Maint, ready: balance.Ready}[k], "the story says so")
		}
	}
}

// look checks what must hold at any time.
func (w *World) look() {
	for _, p := range w.pools {
		for s := range p.All() {
			if most := s.Endpoint().MaxConns; most > 0 && s.InFlight() > most {
				w.wrong("%s has %d in flight; MaxConns is %d", s.Name(), s.InFlight(), most)
			}
		}
	}
}

// end ends what the world, and the host, keep.
func (w *World) end() {
	for _, f := range slices.Backward(w.cleanups) {
		f()
	}
	for _, t := range w.clients {
		t.CloseIdleConnections()
	}
	for _, s := range w.servers {
		s.close()
	}
	w.serving.Wait()
}

// empty checks that nothing is left.
func (w *World) empty() {
	for _, p := range w.pools {
		for s := range p.All() {
			if n, q := s.InFlight(), s.Queued(); n != 0 || q != 0 {
				w.wrong("%s has %d in flight and %d waiting behind the end", s.Name(), n, q)
			}
		}
	}
	var twice []string
	for token, n := range w.whole {
		if n > 1 {
			twice = append(twice, token)
		}
	}
	if len(twice) > 0 {
		slices.Sort(twice)
		w.wrong("requests of POST that reached servers more than once: %s", strings.Join(twice, ", "))
	}
}
