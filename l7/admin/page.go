// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bytes"
	"cmp"
	"embed"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

//go:embed page.html style.css page.js schema.json
var files embed.FS

// asset serves an embedded file.
func asset(w http.ResponseWriter, kind, name string) {
	b, err := files.ReadFile(name)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", "max-age=60")
	_, _ = w.Write(b)
}

// A page is the data for page.html.
type page struct {
	Title   string
	At      time.Time
	Snap    *Snapshot
	Query   query
	Live    string // address of the stream
	Acts    bool   // actions are on
	Wrong   []problemLine
	Servers []*ServerView
	Found   int // servers that match Query
	All     int // servers
	From    int // index of the first listed among those found
	Last    int // page
	Routes  []RouteView
	More    int // routes that are not listed
	One     *ServerView
	Of      *PoolView // of One
	Probes  bool
	Returns bool
}

// A problemLine is a problem, or the number of further ones of its kind.
type problemLine struct {
	Problem
	More int
	Link string
}

// problemsAlike is how many problems of one kind and pool are listed.
const problemsAlike = 4

// lines groups problems of a kind.
func lines(all []Problem) []problemLine {
	type kind struct{ level, pool, what string }
	counts := make(map[kind]int)
	at := make(map[kind]int)
	var list []problemLine
	for _, p := range all {
		k := kind{p.Level, p.Pool, p.What}
		counts[k]++
		switch n := counts[k]; {
		case n <= problemsAlike:
			l := problemLine{Problem: p}
			if p.Server != "" {
				l.Link = "server?" + url.Values{"pool": {p.Pool}, "name": {p.Server}}.Encode()
			} else if p.Pool != "" {
				l.Link = query{Pool: p.Pool}.with(func(*query) {}) + "#servers"
			}
			at[k] = len(list)
			list = append(list, l)
		case n == problemsAlike+1:
			link := query{Pool: p.Pool, State: p.What}
			if !slices.Contains(words[:], p.What) {
				link.State = "problem"
			}
			i := at[k] + 1
			list = slices.Insert(list, i, problemLine{Problem: Problem{Level: p.Level, Pool: p.Pool, What: p.What}, More: 1, Link: link.with(func(*query) {}) + "#servers"})
			for o, j := range at {
				if j >= i {
					at[o]++
				}
			}
			at[k] = i
		default:
			list[at[k]].More++
		}
	}
	return list
}

// servePage serves the page, or that of one server.
func (h *Handler) servePage(w http.ResponseWriter, r *http.Request) {
	f, err := h.latest(r.Context())
	if err != nil {
		h.fail(w, r, err)
		return
	}
	body, err := h.make(r, f, "page")
	if err != nil {
		h.fail(w, r, err)
		return
	}
	send(w, "text/html; charset=utf-8", body)
}

// live returns the live part of the page for the stream r.
func (h *Handler) live(r *http.Request, f *frame) ([]byte, error) { return h.make(r, f, "live") }

// make makes a page of f, or a part of it, unless f already has it.
func (h *Handler) make(r *http.Request, f *frame, part string) ([]byte, error) {
	q := r.URL.Query()
	v, key := parseQuery(q), ""
	name := q.Get("name")
	if name == "" {
		key = part + " " + v.key()
	} else {
		key = part + " of " + url.Values{"pool": {v.Pool}, "name": {name}}.Encode()
	}
	return h.cached(r.Context(), f, key, func() ([]byte, error) {
		p := h.page(f, v)
		if name != "" {
			if p.One = f.server(v.Pool, name); p.One == nil {
				return nil, &mistake{http.StatusNotFound, "there is no such server"}
			}
			p.Live = "events?" + url.Values{"pool": {v.Pool}, "name": {name}}.Encode()
			for i := range f.snap.Pools {
				if f.snap.Pools[i].Name == v.Pool {
					p.Of = &f.snap.Pools[i]
				}
			}
		}
		var b bytes.Buffer
		t, err := h.templates(f.at)
		if err == nil {
			err = t.ExecuteTemplate(&b, part, p)
		}
		return b.Bytes(), err
	})
}

