// SPDX-License-Identifier: Apache-2.0

package l4

import "strconv"

// A Termination says how a connection or a request ended: who ended it, and what was
// going on. Zero means a normal end. As text it is the two letters that HAProxy logs,
// "--" for zero.
//
//	CR CQ CC CD CL   the client went away: before it was known what it wants, in the queue, ...
//	cR cD cL         the client was silent for too long
//	SC SD            the server refused; broke the connection
//	sQ sC sD         timeout in the queue; connecting; the server was silent
//	PR               the proxy denied it
//	RC               the proxy ran out of something, such as ports
//	DD KD LD IR      the server went down; killed, as by Shutdown; lifetime over; a fault of the proxy
type Termination struct {
	Cause Cause
	Phase Phase
}

// A Cause says who ended it.
type Cause uint8

const (
	Normal        Cause = iota // both ends closed as they should
	ClientAborted              // reset or closed by the client
	ServerAborted              // refused, reset or closed by the server
	ClientTimeout              // the client was silent, or both were and the client did not send last
	ServerTimeout              // the server was silent, or both were and the client did send last; or the queue did not move
	Denied                     // refused by a rule or a limit
	Local                      // answered or ended by the proxy itself, as planned
	Resource                   // no memory, descriptor, port or slot
	Internal                   // a fault of the proxy or its host
	ServerDown                 // cut since its server went down or away, or by Cut of a balance.Server, whatever has called it
	Killed                     // cut by shutting down, or by the end of its context
)

const causes = int(Killed) + 1

// A Phase says what was going on.
type Phase uint8

const (
	PhaseNone    Phase = iota
	PhaseRequest       // finding out what the client wants: PROXY header, TLS, first bytes, head
	PhaseQueue         // waiting for a server
	PhaseConnect       // connecting to a server
	PhaseHeaders       // waiting for the head of the answer
	PhaseData          // moving data
	PhaseLast          // the server is done, the client still takes or sends
	PhaseTarpit        // held up on purpose
)

func (t Termination) String() string {
	const causes, phases = "-CScsPLRIDK", "-RQCHDLT"
	code := [2]byte{'?', '?'}
	if int(t.Cause) < len(causes) {
		code[0] = causes[t.Cause]
	}
	if int(t.Phase) < len(phases) {
		code[1] = phases[t.Phase]
	}
	return string(code[:])
}

func (c Cause) String() string {
	return word(c, "normal", "client aborted", "server aborted", "client timeout", "server timeout",
		"denied", "local", "resource", "internal", "server down", "killed")
}

// AtFault reports whether a server or the gateway was the cause, and not a client, a rule
// or the operator: what logs warn of.
func (c Cause) AtFault() bool {
	switch c {
	case ServerAborted, ServerTimeout, Resource, Internal, ServerDown:
		return true
	}
	return false
}

// MarshalText returns what String does, for JSON and slog.
func (c Cause) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

func (p Phase) String() string {
	return word(p, "none", "request", "queue", "connect", "headers", "data", "last", "tarpit")
}

// MarshalText returns what String does, for JSON and slog.
func (p Phase) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// word returns the name of i, or its number if it has none.
func word[T ~uint8](i T, names ...string) string {
	if int(i) < len(names) {
		return names[i]
	}
	return strconv.Itoa(int(i))
}
