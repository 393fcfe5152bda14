// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"slices"
	"time"

	"github.com/penstock-lb/penstock/balance"
)

// A TryObserver is told of each try of an exchange, for traces as a rule: see
// [Exchange.ObserveTries]. Its methods must not block, nor use the Exchange, as
// the tries of a [Hedge] go on at once, in two goroutines. If one panics, that is
// logged and the try goes on.
type TryObserver interface {
	// BeginTry is called when a server has been chosen, before it is connected to.
	// Number, Server, Hedge and Assigned are set, and Header is there to be filled.
	BeginTry(t *Try)
	// EndTry is called when the pool has been told how the try ended: of the try
	// that is answered, when its reply has been passed on, or its tunnel has ended.
	// T is the one of BeginTry. It must not be kept.
	EndTry(t *Try)
}

// A Try is one request to one server.
type Try struct {
	Number int // 1 is the first of the exchange
	Server *balance.Server
	Hedge  bool // it goes on beside another one, which has had no reply yet

	// Header is what only this try tells the server, in the place of lines of the
	// same names in the request. It may not have fields that the engine owns, see
	// [Fields]; they are left out.
	Header Fields

	// Phases as in [Record]: durations since the Start of the record, 0 if not reached.
	Assigned, Connected, FirstByte time.Duration

	Reused  bool            // the connection was open already
	Version string          // of HTTP, as spoken with the server: "1.1" or "2.0"; "" if there was no connection, or no need of one
	Status  int             // of the server's reply; 0 if there was none
	Outcome balance.Outcome // what the pool has been told
	Lost    bool            // a hedge, or what it was beside, was faster
}

// ObserveTries has o told of each try to forward the exchange that begins from now on,
// also by handlers inside of those of net/http. The copies of a [Mirror] are exchanges
// of their own. An exchange that nobody observes pays nothing for it.
func (x *Exchange) ObserveTries(o TryObserver) {
	x.observers = append(slices.Clip(x.observers), o) // exchanges inside of a foreign handler share them
}
