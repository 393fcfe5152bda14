// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// Admin is what the operator wants of a server.
type Admin uint8

const (
	Ready Admin = iota // serve, unless a reporter disagrees
	Drain              // no new work, but persistent traffic and health checks continue
	Maint              // nothing at all; idle connections are closed
)

func (a Admin) String() string {
	return word(a, "ready", "drain", "maint")
}

// Health is what one observer says of a server.
type Health uint8

const (
	Up       Health = iota // well
	Stopping               // soft stop: no new work, but persistent traffic continues
	Down                   // no work at all
	Unknown                // the observer cannot tell; counts as Up, and [Pool.Explain] says it
)

func (h Health) String() string {
	return word(h, "up", "stopping", "down", "unknown")
}

// A Reporter is one observer of a server's health. Observers do not overrule each other: a
// server is usable while none of them says otherwise.
type Reporter uint8

const (
	Check        Reporter = iota // active health check
	Agent                        // an agent on the server
	Outlier                      // ejection by comparison with the other servers
	Observed                     // errors seen on live traffic
	Discovery                    // the source of the server list
	HostReporter Reporter = 8    // HostReporter to MaxReporter are the host's own
	MaxReporter  Reporter = 15
)

func (r Reporter) String() string {
	if r >= HostReporter {
		return "host reporter " + strconv.Itoa(int(r-HostReporter))
	}
	return word(r, "check", "agent", "outlier", "observed", "discovery")
}

// State sums up the admin state and all reports: what decides is the first that holds.
//
//	state            new work   persistent   because
//	StateLeft        no         no           not in the set any more
//	StateMaint       no         no           operator
//	StateDown        no         no           a reporter says Down
//	StateDrain       no         yes          operator
//	StateStopping    no         yes          a reporter says Stopping
//	StateUnweighted  no         yes          weight is negative, or was set to 0
//	StateWarming     a share    yes          slow start
//	StateUp          yes        yes
type State uint8

const (
	StateUp State = iota
	StateWarming
	StateUnweighted
	StateStopping
	StateDrain
	StateDown
	StateMaint
	StateLeft
)

const states = int(StateLeft) + 1

func (s State) String() string {
	return word(s, "up", "warming", "unweighted", "stopping", "drain", "down", "maint", "left")
}

// usable reports whether a server in state s takes new work.
func (s State) usable() bool { return s <= StateWarming }

// persistent reports whether a server in state s takes persistent traffic.
func (s State) persistent() bool { return s <= StateDrain }

func word[T ~uint8](i T, words ...string) string {
	if int(i) < len(words) {
		return words[i]
	}
	return strconv.Itoa(int(i))
}

// status is the state machine of one server: the last reports of all reporters.
type status struct {
	operator Operator
	reports  []Report // in order of By
	left     bool
	warming  bool
	weight   int // 0 means none
}

// An Operator is what the operator said of a server last. The zero value is what holds
// while there was nothing to say.
type Operator struct {
	Admin  Admin
	Reason string
	Since  time.Time // of Admin; zero if the operator has said nothing
}

// A Report is what one observer said of a server last.
type Report struct {
	By     Reporter
	Health Health
	Reason string
	Since  time.Time // of Health: saying it again, in other words too, does not change that
}

// String returns words such as "check says down: connection refused".
func (r Report) String() string {
	return join(r.By.String()+" says "+r.Health.String(), r.Reason)
}

// report replaces what r.Cause said before.
func (st *status) report(r Report) {
	i, found := slices.BinarySearchFunc(st.reports, r.By, func(r Report, c Reporter) int { return int(r.By) - int(c) })
	if !found {
		st.reports = slices.Insert(st.reports, i, r)
		return
	}
	if st.reports[i].Health == r.Health {
		r.Since = st.reports[i].Since
	}
	st.reports[i] = r
}

// administer replaces what the operator said before.
func (st *status) administer(o Operator) {
	if o.Admin == st.operator.Admin && !st.operator.Since.IsZero() {
		o.Since = st.operator.Since
	}
	st.operator = o
}

// worst returns the worst health that any reporter reports.
func (st *status) worst() Health {
	worst := Up
	for _, r := range st.reports {
		if r.Health != Unknown {
			worst = max(worst, r.Health)
		}
	}
	return worst
}

// state returns what decides.
func (st *status) state() State {
	switch worst := st.worst(); {
	case st.left:
		return StateLeft
	case st.operator.Admin == Maint:
		return StateMaint
	case worst == Down:
		return StateDown
	case st.operator.Admin == Drain:
		return StateDrain
	case worst == Stopping:
		return StateStopping
	case st.weight == 0:
		return StateUnweighted
	case st.warming:
		return StateWarming
	}
	return StateUp
}

// reason says in words why the state is what it is.
func (st *status) reason() string {
	switch s := st.state(); s {
	case StateLeft:
		return "left the set"
	case StateMaint, StateDrain:
		return join(s.String(), st.operator.Reason)
	case StateDown, StateStopping:
		return st.words(func(h Health) bool { return h == Down || h == Stopping })
	case StateUnweighted:
		return "no weight: persistent traffic only"
	case StateWarming:
		return join("slow start", st.unknown())
	}
	return st.unknown()
}

// unknown says who cannot tell how the server is.
func (st *status) unknown() string { return st.words(func(h Health) bool { return h == Unknown }) }

// words joins what those say whose health is as asked.
func (st *status) words(which func(Health) bool) string {
	var all []string
	for _, r := range st.reports {
		if which(r.Health) {
			all = append(all, r.String())
		}
	}
	return strings.Join(all, "; ")
}

func join(what, why string) string {
	if why == "" {
		return what
	}
	return what + ": " + why
}
