// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/penstock-lb/penstock/balance"
)

// serveState serves everything as JSON.
func (h *Handler) serveState(w http.ResponseWriter, r *http.Request) {
	f, err := h.latest(r.Context())
	if err != nil {
		h.fail(w, r, err)
		return
	}
	body, err := h.cached(r.Context(), f, "state", func() ([]byte, error) { return json.Marshal(f.snap) })
	if err != nil {
		h.fail(w, r, err)
		return
	}
	send(w, "application/json", body)
}

// readTime is how long a viewer may take to read a piece of what is sent.
const readTime = 10 * time.Second

// send sends an answer piece by piece, each in readTime. Viewers who do not read would
// keep it in memory for as long as they like, under a server without a WriteTimeout.
func send(w http.ResponseWriter, kind string, body []byte) {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Length", itoa(len(body)))
	c := http.NewResponseController(w)
	for piece := range slices.Chunk(body, 64<<10) {
		_ = c.SetWriteDeadline(time.Now().Add(readTime)) // net/http takes it back after the request
		if _, err := w.Write(piece); err != nil {
			return
		}
	}
}

// cached returns the result for a key of f, or makes it. One request at a time makes a
// result; those that waited find it.
func (h *Handler) cached(ctx context.Context, f *frame, key string, make func() ([]byte, error)) ([]byte, error) {
	if b := f.made(key); b != nil {
		return b, nil
	}
	done, ok := h.turn(ctx)
	if !ok {
		return nil, context.Cause(ctx)
	}
	defer done()
	if b := f.made(key); b != nil {
		return b, nil
	}
	b, err := make()
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.pages) < framePages {
		f.pages[key] = b
	}
	return b, nil
}

func (f *frame) made(key string) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pages[key]
}

// serveServer serves one server, as a page or as JSON.
func (h *Handler) serveServer(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	s := h.find(q.Get("pool"), q.Get("name"))
	if s == nil {
		h.fail(w, r, &mistake{http.StatusNotFound, "there is no such server"})
		return
	}
	if asksHTML(r) {
		h.servePage(w, r)
		return
	}
	h.answerServer(w, r, q.Get("pool"), s, q, nil, h.turn)
}

// atOnce is a turn of operators who act: they do not queue up behind those who look.
func atOnce(context.Context) (done func(), ok bool) { return func() {}, true }

