// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"cmp"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// A query selects what a page lists.
type query struct {
	Q, Pool, State, Sort string
	Down                 bool // descending
	Page                 int  // starting at 1
}

// pageSize is how many servers, or routes, are listed at once.
const pageSize = 100

// parseQuery parses q and ignores invalid values.
func parseQuery(q url.Values) query {
	v := query{Q: plain(q.Get("q")), Pool: short(q.Get("pool")), State: short(q.Get("state")), Sort: q.Get("sort"), Page: 1}
	v.Sort, v.Down = strings.CutPrefix(v.Sort, "-")
	if compare(v.Sort) == nil {
		v.Sort, v.Down = "", false
	}
	if n, err := strconv.Atoi(q.Get("page")); err == nil && n > 1 {
		v.Page = n
	}
	return v
}

// short returns s, or nothing if no name is as long: a page repeats it in each link.
func short(s string) string {
	if len(s) > 1000 {
		return ""
	}
	return s
}

// with returns the URL of the page with other values.
func (v query) with(set func(*query)) string {
	v.Page = 1
	set(&v)
	q := make(url.Values)
	sort := v.Sort
	if v.Down {
		sort = "-" + sort
	}
	for name, value := range map[string]string{"q": v.Q, "pool": v.Pool, "state": v.State, "sort": sort} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if v.Page > 1 {
		q.Set("page", itoa(v.Page))
	}
	if len(q) == 0 {
		return "./"
	}
	return "?" + q.Encode()
}

// key returns a key that is unique for the query.
func (v query) key() string { return v.with(func(w *query) { w.Page = v.Page }) }

// SortBy returns the URL of the page sorted by a column: figures in descending order,
// and reversed if it is already sorted so.
func (v query) SortBy(name string) string {
	return v.with(func(w *query) {
		down := name != "name" && name != "pool" && name != "state" && name != "since"
		if v.Sort == name {
			down = !v.Down
		}
		w.Sort, w.Down = name, down
	})
}

// Sorted returns the value of aria-sort of a column.
func (v query) Sorted(name string) string {
	switch {
	case v.Sort != name:
		return "none"
	case v.Down:
		return "descending"
	}
	return "ascending"
}

// ToPage returns the URL of another page.
func (v query) ToPage(n int) string { return v.with(func(w *query) { w.Page = n }) }

// ToPool and ToState return the URLs of the page with only those servers.
func (v query) ToPool(name string) string {
	return query{Pool: name}.with(func(*query) {}) + "#servers"
}

// compare returns the comparison of servers by a column, nil if there is no such
// column.
func compare(by string) func(a, b *ServerView) int {
	number := func(f func(*ServerView) float64) func(a, b *ServerView) int {
		return func(a, b *ServerView) int { return cmp.Compare(f(a), f(b)) }
	}
	switch by {
	case "name":
		return func(a, b *ServerView) int { return natural(a.Name, b.Name) }
	case "pool":
		return func(a, b *ServerView) int { return cmp.Or(cmp.Compare(a.Pool, b.Pool), natural(a.Name, b.Name)) }
	case "state":
		return func(a, b *ServerView) int { return cmp.Compare(a.Word(), b.Word()) }
	case "since":
		return func(a, b *ServerView) int { return b.Since.Compare(a.Since) }
	case "flight":
		return number(func(v *ServerView) float64 { return float64(v.InFlight) })
	case "queue":
		return number(func(v *ServerView) float64 { return float64(v.Queued) })
	case "rate":
		return number(func(v *ServerView) float64 { return v.Rate })
	case "errors":
		return number(func(v *ServerView) float64 { return v.ErrorShare })
	case "p50":
		return number(func(v *ServerView) float64 { return v.P50 })
	case "p99":
		return number(func(v *ServerView) float64 { return v.P99 })
	case "weight":
		return number(func(v *ServerView) float64 { return v.Weight })
	}
	return nil
}

// natural compares names so that s9 comes before s10.
func natural(a, b string) int {
	for a != "" && b != "" {
		na, nb := digits(a), digits(b)
		if na > 0 && nb > 0 {
			x, y := strings.TrimLeft(a[:na], "0"), strings.TrimLeft(b[:nb], "0")
			if c := cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(x, y)); c != 0 {
				return c
			}
			a, b = a[na:], b[nb:]
			continue
		}
		if a[0] != b[0] {
			return cmp.Compare(a[0], b[0])
		}
		a, b = a[1:], b[1:]
	}
	return cmp.Compare(len(a), len(b))
}

func digits(s string) int {
	n := 0
	for n < len(s) && '0' <= s[n] && s[n] <= '9' {
		n++
	}
	return n
}

// words are the states for the filter of the page.
var words = [...]string{"problem", "up", "down", "ejected", "draining", "drained", "maintenance", "warming", "stopping", "unweighted", "spare", "at its limit"}

// choose returns the servers that v selects, in its order.
func (v query) choose(s *Snapshot) []*ServerView {
	var all []*ServerView
	for i := range s.Pools {
		p := &s.Pools[i]
		if v.Pool != "" && v.Pool != p.Name {
			continue
		}
		for j := range p.Servers {
			one := &p.Servers[j]
			if v.State != "" && v.State != one.Word() && (v.State != "problem" || one.level == levelGood) {
				continue
			}
			if v.Q == "" || has(v.Q, one.Name, one.Addr, one.Zone, one.Reason, one.AdminReason) {
				all = append(all, one)
			}
		}
	}
	by := compare(v.Sort)
	if by == nil {
		by = func(a, b *ServerView) int { return cmp.Compare(b.level, a.level) } // worst first, otherwise as listed
	}
	slices.SortStableFunc(all, func(a, b *ServerView) int {
		if v.Down {
			a, b = b, a
		}
		return by(a, b)
	})
	return all
}

// has reports whether any of texts contains q, in any case.
func has(q string, texts ...string) bool {
	q = strings.ToLower(q)
	for _, t := range texts {
		if strings.Contains(strings.ToLower(t), q) {
			return true
		}
	}
	return false
}
