// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7/internal/figures"
)

// An Action is an action of an operator, successful or not.
type Action struct {
	At       time.Time
	Do       string // "drain", and so on: see the package comment
	Pool     string // and Server: its target; empty for "forget"
	Server   string
	Limit    string // and Key: of "forget"
	Key      string
	Value    string        // of "weight" and "maxconns"
	Deadline time.Duration // of "drain"; 0 means none
	Reason   string        // without control characters, 200 of them at most
	Err      error         // why it failed; nil if it succeeded
	Request  *http.Request // the request of the action; valid only during OnAction
}

// acts are the actions on one server.
type acts struct {
	mu       sync.Mutex
	last     *ActionView
	deadline time.Time // of a drain
	timer    *time.Timer
}

func (a *acts) read() (last *ActionView, deadline *time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.last, moment(a.deadline)
}

// note records an action. One that changes the admin state ends the deadline of an
// earlier drain.
func (a *acts) note(v *ActionView, deadline time.Duration, cut func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last = v
	switch v.Do {
	case "ready", "drain", "maint":
	default:
		return
	}
	if a.timer != nil {
		a.timer.Stop()
	}
	a.timer, a.deadline = nil, time.Time{}
	if deadline > 0 {
		a.deadline = v.At.Add(deadline)
		a.timer = time.AfterFunc(deadline, cut)
	}
}

// A mistake is an error in a request.
type mistake struct {
	status int
	text   string
}

func (m *mistake) Error() string { return m.text }

func badRequest(format string, args ...any) error {
	return &mistake{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

// fail answers an error.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	status := http.StatusInternalServerError
	if m, ok := errors.AsType[*mistake](err); ok {
		status = m.status
	}
	if r.Context().Err() != nil {
		return
	}
	if asksHTML(r) {
		h.errorPage(w, status, err.Error())
		return
	}
	http.Error(w, err.Error(), status)
}

// maxForm bounds the form of an action.
const maxForm = 64 << 10

// serveAction performs an action, if it is allowed.
func (h *Handler) serveAction(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", "POST")
		http.Error(w, "actions are sent by POST", http.StatusMethodNotAllowed)
		return
	}
	if err := h.allowed(r); err != nil {
		if ok, left := h.denials.allow(time.Now().Unix()); ok {
			h.logger().Warn("admin action denied", "remote", r.RemoteAddr, "reason", err, "left_out", left)
		}
		h.fail(w, r, err)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		h.fail(w, r, badRequest("not a form: %v", err))
		return
	}
	a, s, err := h.act(r)
	if a.Err = err; err != nil { // the names may be of nothing
		a.Pool, a.Server, a.Limit = plain(a.Pool), plain(a.Server), plain(a.Limit)
	}
	h.tell(a)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.spoil()
	if s == nil {
		if asksHTML(r) {
			http.Redirect(w, r, "./", http.StatusSeeOther)
		} else {
			w.WriteHeader(http.StatusNoContent)
		}
		return
	}
	if asksHTML(r) {
		http.Redirect(w, r, "server?"+url.Values{"pool": {a.Pool}, "name": {a.Server}}.Encode(), http.StatusSeeOther)
		return
	}
	var proof func(*balance.Server) bool
	if a.Do == "ready" && r.PostForm.Get("wait") == "up" {
		proof = h.proof(s)
	}
	h.answerServer(w, r, a.Pool, s, r.PostForm, proof, atOnce)
}

// allowed returns why r may not act, or nil.
func (h *Handler) allowed(r *http.Request) error {
	if err := h.cross.Check(r); err != nil {
		return &mistake{http.StatusForbidden, "comes from another site"}
	}
	if h.Allow == nil {
		return &mistake{http.StatusForbidden, "actions are off"}
	}
	if !h.Allow(r) {
		return &mistake{http.StatusForbidden, "not allowed"}
	}
	return nil
}

// denials bounds the lines that the log has of actions that are not allowed: strangers
// can ask as often as they like.
type denials struct {
	mu     sync.Mutex
	second int64
	lines  int // in that second
	left   int // left out since the last line
}

const maxDenials = 10 // lines a second

// allow reports whether there may be a line now, and how many were left out before it.
func (d *denials) allow(second int64) (ok bool, left int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if second != d.second {
		d.second, d.lines = second, 0
	}
	if d.lines == maxDenials {
		d.left++
		return false, 0
	}
	d.lines++
	left, d.left = d.left, 0
	return true, left
}

