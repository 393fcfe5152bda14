// SPDX-License-Identifier: Apache-2.0

package admin

import "time"

// A Snapshot has all figures at one time, as GET .../state returns them. Durations are in
// seconds, sizes in bytes, shares from 0 to 1. Rates and ErrorShare cover the time since
// the previous reading, usually one Interval; P50, P99 and the counts in Problems cover
// the last half minute to minute. Fields may be added.
type Snapshot struct {
	At       time.Time   `json:"at"`       // when it was made
	Problems []Problem   `json:"problems"` // what an operator should look at, worst first
	Fronts   []FrontView `json:"fronts"`   // what accepts connections, sorted by name
	Pools    []PoolView  `json:"pools"`    // as in Handler.Pools
	Routes   []RouteView `json:"routes"`   // of all routers, as listed
	Limits   []LimitView `json:"limits"`   // sorted by name
}

// A Problem is something that an operator should know about.
type Problem struct {
	Level  string     `json:"level"`            // "bad", "warn" or "note"
	Pool   string     `json:"pool,omitempty"`   // which it is about
	Server string     `json:"server,omitempty"` // which it is about
	Limit  string     `json:"limit,omitempty"`  // which it is about
	What   string     `json:"what"`             // a word or two, such as "down"
	Why    string     `json:"why,omitempty"`    // a sentence
	Since  *time.Time `json:"since,omitempty"`  // when it began, if known
}

// A FrontView is a server that accepts connections.
type FrontView struct {
	Name            string            `json:"name"`               // as in Handler.Servers
	Open            int               `json:"open"`               // connections
	Parked          int               `json:"parked"`             // those without a goroutine
	Accepted        uint64            `json:"accepted"`           // connections, in all
	AcceptRate      float64           `json:"acceptRate"`         // a second
	AcceptErrors    uint64            `json:"acceptErrors"`       // in all
	AtLimit         uint64            `json:"atLimit"`            // times that accepting had to wait because of the limit
	Handshakes      uint64            `json:"handshakes"`         // of TLS, in all
	HandshakeErrors uint64            `json:"handshakeErrors"`    // of them, those that failed
	Requests        map[string]uint64 `json:"requests,omitempty"` // by class of status: "2xx"; "none" had no reply
	Rate            float64           `json:"rate"`               // requests a second, or connections where there are no requests
	ErrorShare      float64           `json:"errorShare"`         // of requests, those answered 5xx or not at all
	Ends            map[string]uint64 `json:"ends,omitempty"`     // of requests or connections, by cause
	BytesIn         uint64            `json:"bytesIn"`            // from clients
	BytesOut        uint64            `json:"bytesOut"`           // to clients

	failing float64 // share of errors lately, if that is a problem
}

// A PoolView is a pool.
type PoolView struct {
	Name          string       `json:"name"`             // of the pool
	Servers       []ServerView `json:"servers"`          // as in its Set
	Usable        int          `json:"usable"`           // of them, those that take new work
	InFlight      int          `json:"inFlight"`         // leases
	Queued        int          `json:"queued"`           // requests that wait for a server
	Retries       int          `json:"retries"`          // in progress
	Rate          float64      `json:"rate"`             // leases a second
	ErrorShare    float64      `json:"errorShare"`       // of leases, those that ended by a fault of the server
	P50           float64      `json:"p50"`              // of the latency; 0 if nothing is known
	P99           float64      `json:"p99"`              // of the latency; 0 if nothing is known
	WaitP99       float64      `json:"waitP99"`          // of the waits in the queue; 0 if nothing waited
	Picks         uint64       `json:"picks"`            // leases, in all
	Retried       uint64       `json:"retried"`          // retries and hedges, in all
	Hedged        uint64       `json:"hedged"`           // hedges, in all
	OverBudget    uint64       `json:"overBudget"`       // retries and hedges that the budget refused
	NoServer      uint64       `json:"noServer"`         // requests that found no server
	QueueFull     uint64       `json:"queueFull"`        // requests that found no place in the queue
	QueueTimeouts uint64       `json:"queueTimeouts"`    // requests that waited too long
	Panicking     bool         `json:"panicking"`        // all servers are used, since too few are usable
	Source        *SourceView  `json:"source,omitempty"` // where its servers come from; absent without a source
}

// A SourceView is the state of the source of a pool's servers.
type SourceView struct {
	Good  *time.Time `json:"good,omitempty"`  // when the last good set came
	Error string     `json:"error,omitempty"` // why the set may be outdated
	Since *time.Time `json:"since,omitempty"` // when that began
}

