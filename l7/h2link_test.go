// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

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
		k.start(l4.NewConn(a), false, time.Minute, h2ClientConfig(), func(error) {})
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
