// SPDX-License-Identifier: Apache-2.0

// # Middleware and its order
//
// A middleware is a struct literal with a Next field. It sees the request on
// the way in and, if it registers a [ReplyEditor], the reply on the way out,
// including replies made by the gateway itself. From the outside in, this order
// suits most gateways; it is that of HAProxy's rules:
//
//	&l7.TrustForwarded{Next:       // finds the client's address, for all that follows
//		&l7.ProxyStatus{Next:      // tells trusted clients which server failed
//		&l7.RequestID{Next:        // so that everything is logged with it (Record.ID)
//		&l7.Capture{Next:          // as the client sent it, for the record
//		&l7.Monitor{Next:          // answers health checks before any limit
//		&l7.ErrorPages{Next:       // for all that follows
//		&l7.Normalize{Next:        // before anything looks at a path
//		&l7.Access{Next:           // the cheapest refusals first
//		&l7.VerifyClient{Next:     // by the client's certificate
//		&l7.ForwardClientCert{Next: // tells servers of it, and removes what clients say
//		&l7.Limit[netip.Addr]{Next:
//		&l7.BasicAuth{Next:        // or ForwardAuth, after the limit: guesses are limited
//		&l7.EditHeader{Next:
//		router}}}}}}}}}}}}}
//
// and behind the router, for each route:
//
//	&l7.Rewrite{Next:              // what follows sees the new path
//	&l7.BufferBody{Next:           // before a server is chosen
//	&l7.BufferReply{Next:          // the other way: where clients are slow, or servers break off
//	&l7.Gate{Next:                 // a place is held only while a server works
//	&l7.LoadReports{Next:          // what servers say of their load
//	&l7.Persist{Next:              // or Stick, HashBy: the choice of a server
//	&l7.Proxy{}}}}}}}
//
// Middleware of net/http may go anywhere between them; in a [Wrap] it costs about as
// much as a native one.
//
// The first decision wins: a redirect before a cookie, a cookie before a sticky
// table, and a table before the policy of the pool, if they are nested in that
// order.
package l7
