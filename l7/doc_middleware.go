// SPDX-License-Identifier: Apache-2.0

// # Middleware and its order
//
// A middleware is a struct literal with a Next field. It sees the request on
// the way in and, if it registers a [ReplyEditor], the reply on the way out,
// replies that the gateway makes itself too. Written from the outside in, the
// shortest program is the natural order, that of HAProxy's rules:
//
//	&l7.TrustForwarded{Next:       // who is it? All that follows may ask
//		&l7.RequestID{Next:        // so that everything is logged with it (Record.ID)
//		&l7.Capture{Next:          // as the client sent it, for the record
//		&l7.Monitor{Next:          // answers even those who would be limited
//		&l7.ErrorPages{Next:       // for all that follows
//		&l7.Normalize{Next:        // before anything looks at a path
//		&l7.Access{Next:           // the cheapest refusals first
//		&l7.Limit[netip.Addr]{Next:
//		&l7.BasicAuth{Next:        // behind the limit: guesses are limited
//		&l7.EditHeader{Next:
//		router}}}}}}}}}}
//
// and behind the router, for each route:
//
//	&l7.Rewrite{Next:              // what follows sees the new path
//	&l7.BufferBody{Next:           // before a server is chosen
//	&l7.Gate{Next:                 // places are held only while a server works
//	&l7.Persist{Next:              // or Stick, HashBy: the choice of a server
//	&l7.Proxy{}}}}}
//
// Middleware of net/http may stand anywhere between them, by a [Wrap] at the cost of
// a native one.
//
// The first decision wins: a redirect before a cookie, a cookie before a
// sticky table, a table before the policy of the pool, if they are nested in
// that order.
package l7
