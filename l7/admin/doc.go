// SPDX-License-Identifier: Apache-2.0

// Package admin shows operators the state of a gateway, and lets people and scripts
// control it: a page, the same data as JSON, and actions.
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
// Mount it anywhere, preferably on an address of its own: all URLs in it are relative,
// and only the last element of a path is used. To restrict who may look, put a handler
// around it; [Handler.Allow] decides who may act. A page stays connected for its updates, so
// the server that it is mounted on shuts down in time only if it calls [Handler.Close]:
//
//	server.RegisterOnShutdown(page.Close)
//
//	GET  .../                    the page; ?q= ?pool= ?state= ?sort= ?page= choose what it lists
//	GET  .../server              one server, ?pool= ?name=: a page, or JSON if the client does not accept HTML
//	GET  .../state               everything as JSON: a Snapshot
//	GET  .../schema              the JSON schema of that
//	GET  .../explain             which route a request would take: ?method= ?url= ?header=Name: value ?client=
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
//	drain     no new work except for persistent clients                 deadline: then the remaining work is cut
//	maint     no new work at all, no probes; work in flight goes on
//	weight    balance.Server.SetWeight                                  value
//	maxconns  balance.Server.SetMaxConns                                value; 0 means no limit
//	cut       closes all connections to the server, also those in use
//	probe     requests a probe now                                      Checks
//	return    ends an ejection, and forgets earlier ones                Outliers
//	forget    drops a limit's state of a key                            limit, key; no pool and server
//
// Each needs a reason, which appears on the page, in events of the pool, in the log and in
// [Handler.OnAction]. The answer is the resulting [ServerView], or the page of that server
// for a browser.
//
// GET .../server and POST .../action take wait=drained, wait=up or wait=down, and
// timeout=30s: the answer comes when the server is in that state, or is 504 after the
// timeout. Drained means that the server is picked for no new work and has none; persistent
// clients still come to one in drain, and only maint moves them. With action=ready, up means
// up by a probe that has ended since, if the server is probed. A rolling deploy is drain, maint
// with wait=drained, and ready with wait=up: examples/gateway/deploy.sh.
//
// # What it costs
//
// Nothing while no page is open. Otherwise all figures are read once per Interval, for
// any number of viewers: about 3 µs for each server, and 3 KB of memory for its history.
// The number of streams is bounded, and one page is made at a time.
package admin