// tell logs an action and calls OnAction.
func (h *Handler) tell(a Action) {
	attrs := []any{"do", a.Do, "remote", a.Request.RemoteAddr, "reason", a.Reason}
	for _, v := range [][2]string{{"pool", a.Pool}, {"server", a.Server}, {"limit", a.Limit}, {"key", a.Key}, {"value", a.Value}} {
		if v[1] != "" {
			attrs = append(attrs, v[0], v[1])
		}
	}
	if a.Deadline > 0 {
		attrs = append(attrs, "deadline", a.Deadline)
	}
	if a.Err != nil {
		attrs = append(attrs, "error", a.Err)
	}
	h.logger().Info("admin action", attrs...)
	if h.OnAction != nil {
		h.OnAction(a)
	}
}

// act performs the action in the form of r. The server is nil for an action without
// one.
func (h *Handler) act(r *http.Request) (a Action, s *balance.Server, err error) {
	f := r.PostForm
	a = Action{At: time.Now(), Do: plain(f.Get("action")), Pool: f.Get("pool"), Server: f.Get("server"), Request: r}
	if a.Do == "weight" || a.Do == "maxconns" {
		a.Value = plain(f.Get("value"))
	}
	if a.Reason = plain(f.Get("reason")); a.Reason == "" {
		return a, nil, badRequest("give a reason")
	}
	if a.Do == "forget" {
		a.Limit, a.Key = f.Get("limit"), plain(f.Get("key"))
		return a, nil, h.forget(a.Limit, f.Get("key"))
	}
	if d := f.Get("deadline"); d != "" && a.Do == "drain" {
		if a.Deadline, err = time.ParseDuration(d); err != nil || a.Deadline <= 0 {
			return a, nil, badRequest("deadline must be a duration such as 30s")
		}
	}
	if s = h.find(a.Pool, a.Server); s == nil {
		return a, nil, &mistake{http.StatusNotFound, "there is no such server"}
	}
	if err := h.do(&a, s); err != nil {
		return a, nil, err
	}
	h.acts.Of(s).note(&ActionView{a.At, a.Do, a.Value, a.Reason}, a.Deadline, func() { s.Cut(true, "drain deadline: "+a.Reason) })
	return a, s, nil
}

// do performs the action on s.
func (h *Handler) do(a *Action, s *balance.Server) error {
	switch a.Do {
	case "ready":
		s.SetAdmin(balance.Ready, a.Reason)
	case "drain":
		s.SetAdmin(balance.Drain, a.Reason)
	case "maint":
		s.SetAdmin(balance.Maint, a.Reason)
	case "weight", "maxconns":
		n, err := strconv.Atoi(a.Value)
		if err != nil {
			return badRequest("value must be a number")
		}
		set := s.SetWeight
		if a.Do == "maxconns" {
			set = s.SetMaxConns
		}
		if err := set(n); err != nil {
			return badRequest("%v", err)
		}
	case "cut":
		s.Cut(true, a.Reason)
	case "probe":
		for _, c := range h.Checks {
			if c.ProbeNow(s) {
				return nil
			}
		}
		return &mistake{http.StatusConflict, "the server is not probed"}
	case "return":
		for _, o := range h.Outliers {
			if o.Return(s, a.Reason) {
				return nil
			}
		}
		return &mistake{http.StatusConflict, "the server is not ejected"}
	default:
		return badRequest("there is no such action")
	}
	return nil
}

func (h *Handler) forget(limit, key string) error {
	l := h.Limits[limit]
	if l == nil {
		return &mistake{http.StatusNotFound, "there is no such limit"}
	}
	f := forgetter(l)
	if f == nil {
		return &mistake{http.StatusConflict, "the limit cannot forget a key"}
	}
	if err := f(key); err != nil {
		return badRequest("%v", err)
	}
	return nil
}

// find returns a server by the names of its pool and of itself, nil if there is none.
func (h *Handler) find(pool, server string) *balance.Server {
	if p := h.findPool(pool); p != nil {
		return p.Server(server)
	}
	return nil
}

func (h *Handler) findPool(name string) *balance.Pool {
	for i, p := range h.Pools {
		if figures.PoolName(h.Pools, i) == name {
			return p
		}
	}
	return nil
}

// plain turns text from outside into one short line.
func plain(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsGraphic(r) {
			return ' '
		}
		return r
	}, s)
	if r := []rune(strings.TrimSpace(s)); len(r) > 200 {
		return string(r[:200])
	}
	return strings.TrimSpace(s)
}

// asksHTML reports whether r asks for HTML, as a browser does.
func asksHTML(r *http.Request) bool { return strings.Contains(r.Header.Get("Accept"), "text/html") }
