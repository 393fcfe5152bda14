// SPDX-License-Identifier: Apache-2.0

package admin

import "time"

// A Snapshot is all figures at one time, as GET .../state has them. Spans are in seconds,
// sizes in bytes, shares from 0 to 1. Rates, ErrorShare, P50 and P99 are about what
// happened lately: the last Interval, or since somebody looked before that; latencies
// about the last half minute to minute. Fields may be added.
type Snapshot struct {
	At       time.Time   `json:"at"`       // when it was made
	Problems []Problem   `json:"problems"` // what an operator should look at, the worst first
	Fronts   []FrontView `json:"fronts"`   // what accepts connections, in the order of names
	Pools    []PoolView  `json:"pools"`    // as in Handler.Pools
	Routes   []RouteView `json:"routes"`   // of all routers, as listed
	Limits   []LimitView `json:"limits"`   // in the order of names
}

// A Problem is something that an operator should know of.
type Problem struct {
	Level  string     `json:"level"`            // "bad", "warn" or "note"
	Pool   string     `json:"pool,omitempty"`   // which it is about
	Server string     `json:"server,omitempty"` // which it is about
	Limit  string     `json:"limit,omitempty"`  // which it is about
	What   string     `json:"what"`             // in a word or two, such as "down"
	Why    string     `json:"why,omitempty"`    // in words
	Since  *time.Time `json:"since,omitempty"`  // when it began, if that is known
}

// A FrontView is a server that accepts connections.
type FrontView struct {
	Name            string            `json:"name"`               // as in Handler.Servers
	Open            int               `json:"open"`               // connections
	Parked          int               `json:"parked"`             // of them, those without a goroutine
	Accepted        uint64            `json:"accepted"`           // connections, in all
	AcceptRate      float64           `json:"acceptRate"`         // a second
	AcceptErrors    uint64            `json:"acceptErrors"`       // in all
	AtLimit         uint64            `json:"atLimit"`            // times that accepting had to wait for room
	Handshakes      uint64            `json:"handshakes"`         // of TLS, in all
	HandshakeErrors uint64            `json:"handshakeErrors"`    // of them, those that failed
	Requests        map[string]uint64 `json:"requests,omitempty"` // by class of status: "2xx"; "none" had no reply
	Rate            float64           `json:"rate"`               // requests a second, or connections where there are no requests
	ErrorShare      float64           `json:"errorShare"`         // of requests, those answered 5xx or not at all
	Ends            map[string]uint64 `json:"ends,omitempty"`     // of requests or connections, by who ended them
	BytesIn         uint64            `json:"bytesIn"`            // from clients
	BytesOut        uint64            `json:"bytesOut"`           // to clients
}

// A PoolView is a pool.
type PoolView struct {
	Name          string       `json:"name"`             // of the pool
	Servers       []ServerView `json:"servers"`          // as in its Set
	Usable        int          `json:"usable"`           // of them, those that take new work
	InFlight      int          `json:"inFlight"`         // leases
	Queued        int          `json:"queued"`           // requests that wait for a server
	Retries       int          `json:"retries"`          // going on
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
	Panicking     bool         `json:"panicking"`        // all servers are used, as too few are usable
	Source        *SourceView  `json:"source,omitempty"` // where its servers come from; none if it follows nothing
}

// A SourceView is how a pool stands with the source of its servers.
type SourceView struct {
	Good  *time.Time `json:"good,omitempty"`  // when the last good set came
	Error string     `json:"error,omitempty"` // why the set may be old
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
	Reports     []ReportView       `json:"reports,omitempty"`     // what reporters say, whether it decides or not
	Ejected     bool               `json:"ejected"`               // an outlier detection says that it is down
	Admin       string             `json:"admin"`                 // what the operator wants: "ready", "drain", "maint"
	AdminReason string             `json:"adminReason,omitempty"` // why
	Deadline    *time.Time         `json:"deadline,omitempty"`    // of the drain, when what is left is cut
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
	InState     map[string]float64 `json:"inState,omitempty"`     // how long it was in each state
	Check       *CheckView         `json:"check,omitempty"`       // none if it is not probed
	Conns       *ConnsView         `json:"conns,omitempty"`       // none without Handler.Upstreams
	LastAction  *ActionView        `json:"lastAction,omitempty"`  // none if there was none

	level   int // how bad it is: that of its problem
	rates   []float64
	waiting bool // it drains, and has work still
}

// A ReportView is what one reporter says of a server.
type ReportView struct {
	By     string    `json:"by"`               // whom
	Health string    `json:"health"`           // "up", "stopping", "down", "unknown"
	Reason string    `json:"reason,omitempty"` // why
	Since  time.Time `json:"since"`            // of Health
}

// A CheckView is how a server is probed.
type CheckView struct {
	Last  *time.Time `json:"last,omitempty"`  // when the last probe ended
	Took  float64    `json:"took"`            // what it took
	Error string     `json:"error,omitempty"` // what it found; none if all is well
	Due   *time.Time `json:"due,omitempty"`   // when the next one is due
}

// A ConnsView is the connections to a server.
type ConnsView struct {
	Open       int    `json:"open"`       // now
	Idle       int    `json:"idle"`       // of them, those without a request
	Streams    int    `json:"streams"`    // of HTTP/2, open now
	Dials      uint64 `json:"dials"`      // connections begun, in all
	DialErrors uint64 `json:"dialErrors"` // of them, those that failed
	Reuses     uint64 `json:"reuses"`     // requests that found a connection
}

// An ActionView is what was last done to a server here.
type ActionView struct {
	At     time.Time `json:"at"`              // when
	Do     string    `json:"do"`              // the action
	Value  string    `json:"value,omitempty"` // of a weight or limit
	Reason string    `json:"reason"`          // that was given
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
	Taken      uint64  `json:"taken"`      // times that it said yes
	Refused    uint64  `json:"refused"`    // times that it said no
	TakeRate   float64 `json:"takeRate"`   // a second
	RefuseRate float64 `json:"refuseRate"` // a second
	Keys       int     `json:"keys"`       // kept now
	Bans       uint64  `json:"bans"`       // begun
	Lost       uint64  `json:"lost"`       // keys forgotten although they said something
	Untracked  uint64  `json:"untracked"`  // admitted uncounted, for lack of a place
	Local      uint64  `json:"local"`      // decided without the shared store
	Forgets    bool    `json:"forgets"`    // a key of it can be forgotten

	Held    int    `json:"held"`    // places taken
	Places  int    `json:"places"`  // that there are now; 0 if it has none
	Queued  int    `json:"queued"`  // how many wait for a place
	Bytes   uint64 `json:"bytes"`   // that asked a limit of bandwidth for a turn
	Delayed uint64 `json:"delayed"` // of them, those that had to wait

	ByteRate  float64 `json:"byteRate"`  // a second
	DelayRate float64 `json:"delayRate"` // bytes a second
}

// level says how bad a problem is.
const (
	levelGood = iota
	levelNote
	levelWarn
	levelBad
)

var levelWords = [...]string{"good", "note", "warn", "bad"}