// page returns the data of f that the page lists.
func (h *Handler) page(f *frame, v query) *page {
	p := &page{
		Title: cmp.Or(h.Title, "penstock"), At: f.at, Snap: f.snap, Query: v, Acts: h.Allow != nil,
		Wrong: lines(f.snap.Problems), Probes: len(h.Checks) > 0, Returns: len(h.Outliers) > 0,
	}
	p.Live = "events" + strings.TrimPrefix(v.key(), "./")
	all := v.choose(f.snap)
	p.Found = len(all)
	for i := range f.snap.Pools {
		p.All += len(f.snap.Pools[i].Servers)
	}
	p.Last = max(1, (p.Found+pageSize-1)/pageSize)
	p.Query.Page = min(v.Page, p.Last)
	from := (p.Query.Page - 1) * pageSize
	p.Servers, p.From = all[from:min(from+pageSize, len(all))], from+1
	p.Routes = f.snap.Routes
	if n := len(p.Routes); n > pageSize {
		p.Routes = slices.Clone(p.Routes)
		slices.SortStableFunc(p.Routes, func(a, b RouteView) int { return cmp.Compare(b.Rate, a.Rate) })
		p.Routes, p.More = p.Routes[:pageSize], n-pageSize
	}
	return p
}

// templates returns the templates, for a page of the given time.
func (h *Handler) templates(at time.Time) (*template.Template, error) {
	return template.New("").Funcs(template.FuncMap{
		"rate": rate, "percent": percent, "seconds": seconds, "size": size, "perSecond": func(v float64) string { return size(uint64(v)) + "/s" },
		"count": func(n any) string {
			switch n := n.(type) {
			case int:
				return count(n)
			case uint64:
				return count(n)
			}
			return fmt.Sprint(n)
		},
		"ago": func(t time.Time) string { return span(at.Sub(t)) },
		"past": func(t *time.Time) string {
			if t == nil {
				return ""
			}
			return span(at.Sub(*t))
		},
		"until": func(t *time.Time) string {
			if t == nil {
				return ""
			}
			return span(t.Sub(at))
		},
		"clock": func(t time.Time) string { return t.Format("15:04:05") },
		"stamp": func(t time.Time) string { return t.Format(time.RFC3339) },
		"spent": func(s float64) string { return span(time.Duration(s * float64(time.Second))) },
		"words": func() []string { return words[:] },
		"keys":  func(m map[string]uint64) []string { return slices.Sorted(maps.Keys(m)) },
		"heads": heads,
		"plus":  func(a, b int) int { return a + b },
		"id":    func(s *ServerView) string { return "s-" + url.QueryEscape(s.Pool) + "/" + url.QueryEscape(s.Name) },
		"to": func(s *ServerView) string {
			return "server?" + url.Values{"pool": {s.Pool}, "name": {s.Name}}.Encode()
		},
	}).ParseFS(files, "page.html")
}

// A head is the head of a column of servers.
type head struct {
	Query           query
	By, Text, Class string
}

func heads(q query) []head {
	return []head{
		{q, "name", "Server", ""}, {q, "state", "State, and why", ""}, {q, "flight", "In flight", "n"}, {q, "queue", "Queue", "n"},
		{q, "rate", "Rate", "n"}, {q, "rate", "Last minute", ""}, {q, "errors", "Errors", "n"}, {q, "p50", "p50", "n"}, {q, "p99", "p99", "n"}, {q, "weight", "Weight", "n"},
	}
}

// errorPage answers a browser with an error. Anybody can cause one as often as he likes,
// so it must not cost what a page does.
func (h *Handler) errorPage(w http.ResponseWriter, status int, text string) {
	var b bytes.Buffer
	t, err := h.errors, h.noErrors
	if err == nil {
		err = t.ExecuteTemplate(&b, "error", map[string]string{"Title": cmp.Or(h.Title, "penstock"), "Text": text, "Status": http.StatusText(status)})
	}
	if err != nil {
		http.Error(w, text, status)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes())
}
