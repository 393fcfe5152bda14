// SPDX-License-Identifier: Apache-2.0

package l7

// A Narrower is a [Matcher] of your own that names further conditions which hold for
// everything it matches. Within returns them as a matcher of this package: the host, the
// path, the method and so on, combined by [All] and [Any]. The router then indexes the
// route under that host and path, calls Match only for exchanges that Within matches,
// and counts both for the specificity of the route (see [Specific]), the Narrower itself
// as "everything else". Nil, or a matcher that is not indexed, adds nothing:
//
//	// Tenant matches the API of one tenant, if its plan allows the method.
//	type Tenant struct{ Name string }
//
//	func (t Tenant) Match(x *l7.Exchange) bool { return plans.Allow(t.Name, x.Method) }
//	func (t Tenant) Within() l7.Matcher {
//		return l7.All{l7.Host(t.Name + ".example.com"), l7.PathPrefix("/api")}
//	}
//
// Within is called while routes are set, never for an exchange. It must return an equal
// matcher each time. It is called only for the Match of a [Route].
type Narrower interface {
	Matcher
	Within() Matcher
}

// maxWithin is how deep Narrowers may nest. Deeper ones are treated as ordinary
// matchers, so that one that returns itself does no harm.
const maxWithin = 8
