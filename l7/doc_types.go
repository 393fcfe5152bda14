// SPDX-License-Identifier: Apache-2.0

// # The types by purpose
//
//   - An exchange and what changes it: [Exchange], [Handler], [HandlerFunc], [Fields], [Field], [Reply],
//     [ReplyEditor], [ReplyFunc], [InterimEditor], [BodyFilter], [BodyError], [Key]
//   - Fronts: [Server], [Front], [Stats]; for those that others write, such as l7/h3: [AttachedFront], [Attachment],
//     [FrontConn], [FrontLimits]
//   - Records of exchanges: [Record], [Captured], [Statuses]; of tries: [TryObserver], [Try]
//   - Forwarding: [Proxy], [To], [Upstream], [UpstreamStats], [Retry], [Hedge], [Mirror], [Forward], [Reuse]
//   - Client side: [Transport], [TransportError]
//   - Routing: [Router], [Route], [Order], [RouteStats], [RouteError], [RouteExplanation]
//   - Matchers of the request: [Method], [Scheme], [Host], [HostRegexp], [Path], [PathPrefix], [PathSuffix],
//     [PathPattern], [PathRegexp], [Query], [Header], [ContentType], [Cookie]
//   - Matchers of the connection: [ClientIn], [RemoteIn], [RemotePorts], [LocalIn], [LocalPort], [TLS], [SNI],
//     [ALPN], [JA4], [ClientCert]
//   - Matchers of anything else: [PoolUsable], [MatchFunc], [Matcher], [Narrower]; [All], [Any] and [Not] combine them
//   - Choice of a handler or a pool: [Choose], [Split], [Arm], [Fallback], [PoolChoice], [Map], [Entry], [AddrMap],
//     [PrefixEntry]
//   - Choice of a server: [Persist], [PersistMode], [Stick], [StickTable], [StickStore], [HashBy]
//   - Middleware that looks or refuses: [TrustForwarded], [RequestID], [Capture], [Access], [BasicAuth], [ForwardAuth], [VerifyClient],
//     [Limit], [KeyLimiter], [Gate], [Places], [CircuitBreaker], [LimitBody], [LoadReports], [Misdirected], [Monitor], [Fault]
//   - Middleware that changes: [Normalize], [Underscores], [Rewrite], [EditHeader] with [FieldEdit], [FieldEditFunc],
//     [SetField], [AddField], [DelField] and [ReplaceField], [SetForwarded], [ForwardClientCert] with [XFCC], [BufferBody], [BufferReply], [ErrorPages], [ProxyStatus]
//   - Middleware of net/http in a tree: [Wrap]
//   - Handlers that answer: [FixedReply], [Redirect], [Deny], [Drop], [Tarpit]
//   - Errors: [RefusedError], [ForwardAuthError], [TimeoutError], and those above
//   - Testing: package [github.com/penstock-lb/penstock/l7/l7test] has an HTTP server that misbehaves on demand, and
//     [github.com/penstock-lb/penstock/l4/l4test] a network in memory. Everything here works in a bubble of
//     testing/synctest; the package comment of l7test has a complete test.
//
// # Middleware and matchers of your own
//
// A middleware is a struct with a Next. ServeExchange changes the [Exchange], or
// answers, or registers what is to happen to the reply, and ends in [Serve]:
//
//	type Tag struct {
//		Name string
//		Next http.Handler
//	}
//
//	func (t *Tag) ServeExchange(x *l7.Exchange) {
//		x.Header.Set("X-Tag", t.Name)
//		l7.Serve(t.Next, x)
//	}
//
//	func (t *Tag) ServeHTTP(w http.ResponseWriter, r *http.Request) { l7.ServeHTTP(t, w, r) }
//
//	func (t *Tag) Check() error {
//		var m penstock.Mistakes
//		m.Need("Tag.Next", t.Next, "must be the handler that goes on")
//		m.In("Tag.Next", t.Next)
//		return m.Err()
//	}
//
// To refuse a request, it answers instead of calling [Serve], and returns:
//
//	x.Error(http.StatusForbidden, l4.Termination{Cause: l4.Denied, Phase: l4.PhaseRequest})
//
// That is the error page of the status ([ErrorPages]), and the record says that a rule
// refused it. To add a field to it, such as Retry-After, register a [ReplyFunc] by
// [Exchange.OnReply] before. For a body of its own, call [Exchange.Respond] instead; unless
// Record.Termination has been set before, the record says Local, not Denied:
//
//	x.Record.Termination = l4.Termination{Cause: l4.Denied, Phase: l4.PhaseRequest}
//	x.Respond(http.StatusTooManyRequests, &header, `{"error":"quota"}`)
//
// [Exchange.Drop] closes the connection; Serve of a [Deny], [Redirect] or [FixedReply]
// does what those do. A reply of a server is refused by [Reply.Refuse].
//
// Check is optional. With it, [Server.Serve] finds a mistake in the middleware and in
// what is inside it before the first request. The example of [Handler] runs one.
//
// A matcher is one method, Match(*Exchange) bool, or a func as a [MatchFunc]. A [Router]
// asks it for each exchange that reaches its route. With a second method, Within, it is a
// [Narrower]: the route is filed in the index under the host and the path that Within
// names, and they count for its specificity. A handler of yours with a Matcher in a field
// asks it by [Matches], which knows of both.
package l7
