// SPDX-License-Identifier: Apache-2.0

package l7

// A Narrower is a [Matcher] of your own that matches what both its Match and its Within
// match. Within returns conditions as a matcher of this package: the host, the path, the
// method and so on, combined by [All] and [Any]. The router then indexes the route under
// that host and path, calls Match only for exchanges that Within matches, and counts both
// for the specificity of the route (see [Specific]), the Narrower itself as "everything
// else". Nil, or a matcher that is not indexed, adds nothing to the index:
//
//	// Tenant matches the API of one tenant, if its plan allows the method.
//	type Tenant struct{ Name string }
//
//	func (t Tenant) Match(x *l7.Exchange) bool { return plans.Allow(t.Name, x.Method) }
//	func (t Tenant) Within() l7.Matcher {
//		return l7.All{l7.Host(t.Name + ".example.com"), l7.PathPrefix("/api")}
//	}
//
// Within must return an equal matcher each time. It is called while routes are set; under
// a [Not], in a route of more than 256 alternatives, and outside of routes, as in
// [Access], it is called for each exchange. At most 8 Narrowers may lie within each other; more are
// a mistake that [Router.Set] names.
// Code of your own that holds a Matcher calls [Matches] instead of its Match.
type Narrower interface {
	Matcher
	Within() Matcher
}

// maxWithin is how deep Narrowers may nest, so that one that returns itself is found.
const (
	maxWithin = 8
	tooDeep   = "has more than 8 matchers that lie within each other (Narrower)"
)

// Matches reports whether m matches x; nil matches everything. A handler or a matcher of
// your own that has a matcher in a field calls it instead of m.Match, which does not ask
// what a [Narrower] lies within.
func Matches(m Matcher, x *Exchange) bool { return m == nil || matches(m, x, 0) }

// matches is Matches of a matcher inside that many Narrowers.
func matches(m Matcher, x *Exchange, within int) bool {
	switch m := m.(type) {
	case All:
		for _, m := range m {
			if !matches(m, x, within) {
				return false
			}
		}
		return true
	case Any:
		for _, m := range m {
			if matches(m, x, within) {
				return true
			}
		}
		return false
	case not:
		return !matches(m.m, x, within)
	case Narrower:
		if w := m.Within(); w != nil && within < maxWithin && !matches(w, x, within+1) {
			return false
		}
	}
	return m.Match(x)
}
