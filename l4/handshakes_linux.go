// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// turns are of the whole process, as its processors are.
var turns handshakes

// handshakes lets TLS handshakes compute one by one. The scheduler asks the network
// what has become ready only when no goroutine is left to run, so that a thousand clients
// that all say hello would be answered before the connections that are open are looked
// at. Here one handshake goes on each time that the network has been asked, after those
// that have become ready by then: a goroutine of its own waits for an event that it has
// caused itself, which it hears of in no other way.
//
//	read, wait ─┐                  asked: the first of again, or of first
//	read, wait ─┼─> again, first ──────────────────────────────────────────> compute, write
//	read, wait ─┘
//
// Where processors are idle they ask all the time, and so as many compute as there are
// processors.
type handshakes struct {
	mu     sync.Mutex
	first  []*place // wait for their first turn
	again  []*place // have had one: they are nearly done
	giving bool     // a goroutine gives turns
	event  *os.File // an eventfd, which stays open; nil until needed
	raw    syscall.RawConn
}

// A place in the queue is waited for by locking it a second time. It may be given by a goroutine
// outside of the bubble of testing/synctest that the waiting one is in, where a channel
// must not be closed.
type place struct{ sync.Mutex }

// wait returns when a handshake that has read may compute. If no other is waiting, one
// that has had a turn goes on at once.
func (h *handshakes) wait(again bool) {
	h.mu.Lock()
	if again && !h.giving || !h.ready() {
		h.mu.Unlock()
		return
	}
	t := &place{}
	t.Lock()
	if again {
		h.again = append(h.again, t)
	} else {
		h.first = append(h.first, t)
	}
	if !h.giving {
		h.giving = true
		go h.give()
	}
	h.mu.Unlock()
	t.Lock()
}

// ready makes the event. Where it cannot be made, for want of a descriptor, nobody waits.
func (h *handshakes) ready() bool {
	if h.event != nil {
		return true
	}
	fd, _, errno := syscall.Syscall(syscall.SYS_EVENTFD2, 0, syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if errno != 0 {
		return false
	}
	event := os.NewFile(fd, "eventfd")
	raw, err := event.SyscallConn()
	if err != nil || event.SetDeadline(time.Time{}) != nil { // the network is not asked about it
		event.Close()
		return false
	}
	h.event, h.raw = event, raw
	return true
}

// give gives turns until nobody waits.
func (h *handshakes) give() {
	last := time.Now()
	for {
		h.ask()
		now := time.Now()
		n := turnsAfter(now.Sub(last))
		last = now
		h.mu.Lock()
		for ; n > 0; n-- {
			t := h.next()
			if t == nil {
				h.giving = false
				h.mu.Unlock()
				return
			}
			t.Unlock()
		}
		h.mu.Unlock()
	}
}

// turnsAfter returns how many turns are given d after the last ones, most of which take
// less than a millisecond. After much more the processors have other work than the
// network's, for which it is asked only every ten milliseconds: of that time handshakes get a
// part.
func turnsAfter(d time.Duration) int {
	return 1 + min(int(d/(2*time.Millisecond)), 7)
}

// next takes out the handshake whose turn it is, or returns nil.
func (h *handshakes) next() (t *place) {
	for _, q := range []*[]*place{&h.again, &h.first} {
		if s := *q; len(s) > 0 {
			t, s[0] = s[0], nil
			if *q = s[1:]; len(s) == 1 {
				*q = nil
			}
			return t
		}
	}
	return nil
}

// ask returns after the network has been asked what is ready.
func (h *handshakes) ask() {
	asked := false
	one := uint64(1)
	_ = h.raw.Read(func(fd uintptr) bool {
		if asked {
			return true
		}
		asked = true
		_, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(&one)), unsafe.Sizeof(one))
		return errno != 0
	})
}
