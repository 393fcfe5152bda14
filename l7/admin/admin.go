// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path"
	"sync"
	"time"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/internal/figures"
	"github.com/penstock-lb/penstock/ratelimit"
)

// A Handler is the page, the JSON and the actions of a gateway; see the package comment.
// The fields must not change once it serves. It may serve any number of requests at once.
type Handler struct {
	Title   string                // of the page; "" means "penstock"
	Pools   []*balance.Pool       // identified by their Name, or by their position: "pool 1"
	Routers map[string]*l7.Router // by a name for them
	Limits  map[string]Limit      // by a name for them
	Servers map[string]Server     // what accepts connections, by a name for it

	Upstreams []*l7.Upstream // whose connections are shown with the servers
	Checks    []Prober       // such as *health.Checker: their results are shown, and probes can be requested
	Outliers  []Returner     // such as *health.Outlier: ejections can be ended

	// Allow reports whether a request may perform actions. Nil allows none. It has to
	// authenticate the operator, by a login or a client certificate, or by address as
	// [Local] does. Cross-origin requests of browsers are refused before
	// ([http.CrossOriginProtection]).
	Allow func(r *http.Request) bool

	OnAction func(Action)  // called for each allowed action, also if it failed; must not block
	Logger   *slog.Logger  // logs the same, and denied actions; nil means slog.Default()
	Interval time.Duration // between two readings while a page is open; 0 means 1s
	Streams  int           // live pages and waits at once; more get 503; 0 means 64, negative means no limit

	once     sync.Once
	wrong    error              // the result of Check
	errors   *template.Template // as parsed once, for error pages; nil with noErrors
	noErrors error
	acts     balance.PerServer[acts]
	closed   chan struct{} // by Close
	close    sync.Once
	slots    chan struct{} // of Streams; nil means no limit
	render   chan struct{} // held while a page is made
	cross    http.CrossOriginProtection

	denials denials

	mu       sync.Mutex
	last     *frame
	stale    bool          // last does not show the latest action
	building chan struct{} // closed when the frame that is being built has become last; nil if none is
	memory   memory        // used by the goroutine that builds a frame
}

// A Limit is a limiter with figures: *ratelimit.Limiter, Keyed, Shared, Concurrency,
// Adaptive and Bandwidth. Of Keyed, those of addresses and of strings can be made to forget a
// key, and others that are put into [Keys].
type Limit interface{ Stats() ratelimit.Stats }

// A Server accepts connections: *l4.Server and *l7.Server, whose Stats are shown too.
type Server interface{ Open() int }

// A Prober knows the results of probes, as *health.Checker does. Unknown values of a
// server are zero.
type Prober interface {
	Probed(s *balance.Server) (last time.Time, took time.Duration, next time.Time, err error)
	ProbeNow(s *balance.Server) bool
}

// A Returner ends ejections, as *health.Outlier does.
type Returner interface {
	Return(s *balance.Server, reason string) bool
}

// Keys makes a Keyed by keys of any type a Limit that can forget one.
type Keys[K comparable] struct {
	*ratelimit.Keyed[K]
	Parse func(text string) (K, error) // parses the key that an operator has entered
}

// ForgetText drops the state of a key.
func (k Keys[K]) ForgetText(text string) error {
	key, err := k.Parse(text)
	if err == nil {
		k.Forget(key)
	}
	return err
}

// Check returns what is wrong with k.
func (k Keys[K]) Check() error {
	var m penstock.Mistakes
	m.Need("Keys.Keyed", k.Keyed, "must be a limiter")
	m.Need("Keys.Parse", k.Parse, "must be a func")
	m.In("Keys.Keyed", k.Keyed)
	return m.Err()
}

// Check returns what is wrong with h, and with its pools, routers and limits.
func (h *Handler) Check() error {
	var m penstock.Mistakes
	m.If(h.Interval < 0, "Handler.Interval", h.Interval, "must not be negative")
	figures.Set[Limit, Server, Prober]{
		Pools: h.Pools, Routers: h.Routers, Limits: h.Limits, Servers: h.Servers, Upstreams: h.Upstreams, Checks: h.Checks,
	}.Check(&m, "Handler")
	for i, o := range h.Outliers {
		m.Need("Handler.Outliers["+itoa(i)+"]", o, "must be an outlier detector")
		m.In("Handler.Outliers["+itoa(i)+"]", o)
	}
	return m.Err()
}

