// SPDX-License-Identifier: Apache-2.0

// Package admin shows an operator what a gateway does, and lets scripts and people steer
// it: a page, the same as JSON, and actions.
//
//	page := &admin.Handler{
//		Pools:   []*balance.Pool{web},
//		Routers: map[string]*l7.Router{"public": routes},
//		Limits:  map[string]admin.Limit{"per client": perClient},
//		Servers: map[string]admin.Server{"https": gateway},
//		Checks:  []admin.Prober{checker},
//		Allow:   admin.Local,
//	}
//	err := http.ListenAndServe("127.0.0.1:9090", page)
//
// It is mounted wherever the host wants, best on an address of its own: all addresses in
// it are relative, and only the last element of a path counts. Who may look is up to the
// host, by a handler around it; who may act, to [Handler.Allow].
//
//	GET  .../                    the page; ?q= ?pool= ?state= ?sort= ?page= choose what it lists
//	GET  .../server              one server, ?pool= ?name=: a page, or JSON if HTML is not asked for
//	GET  .../state               everything as JSON: a Snapshot
//	GET  .../schema              the JSON schema of that
//	GET  .../explain             what would become of a request: ?method= ?url= ?header=Name: value ?client=
//	GET  .../events              the page's live parts, as server-sent events
//	POST .../action              an action
//
// As JSON, for scripts:
//
//	curl http://127.0.0.1:9090/state
//	curl http://127.0.0.1:9090/state | jq '.pools[] | {name, servers: [.servers[] | {name, state}]}'
//	curl 'http://127.0.0.1:9090/server?pool=web&name=one'
//	curl 'http://127.0.0.1:9090/server?pool=web&name=one&wait=drained&timeout=30s'
//
// # Actions
//
// An action is a form, as a page or curl sends it:
//
//	curl -d pool=web -d server=one -d action=drain -d deadline=30s -d reason=deploy http://127.0.0.1:9090/action
//
//	action    does                                                      takes
//	ready     serve, if nobody reports otherwise
//	drain     no new work but what persists                             deadline: after it, what is left is cut
//	maint     no work at all, no probes
//	weight    balance.Server.SetWeight                                  value
//	maxconns  balance.Server.SetMaxConns                                value; 0 means no limit
//	cut       closes all connections to the server, live ones too
//	probe     asks for a probe now                                      Checks
//	return    ends an ejection, and forgets earlier ones                Outliers
//	forget    drops what a limit knows of a key                         limit, key; no pool and server
//
// Each wants a reason, which shows up on the page, in events of the pool, in the log and in
// [Handler.OnAction]. The answer is the [ServerView] after it, or for a browser the page
// of that server.
//
// GET .../server and POST .../action take wait=drained, wait=up or wait=down, and
// timeout=30s: the answer comes when that is so, or is 504. Drained means that the server
// takes no new work and has none.
//
// # What it costs
//
// Nothing while nobody looks. Then all figures are read once each Interval, however many
// look: about 3 µs a server, and 3 KB of memory for each, which is its history. The
// streams are bounded, and one page is made at a time.
package admin