// A ServerView is a server of a pool.
type ServerView struct {
	Pool        string             `json:"pool"`                  // it is in
	Name        string             `json:"name"`                  // its identity there
	Addr        string             `json:"addr"`                  // where it is
	State       string             `json:"state"`                 // balance.State in a word
	Used        bool               `json:"used"`                  // takes new work now
	Reason      string             `json:"reason"`                // why the state is what it is, or it is not used
	Since       time.Time          `json:"since"`                 // of the state
	Reports     []ReportView       `json:"reports,omitempty"`     // of all reporters, also those that do not decide the state
	Loads       []LoadView         `json:"loads,omitempty"`       // what it reports of its own load
	Ejected     bool               `json:"ejected"`               // an outlier detector has ejected it
	Admin       string             `json:"admin"`                 // what the operator wants: "ready", "drain", "maint"
	AdminReason string             `json:"adminReason,omitempty"` // why
	Deadline    *time.Time         `json:"deadline,omitempty"`    // of the drain, when the remaining work is cut
	InFlight    int                `json:"inFlight"`              // leases
	Limit       int                `json:"limit"`                 // of them; 0 means none
	Queued      int                `json:"queued"`                // requests that wait for it and no other
	Weight      float64            `json:"weight"`                // slow start applied; 0 if it is not used
	Share       float64            `json:"share"`                 // of all picks, the part that goes to its tier and zone
	Tier        int                `json:"tier"`                  // 0 serves first
	Zone        string             `json:"zone,omitempty"`        // it is in
	Rate        float64            `json:"rate"`                  // leases a second
	ErrorShare  float64            `json:"errorShare"`            // of leases, those that ended by a fault of the server
	P50         float64            `json:"p50"`                   // of the latency; 0 if nothing is known
	P99         float64            `json:"p99"`                   // of the latency; 0 if nothing is known
	Picks       uint64             `json:"picks"`                 // leases, in all
	Outcomes    map[string]uint64  `json:"outcomes,omitempty"`    // by class, those that there were
	InState     map[string]float64 `json:"inState,omitempty"`     // time spent in each state
	Check       *CheckView         `json:"check,omitempty"`       // absent if it is not probed
	Conns       *ConnsView         `json:"conns,omitempty"`       // absent without Handler.Upstreams
	LastAction  *ActionView        `json:"lastAction,omitempty"`  // absent if there was none

	level   int     // how bad it is: that of its problem
	failing float64 // share of errors lately, if that is a problem
	rates   []float64
	waiting bool // it drains and still has work
}

// A ReportView is the report of one reporter on a server.
type ReportView struct {
	By     string    `json:"by"`               // the reporter
	Health string    `json:"health"`           // "up", "stopping", "down", "unknown"
	Reason string    `json:"reason,omitempty"` // why
	Since  time.Time `json:"since"`            // of Health
}

// A LoadView is a number that a server reports of its own load.
type LoadView struct {
	Name  string    `json:"name"`  // as reported
	Value float64   `json:"value"` // the last one
	At    time.Time `json:"at"`    // when it was measured
}

// A CheckView is the state of a server's probes.
type CheckView struct {
	Last  *time.Time `json:"last,omitempty"`  // when the last probe ended
	Took  float64    `json:"took"`            // how long it took
	Error string     `json:"error,omitempty"` // what it found; absent if it passed
	Due   *time.Time `json:"due,omitempty"`   // when the next one is due
}

// A ConnsView has figures of the connections to a server.
type ConnsView struct {
	Open       int    `json:"open"`       // now
	Idle       int    `json:"idle"`       // of them, those without a request
	Streams    int    `json:"streams"`    // of HTTP/2, open now
	Dials      uint64 `json:"dials"`      // connections begun, in all
	DialErrors uint64 `json:"dialErrors"` // of them, those that failed
	Reuses     uint64 `json:"reuses"`     // requests that used an existing connection
}

// An ActionView is the last action on a server.
type ActionView struct {
	At     time.Time `json:"at"`              // when
	Do     string    `json:"do"`              // the action
	Value  string    `json:"value,omitempty"` // of a weight or limit
	Reason string    `json:"reason"`          // as given
}

// A RouteView is a route.
type RouteView struct {
	Router     string            `json:"router"`             // as in Handler.Routers
	Name       string            `json:"name"`               // of the route
	Requests   map[string]uint64 `json:"requests,omitempty"` // by class of status: "2xx"; "none" had no reply
	Rate       float64           `json:"rate"`               // requests a second
	ErrorShare float64           `json:"errorShare"`         // of them, those answered 5xx or not at all
	BytesIn    uint64            `json:"bytesIn"`            // of request bodies
	BytesOut   uint64            `json:"bytesOut"`           // of reply bodies
}

// A LimitView is a limit.
type LimitView struct {
	Name       string  `json:"name"`       // as in Handler.Limits
	Taken      uint64  `json:"taken"`      // times that it admitted
	Refused    uint64  `json:"refused"`    // times that it refused
	TakeRate   float64 `json:"takeRate"`   // a second
	RefuseRate float64 `json:"refuseRate"` // a second
	Keys       int     `json:"keys"`       // kept now
	Bans       uint64  `json:"bans"`       // begun
	Lost       uint64  `json:"lost"`       // keys dropped although they had state
	Untracked  uint64  `json:"untracked"`  // admitted uncounted, for lack of room
	Local      uint64  `json:"local"`      // decided without the shared store
	Asked      uint64  `json:"asked"`      // questions put to the shared store
	Forgets    bool    `json:"forgets"`    // it can be told to forget a key

	Held    int    `json:"held"`    // places taken
	Places  int    `json:"places"`  // that there are now; 0 if it has none
	Queued  int    `json:"queued"`  // how many wait for a place
	Bytes   uint64 `json:"bytes"`   // that asked a limit of bandwidth for a turn
	Delayed uint64 `json:"delayed"` // of them, those that had to wait

	ByteRate  float64 `json:"byteRate"`  // a second
	DelayRate float64 `json:"delayRate"` // bytes a second
}

// level returns how bad a problem is.
const (
	levelGood = iota
	levelNote
	levelWarn
	levelBad
)

var levelWords = [...]string{"good", "note", "warn", "bad"}