// Local is an Allow for operators who are logged in on the gateway's machine. It allows a
// request that came from a loopback address and whose Host is one, or localhost. (The
// Host excludes pages of other sites whose name resolves to 127.0.0.1.) It must not be
// used behind a proxy on the same machine.
func Local(r *http.Request) bool {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !from.Addr().Unmap().IsLoopback() {
		return false
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if host == "localhost" {
		return true
	}
	to, err := netip.ParseAddr(trimBrackets(host))
	return err == nil && to.Unmap().IsLoopback()
}

func (h *Handler) init() {
	h.once.Do(func() {
		h.wrong = h.Check()
		h.errors, h.noErrors = h.templates(time.Time{})
		h.closed = make(chan struct{})
		h.render = make(chan struct{}, 1)
		streams := h.Streams
		if streams == 0 {
			streams = 64
		}
		if streams > 0 {
			h.slots = make(chan struct{}, streams)
		}
		h.memory.servers = make(map[*balance.Server]*past)
		h.memory.totals = make(map[string]mark)
		h.memory.lately = make(map[string]*window)
	})
}

// Close ends all current and future streams and waits, so that the shutdown of a server does
// not wait for them. The rest of the handler keeps working.
//
//	server.RegisterOnShutdown(page.Close)
func (h *Handler) Close() {
	h.init()
	h.close.Do(func() { close(h.closed) })
}

func (h *Handler) interval() time.Duration {
	if h.Interval == 0 {
		return time.Second
	}
	return h.Interval
}

func (h *Handler) logger() *slog.Logger {
	if h.Logger != nil {
		return h.Logger
	}
	return slog.Default()
}

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.init()
	head := w.Header()
	head.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	head.Set("X-Content-Type-Options", "nosniff")
	head.Set("Referrer-Policy", "same-origin")
	head.Set("Cache-Control", "no-store")
	if h.wrong != nil {
		http.Error(w, h.wrong.Error(), http.StatusInternalServerError)
		return
	}
	name := path.Base(r.URL.Path)
	if r.URL.Path == "" || r.URL.Path[len(r.URL.Path)-1] == '/' {
		name = ""
	}
	if name == "action" {
		h.serveAction(w, r)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		head.Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	switch name {
	case "":
		h.servePage(w, r)
	case "server":
		h.serveServer(w, r)
	case "state":
		h.serveState(w, r)
	case "schema":
		asset(w, "application/schema+json", "schema.json")
	case "explain":
		h.serveExplain(w, r)
	case "events":
		h.serveEvents(w, r)
	case "style.css":
		asset(w, "text/css; charset=utf-8", name)
	case "page.js":
		asset(w, "text/javascript; charset=utf-8", name)
	default:
		http.NotFound(w, r)
	}
}

// enter takes a slot of Streams, or answers 503.
func (h *Handler) enter(w http.ResponseWriter) (leave func(), ok bool) {
	if h.slots == nil {
		return func() {}, true
	}
	select {
	case h.slots <- struct{}{}:
		return func() { <-h.slots }, true
	default:
		w.Header().Set("Retry-After", "10")
		http.Error(w, "too many live pages are open: the page works, but does not update itself", http.StatusServiceUnavailable)
		return nil, false
	}
}

// turn waits until this request may make a page; it is false if ctx ends first. The next
// turn comes after a rest as long as this one, so that those who look take half a core at
// most, however many they are and whatever they ask for.
func (h *Handler) turn(ctx context.Context) (done func(), ok bool) {
	select {
	case h.render <- struct{}{}:
		start := time.Now()
		return func() { time.AfterFunc(time.Since(start), func() { <-h.render }) }, true
	case <-ctx.Done():
		return nil, false
	}
}