// answerServer serves a server as JSON, after the wait that the request asks for, which lasts
// until proof is true too, unless that is nil, and in its turn.
func (h *Handler) answerServer(w http.ResponseWriter, r *http.Request, pool string, s *balance.Server, q url.Values, proof func(*balance.Server) bool, turn func(context.Context) (func(), bool)) {
	status := http.StatusOK
	if what := q.Get("wait"); what != "" {
		until, timeout, err := parseWait(what, q.Get("timeout"))
		if err != nil {
			h.fail(w, r, err)
			return
		}
		leave, ok := h.enter(w)
		if !ok {
			return
		}
		defer leave()
		if proof != nil {
			state := until
			until = func(s *balance.Server) bool { return state(s) && proof(s) }
		}
		if !h.wait(r, s, until, timeout) {
			status = http.StatusGatewayTimeout
		}
	}
	done, ok := turn(r.Context())
	if !ok {
		return
	}
	v, ok := h.view(pool, s)
	done()
	if !ok {
		h.fail(w, r, &mistake{http.StatusNotFound, "the server has left"})
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// view returns a server as it is now, with the rates of the last frame, if there is one.
func (h *Handler) view(pool string, s *balance.Server) (v ServerView, ok bool) {
	p := h.findPool(pool)
	if p == nil {
		return v, false
	}
	for _, e := range p.Explain() {
		if e.Server != s {
			continue
		}
		st := s.Stats()
		v = h.server(pool, &e, &st)
		v.Conns = h.conns()[s]
		h.mu.Lock()
		f := h.last
		h.mu.Unlock()
		if old := f.server(pool, s.Name()); old != nil {
			v.Rate, v.ErrorShare, v.P50, v.P99, v.rates = old.Rate, old.ErrorShare, old.P50, old.P99, old.rates
		}
		return v, true
	}
	return v, false
}

// server returns a server of f, nil if there is none.
func (f *frame) server(pool, name string) *ServerView {
	if f == nil {
		return nil
	}
	for i := range f.snap.Pools {
		if p := &f.snap.Pools[i]; p.Name == pool {
			for j := range p.Servers {
				if p.Servers[j].Name == name {
					return &p.Servers[j]
				}
			}
		}
	}
	return nil
}

const (
	defaultWait = 30 * time.Second
	longestWait = time.Hour
	waitEvery   = 50 * time.Millisecond
)

// parseWait parses the state to wait for, and for how long.
func parseWait(what, timeout string) (until func(*balance.Server) bool, d time.Duration, err error) {
	switch what {
	case "drained":
		until = func(s *balance.Server) bool { return !s.Usable() && s.InFlight() == 0 }
	case "up":
		until = func(s *balance.Server) bool { return s.State() == balance.StateUp }
	case "down":
		until = func(s *balance.Server) bool { return s.State() == balance.StateDown }
	default:
		return nil, 0, badRequest("wait must be drained, up or down")
	}
	d = defaultWait
	if timeout != "" {
		if d, err = time.ParseDuration(timeout); err != nil || d <= 0 || d > longestWait {
			return nil, 0, badRequest("timeout must be a duration such as 30s, of an hour at most")
		}
	}
	return until, d, nil
}

// proof asks for a probe of s, and returns a func that reports whether one that ended after
// that has passed; always, where s is not probed. Being up is no proof by itself: a server
// that comes back from maintenance is what it was before, or what Initial of the checker says.
func (h *Handler) proof(s *balance.Server) func(*balance.Server) bool {
	since := time.Now()
	var asked []Prober
	for _, c := range h.Checks {
		if c.ProbeNow(s) {
			asked = append(asked, c)
		}
	}
	return func(s *balance.Server) bool {
		return !slices.ContainsFunc(asked, func(c Prober) bool {
			last, _, _, err := c.Probed(s)
			return err != nil || !last.After(since)
		})
	}
}

// wait waits until s is in that state; it is false if the timeout passes first.
func (h *Handler) wait(r *http.Request, s *balance.Server, until func(*balance.Server) bool, d time.Duration) bool {
	timeout, tick := time.NewTimer(d), time.NewTicker(waitEvery)
	defer timeout.Stop()
	defer tick.Stop()
	for !until(s) {
		select {
		case <-tick.C:
		case <-timeout.C:
			return until(s)
		case <-h.closed:
			return false
		case <-r.Context().Done():
			return false
		}
	}
	return true
}

// serveEvents streams the live part of a page whenever it changes.
func (h *Handler) serveEvents(w http.ResponseWriter, r *http.Request) {
	leave, ok := h.enter(w)
	if !ok {
		return
	}
	defer leave()
	w.Header().Set("Content-Type", "text/event-stream")
	c := http.NewResponseController(w)
	pause := time.NewTimer(0)
	defer pause.Stop()
	var last *frame
	for end := time.Now().Add(streamLife); time.Now().Before(end); {
		select {
		case <-pause.C:
		case <-h.closed:
			return
		case <-r.Context().Done():
			return
		}
		f, err := h.latest(r.Context())
		if err != nil {
			return
		}
		if f != last {
			body, err := h.live(r, f)
			if err != nil {
				return
			}
			text, _ := json.Marshal(string(body))
			_ = c.SetWriteDeadline(time.Now().Add(readTime)) // ends a stream that is not read
			if _, err := w.Write(append(append([]byte("data: "), text...), "\n\n"...)); err != nil || c.Flush() != nil {
				return
			}
			last = f
		}
		pause.Reset(max(time.Until(f.at.Add(h.interval())), 10*time.Millisecond))
	}
}

// streamLife is how long a stream lasts; the page then opens another one.
const streamLife = 10 * time.Minute
