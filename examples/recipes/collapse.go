// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// Collapse lets requests for one page that come while its reply is on its way share that
// reply, so that a popular page which has just expired costs the servers one request and not
// a thousand. It is no cache: a request that comes later is passed on.
//
// Shared are replies of 200 to GET requests without a cookie, a login, a condition or a range,
// up to MaxBytes, unless they set a cookie or say that they are private. All other requests
// are passed on, and so are those that waited for a reply which turned out not to be for all.
type Collapse struct {
	MaxBytes int // of a reply that is shared; it is held in memory until it is complete
	Next     http.Handler

	mu      sync.Mutex
	flights map[string]*flight
}

// flight is a request whose reply others wait for.
type flight struct {
	done  chan struct{} // closed when the rest is known
	reply *held         // for all; nil if there is none
	lost  bool          // the client left: another request must be first
}

// ServeHTTP implements http.Handler.
func (c *Collapse) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key, ok := collapseKey(r)
	for ok {
		f, first := c.join(key)
		if first {
			c.lead(key, f, w, r)
			return
		}
		select {
		case <-f.done:
		case <-r.Context().Done():
			return
		}
		if f.reply != nil {
			f.reply.replay(w)
			return
		}
		ok = f.lost
	}
	c.Next.ServeHTTP(w, r)
}

// join returns the flight of key, and whether it begins with this call.
func (c *Collapse) join(key string) (f *flight, first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f = c.flights[key]; f != nil {
		return f, false
	}
	if c.flights == nil {
		c.flights = make(map[string]*flight)
	}
	f = &flight{done: make(chan struct{})}
	c.flights[key] = f
	return f, true
}

// land ends a flight. Only the first call counts.
func (c *Collapse) land(key string, f *flight, reply *held, lost bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.flights[key] != f {
		return
	}
	delete(c.flights, key)
	f.reply, f.lost = reply, lost
	close(f.done)
}

// lead asks for the reply that all wait for.
func (c *Collapse) lead(key string, f *flight, w http.ResponseWriter, r *http.Request) {
	h := &held{w: w, room: c.MaxBytes, alone: func() { c.land(key, f, nil, false) }}
	defer func() { c.land(key, f, nil, r.Context().Err() != nil) }() // nothing to share: a panic, or the client has left
	c.Next.ServeHTTP(h, r)
	if h.status == 0 {
		h.WriteHeader(http.StatusOK)
	}
	if h.passing || r.Context().Err() != nil {
		return
	}
	c.land(key, f, h, false)
	h.replay(w)
}

// collapseKey returns what requests must have in common to get the same reply, and false for
// those that may not share one.
func collapseKey(r *http.Request) (string, bool) {
	if r.Method != http.MethodGet || r.ContentLength != 0 {
		return "", false
	}
	key := []string{r.Host, r.URL.RequestURI()}
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		switch name {
		case "Authorization", "Cookie", "Range", "If-Range", "If-None-Match", "If-Modified-Since", "If-Match", "If-Unmodified-Since", "Upgrade":
			return "", false
		case "Accept", "Accept-Encoding", "Accept-Language":
			key = append(key, name+": "+strings.Join(r.Header[name], ","))
		}
	}
	return strings.Join(key, "\n"), true
}

// held keeps a reply until it is complete, as long as it may be for all.
type held struct {
	w       http.ResponseWriter
	header  http.Header
	status  int
	body    []byte
	room    int    // bytes that body may have
	alone   func() // called once it is known that the reply is for the first request alone
	passing bool   // and goes to its client
}

// Header implements http.ResponseWriter.
func (h *held) Header() http.Header { return h.w.Header() }

// WriteHeader implements http.ResponseWriter.
func (h *held) WriteHeader(status int) {
	if status < 200 {
		h.w.WriteHeader(status)
		return
	}
	if h.status != 0 {
		return
	}
	h.status, h.header = status, h.w.Header().Clone()
	if !forAll(status, h.header) {
		h.pass()
	}
}

// Write implements http.ResponseWriter.
func (h *held) Write(b []byte) (int, error) {
	if h.status == 0 {
		h.WriteHeader(http.StatusOK)
	}
	if !h.passing && len(h.body)+len(b) <= h.room {
		h.body = append(h.body, b...)
		return len(b), nil
	}
	h.pass()
	return h.w.Write(b)
}

// FlushError is for http.ResponseController: a reply that is sent as it is made, such as a
// stream of events, is not shared.
func (h *held) FlushError() error {
	if h.status == 0 {
		h.WriteHeader(http.StatusOK)
	}
	h.pass()
	return http.NewResponseController(h.w).Flush()
}

// Flush implements http.Flusher.
func (h *held) Flush() { _ = h.FlushError() }

// pass sends what was kept, and lets the rest go to the client as it comes.
func (h *held) pass() {
	if h.passing {
		return
	}
	h.passing = true
	h.alone()
	h.w.WriteHeader(h.status)
	if len(h.body) > 0 {
		_, _ = h.w.Write(h.body)
		h.body = nil
	}
}

// replay writes the reply to a client.
func (h *held) replay(w http.ResponseWriter) {
	maps.Copy(w.Header(), h.header)
	w.WriteHeader(h.status)
	_, _ = w.Write(h.body)
}

// forAll reports whether a reply with that head may go to several clients (RFC 9111, section 3).
func forAll(status int, header http.Header) bool {
	control := strings.ToLower(strings.Join(header.Values("Cache-Control"), ","))
	if status != http.StatusOK || header["Set-Cookie"] != nil || header["Trailer"] != nil || strings.Contains(control, "private") || strings.Contains(control, "no-store") {
		return false
	}
	for _, name := range strings.Split(strings.Join(header.Values("Vary"), ","), ",") {
		switch http.CanonicalHeaderKey(strings.TrimSpace(name)) {
		case "", "Accept", "Accept-Encoding", "Accept-Language": // which the key has
		default:
			return false
		}
	}
	return true
}
