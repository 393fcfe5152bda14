// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/penstock-lb/penstock/balance"
)

// An Outlier takes servers out of use that do worse than the others, by how
// live work goes. It reports as [balance.Outlier] and asks nothing of its own.
//
// It needs the outcomes, and Run:
//
//	pool.OnOutcome = append(pool.OnOutcome, outlier.Observe)
//	err := outlier.Run(ctx)
//
// A server is ejected at once after a row of errors, or at the end of an interval
// for its share of them. It stays out for Base times the number of its recent
// ejections. Then it gets one piece of work at a time: the first that goes well
// brings it back, the first that does not ejects it again, for longer. Work that
// lasts, such as a connection, goes well as soon as the server has answered (see
// [balance.Lease.Works]) or when it has gone on for Trial. What was begun before the
// ejection decides nothing.
//
// At most MaxShare of the members are out at once, but one always may be, and
// Keep of them stay in full use: when everything fails, everything being ejected
// would only make it worse. If servers that were kept go out of use for another
// reason, ejected ones come back within a second.
//
// Sources: Envoy, outlier_detection.proto and outlier_detection_impl.cc; gRFC A50;
// the single piece of work is Finagle's failure accrual.
//
// The fields must not change once Run is called.
type Outlier struct {
	Pool     *balance.Pool
	Classify func(balance.Outcome) Rating // nil means Layer7

	Consecutive  int     // bad outcomes in a row that eject; 0 means 5, negative means none: it never does
	Gateway      int     // the same, of those that look like a dead process: no answer, or 502, 503, 504; 0 or negative means none
	Deviation    float64 // eject below mean - Deviation * standard deviation of the success rates; 0 means 1.9, negative means none
	FailureShare float64 // eject at this share of bad outcomes in an interval, as in 0.85; 0 means none
	Volume       int     // outcomes in an interval that a server needs to be judged by share or deviation; 0 means 100
	Servers      int     // servers with that volume that are needed; 0 means 5

	Interval time.Duration // over which shares are taken; 0 means 10s
	Base     time.Duration // out for the first time; 0 means 30s
	Max      time.Duration // out at most; 0 means 300s, or Base if that is more
	Jitter   time.Duration // up to this much more, at random; 0 or negative means none
	Trial    time.Duration // work in flight at the end of it counts as good; 0 means Base, negative means none: only an outcome counts

	MaxShare float64 // of the members out at once; 0 means 0.1
	Keep     int     // members that stay in full use; 0 means 1

	OnEjection func(Ejection) // called by Run's own goroutine, must not block; may be nil
	Logger     *slog.Logger   // nil means slog.Default()
	Seed       uint64         // of the jitter; 0 means at random

	running atomic.Bool
	watched atomic.Pointer[map[*balance.Server]*candidate] // nil while Run does not run
	wake    atomic.Pointer[chan struct{}]
}

// An Ejection is a change that an [Outlier] made, or did not make.
type Ejection struct {
	Server *balance.Server
	Kind   EjectionKind
	Reason string        // "5 errors in a row, last status 503"
	For    time.Duration // out for so long; of Ejected
	Times  int           // recent ejections of the server; they are forgotten one each interval
}

// EjectionKind says what became of a server.
type EjectionKind uint8

const (
	Ejected  EjectionKind = iota // out of use
	OnTrial                      // one piece of work at a time
	Returned                     // in full use
	Kept                         // would be ejected, but for MaxShare or Keep; said once each interval
)

func (k EjectionKind) String() string {
	return word(k, "ejected", "on trial", "returned", "kept")
}

// MarshalText returns what String does, for JSON and slog.
func (k EjectionKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// word returns the name of i, or its number if it has none.
func word[T ~uint8](i T, names ...string) string {
	if int(i) < len(names) {
		return names[i]
	}
	return strconv.Itoa(int(i))
}

// A candidate is what is counted of one server: by Observe, on any goroutine.
type candidate struct {
	good, bad    atomic.Uint32 // in this interval
	row          atomic.Int32  // bad in a row
	gateway      atomic.Int32  // of the gateway kind in a row
	phase        atomic.Uint32 // a phase
	observed     atomic.Pointer[observation]
	returnReason atomic.Pointer[string] // why Return was called

	ejection // of Run's goroutine
}

// An observation is what Observe tells Run.
type observation struct {
	last balance.Outcome
	row  int  // length of the row of errors
	good bool // of one on trial
}

// Observe takes in how a piece of work went. It never blocks, and does nothing
// while Run does not run. Any goroutine may call it.
func (o *Outlier) Observe(s *balance.Server, out balance.Outcome) {
	m := o.watched.Load()
	if m == nil {
		return
	}
	x := (*m)[s]
	if x == nil {
		return
	}
	verdict := Ignored
	if o.Classify == nil {
		verdict = Layer7(out)
	} else {
		verdict = judge(o.logger(), o.Classify, out)
	}
	ph := phase(x.phase.Load())
	switch {
	case verdict == Ignored || ph == isOut || ph == onTrial && out.BeforeTrial: // the rest of what began before
	case ph == isIn && out.Early: // Done will tell
	case ph == onTrial:
		o.tell(x, observation{last: out, good: verdict == Good})
	case verdict == Good:
		x.good.Add(1)
		if x.row.Load() != 0 {
			x.row.Store(0)
		}
		if x.gateway.Load() != 0 {
			x.gateway.Store(0)
		}
	default:
		x.bad.Add(1)
		row := int(x.row.Add(1))
		limit := or(o.Consecutive, 5)
		if o.Gateway > 0 {
			if !gatewayKind(out) {
				x.gateway.Store(0)
			} else if g := int(x.gateway.Add(1)); g >= o.Gateway {
				o.tell(x, observation{last: out, row: g})
				return
			}
		}
		if limit > 0 && row >= limit {
			o.tell(x, observation{last: out, row: row})
		}
	}
}

// Return brings s back into full use if it is ejected or on trial, and forgets its earlier
// ejections, because of what reason says. It is false for a server that is neither. It
// takes effect soon after; any goroutine may call it.
func (o *Outlier) Return(s *balance.Server, reason string) bool {
	m := o.watched.Load()
	if m == nil {
		return false
	}
	x := (*m)[s]
	if x == nil || phase(x.phase.Load()) == isIn {
		return false
	}
	x.returnReason.Store(&reason)
	if c := o.wake.Load(); c != nil {
		poke(*c)
	}
	return true
}

func (o *Outlier) logger() *slog.Logger {
	if o.Logger != nil {
		return o.Logger
	}
	return slog.Default()
}

// tell wakes Run, unless it has been told and has not looked yet.
func (o *Outlier) tell(x *candidate, n observation) {
	if x.observed.Load() == nil && x.observed.CompareAndSwap(nil, &n) {
		if c := o.wake.Load(); c != nil {
			poke(*c)
		}
	}
}

// gatewayKind reports whether a bad outcome looks like a dead process behind a proxy.
func gatewayKind(o balance.Outcome) bool {
	return o.Class != balance.StatusError || o.Status >= 502 && o.Status <= 504
}

// Run ejects and returns servers until ctx is done, and returns its cause. It
// returns a [*penstock.ConfigError] at once if a field cannot be used, and [ErrRunning]
// if another Run is active. When it ends, all servers are back: an ejection
// without an end would be worse than none.
func (o *Outlier) Run(ctx context.Context) error {
	if err := o.Check(); err != nil {
		return err
	}
	if !o.running.CompareAndSwap(false, true) {
		return ErrRunning
	}
	defer o.running.Store(false)
	return newOutlierRun(o).run(ctx)
}
