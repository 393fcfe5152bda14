// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7/internal/h2"
)

// A stream whose turn has come may find that heads of others have taken the
// room meanwhile. Its turn must not be counted for ever: nobody would send any
// more.
func TestTurnWithoutRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer a.Close()
		defer b.Close()
		k := new(h2Link)
		k.start(l4.NewConn(a), false, time.Minute, h2ClientConfig(defaultUpStreams), func(error) {}, func(f func()) { go f() })
		// The server's SETTINGS, as it must say them first.
		f, _, err := k.h2.Parse([]byte{0, 0, 0, 4, 0, 0, 0, 0, 0})
		require.NoError(t, err)
		_, err = k.h2.Receive(f, time.Now())
		require.NoError(t, err)
		s := &h2Sender{st: k.h2.Begin()}
		full := func() { k.h2.Out = append(k.h2.Out[:0], make([]byte, h2OutHigh)...) }

		full()
		k.writing = true // by a goroutine that takes its time
		sent := make(chan error, 1)
		go func() {
			k.mu.Lock()
			defer k.mu.Unlock()
			sent <- k.sendData(s, make([]byte, 1000), time.Minute, func() error { return nil })
		}()
		synctest.Wait()
		k.mu.Lock()
		require.True(t, s.queued)
		k.h2.Take(nil)
		k.wakeSenders()
		require.Equal(t, 1, k.turns)
		full()
		k.mu.Unlock()
		synctest.Wait()
		k.mu.Lock()
		require.True(t, s.queued, "there was no room")
		require.Zero(t, k.turns)
		k.h2.Take(nil)
		k.wakeSenders()
		k.mu.Unlock()
		synctest.Wait()
		require.NoError(t, <-sent)
		require.Zero(t, k.turns)
		require.Equal(t, h2.HeaderLen+1000, len(k.h2.Out))
	})
}

// One that finds that its window has been taken back gives its turn to those that wait for it.
func TestTurnWithoutWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		go io.Copy(io.Discard, b)
		defer synctest.Wait()
		defer b.Close()
		k := new(h2Link)
		k.start(l4.NewConn(a), false, time.Minute, h2ClientConfig(defaultUpStreams), func(error) {}, func(f func()) { go f() })
		defer k.c.Close()
		for _, frame := range [][]byte{{0, 0, 0, 4, 0, 0, 0, 0, 0}, {0, 0, 4, 8, 0, 0, 0, 0, 0, 0x70, 0, 0, 0}} {
			f, _, err := k.h2.Parse(frame)
			require.NoError(t, err)
			_, err = k.h2.Receive(f, time.Now())
			require.NoError(t, err)
		}
		first, other := &h2Sender{st: k.h2.Begin()}, &h2Sender{st: k.h2.Begin()}
		require.Equal(t, 1<<16-1, k.h2.WriteData(first.st, make([]byte, 1<<16-1), false))
		k.h2.Take(nil)
		first.turn, k.turns = true, 1
		sent := make(chan error, 2)
		send := func(s *h2Sender) {
			k.mu.Lock()
			defer k.mu.Unlock()
			sent <- k.sendData(s, make([]byte, 1000), time.Minute, func() error { return nil })
		}
		go send(other)
		synctest.Wait()
		require.True(t, other.queued)
		go send(first)
		synctest.Wait()
		require.Len(t, sent, 1)
		require.NoError(t, <-sent)
		require.ErrorIs(t, <-sent, os.ErrDeadlineExceeded)
		require.Zero(t, k.turns)
	})
}

// The stream whose goroutine writes for all takes turns with the others: it is not
// to go on writing what they add until they have nothing left.
func TestWriterTakesItsTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer synctest.Wait()
		defer b.Close()
		k := new(h2Link)
		var gone error
		writer := new(h2Sender)
		k.start(l4.NewConn(a), false, time.Minute, h2ClientConfig(defaultUpStreams), func(err error) {
			k.mu.Lock()
			defer k.mu.Unlock()
			gone = err
			writer.send.wake()
		}, func(f func()) { go f() })
		settings := []byte{0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0x7f, 0xff, 0xff, 0xff} // SETTINGS_INITIAL_WINDOW_SIZE
		for _, frame := range [][]byte{settings, {0, 0, 4, 8, 0, 0, 0, 0, 0, 0x70, 0, 0, 0}} {
			f, _, err := k.h2.Parse(frame)
			require.NoError(t, err)
			_, err = k.h2.Receive(f, time.Now())
			require.NoError(t, err)
		}
		other := &h2Sender{st: k.h2.Begin()}
		writer.st = k.h2.Begin()
		go func() {
			k.mu.Lock()
			_ = k.sendData(writer, make([]byte, 1<<20), time.Minute, func() error { return gone })
			k.mu.Unlock()
		}()
		_, err := io.ReadFull(b, make([]byte, len(http2.ClientPreface)))
		require.NoError(t, err)
		fr := http2.NewFramer(nil, b)
		sent := map[uint32]int{}
		for sent[1]+sent[3] < 1<<20 {
			// The other one is never slower than a write: it adds as soon as its turn
			// has come, and asks again.
			synctest.Wait()
			k.mu.Lock()
			k.add(other, make([]byte, h2Turn))
			if !other.queued && !other.turn {
				other.queued = true
				k.queue = append(k.queue, other)
			}
			k.mu.Unlock()
			f, err := fr.ReadFrame()
			require.NoError(t, err)
			if d, ok := f.(*http2.DataFrame); ok {
				sent[d.StreamID] += len(d.Data())
			}
		}
		require.InDelta(t, sent[1], sent[3], 1<<17)
	})
}

// A stream may end its body after a write has failed and before the streams learn of
// it. The frame that it would have marked as its last is gone with the rest.
func TestBodyEndsBetweenFailedWriteAndLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer a.Close()
		k := new(h2Link)
		var s *h2.Stream
		lost := make(chan error, 1)
		k.start(l4.NewConn(a), false, time.Minute, h2ClientConfig(defaultUpStreams), func(err error) {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.h2.Finish(s)
			lost <- err
		}, func(f func()) { go f() })
		f, _, err := k.h2.Parse([]byte{0, 0, 0, 4, 0, 0, 0, 0, 0}) // SETTINGS
		require.NoError(t, err)
		_, err = k.h2.Receive(f, time.Now())
		require.NoError(t, err)
		go k.flushAll()
		synctest.Wait() // it writes, and the server does not read
		k.mu.Lock()
		s = k.h2.Begin()
		require.Equal(t, 1, k.h2.WriteData(s, []byte("a"), false))
		k.mu.Unlock()
		require.NoError(t, b.Close())
		require.Error(t, <-lost)
		require.Equal(t, h2.HalfClosedLocal, s.State())
	})
}
