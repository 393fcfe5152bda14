// SPDX-License-Identifier: Apache-2.0

// Package recipes has what gateways are asked for and what other libraries do well, each
// in a file that can be copied, with a test against the real thing:
//
//   - [CORS]: rs/cors in an [l7.Wrap]
//   - [WAF]: coraza with the OWASP Core Rule Set
//   - [Countries]: routes and access by country, from a file in MaxMind's format
//   - [Login]: OpenID Connect by oauth2-proxy behind an [l7.ForwardAuth]
//   - [Challenge]: a proof of work that keeps bots away from costly pages
//   - [Collapse]: requests for one page at one time share a reply
//
// It is a module of its own because of what it needs, and no interface to rely on.
package recipes
