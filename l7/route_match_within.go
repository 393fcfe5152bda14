// SPDX-License-Identifier: Apache-2.0

package l7

// A Narrower is a [Matcher] of a host's own that tells a [Router] what else is true of
// everything it matches. Within returns that as a matcher of this package: the host,
// the path, the method and so on, combined by [All] and [Any]. The router then files the
// route under that host and path, asks Match only of exchanges that Within matches, and
// counts both for the specificity of the route (see [Specific]), the Narrower itself as
// "everything else". Nil, or a matcher that is not indexed, tells nothing:
//
//	// Tenant matches the API of one tenant, if his plan allows the method.
//	type Tenant struct{ Name string }
//
//	func (t Tenant) Match(x *l7.Exchange) bool { return plans.Allow(t.Name, x.Method) }
//	func (t Tenant) Within() l7.Matcher {
//		return l7.All{l7.Host(t.Name + ".example.com"), l7.PathPrefix("/api")}
//	}
//
// Within is called while routes are set, never for an exchange. It must return an equal
// matcher each time. Outside of the Match of a [Route] it is not asked.
type Narrower interface {
	Matcher
	Within() Matcher
}

// maxWithin is how many Narrowers may lie within each other; further ones are as any
// other matcher of a host's, so that one that returns itself does no harm.
const maxWithin = 8
