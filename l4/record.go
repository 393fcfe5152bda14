// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"net"
	"sync"
	"time"
)

// A Record describes one connection after its end. It is passed to Server.OnDone and is
// valid only during that call; copy what you keep. Handlers write to it with Note while
// the connection is open.
type Record struct {
	Remote net.Addr // of the client, as PROXY protocol has it if that was accepted
	Local  net.Addr
	Start  time.Time // when it was accepted

	// Phases, as durations since Start; 0 means not reached. Of several tries the
	// last one counts.
	Assigned  time.Duration // a server was chosen, after a queue if there was one
	Connected time.Duration // a connection to it was there
	FirstByte time.Duration // the first byte of the server was there
	Total     time.Duration // all was done

	// On the wire of the client, with the PROXY header, the ClientHello and all else of TLS,
	// unless the listener has ended TLS, as that of [tls.NewListener] does. Of a flow of a
	// [UDPProxy], the payload of its datagrams.
	BytesIn  int64 // from the client, those read ahead and not passed on too
	BytesOut int64 // to the client

	// What a [Proxy] has relayed, without TLS where the gateway ends or begins it, and without
	// PROXY headers: the payload. 0 before its relay is over, and of a flow.
	ToServer   int64 // bytes
	FromServer int64 // bytes

	JA4         string // fingerprint of the client's TLS, if TerminateTLS.JA4 or a matcher has asked for it, or ""
	Server      string // name of the server tried last; "" means none
	Tries       int    // how many were
	Termination Termination
	Err         error // what Termination stands for; nil if Normal, or ErrNoCloseNotify

	mu *sync.Mutex
}

func newRecord() *Record {
	r := new(struct {
		Record
		mu sync.Mutex
	})
	r.Record = Record{Start: time.Now(), mu: &r.mu}
	return &r.Record
}

// reached returns the phase of a record that has been reached after d. It is never 0,
// however coarse the clock is.
func reached(d time.Duration) time.Duration { return max(d, 1) }

// Note runs f, which may write the record, and must not call Note or End. Many goroutines
// may call it; on a nil Record it does nothing. Notes after the end of the connection are
// lost, except those that OnDone makes.
func (r *Record) Note(f func(r *Record)) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r)
}

// End notes how the connection ended. Only the first call counts.
func (r *Record) End(t Termination, err error) {
	r.Note(func(r *Record) {
		if r.Termination == (Termination{}) && r.Err == nil {
			r.Termination, r.Err = t, err
		}
	})
}

// tells reports whether the record says why the connection was not served. Nil says nothing.
func (r *Record) tells() (told bool) {
	r.Note(func(r *Record) { told = r.Termination != (Termination{}) || r.Err != nil })
	return told
}

// RecordOf returns the record of the connection that c is, or is a wrapper
// of (as a *tls.Conn is). It returns nil, on which Note and End do nothing, if
// the server that accepted c has no OnDone, or there is no such server.
func RecordOf(c net.Conn) *Record {
	if conn := underlying(c); conn != nil {
		return conn.member.record
	}
	return nil
}
