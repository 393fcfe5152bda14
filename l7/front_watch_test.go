// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Connections that have ended are not kept until the others are watched.
func TestLatecomersForgetWhatHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l latecomers
		srv := &Server{}
		var conns [5]byteConn
		for i := range conns {
			conns[i].srv = srv
			l.add(&conns[i])
		}
		for _, i := range []int{4, 1, 1, 0} { // the last, one in the middle, one that is gone
			l.remove(&conns[i])
		}
		require.ElementsMatch(t, []*byteConn{&conns[2], &conns[3]}, l.conns)
		for i, c := range l.conns {
			require.Equal(t, int32(i+1), c.state.late)
		}
		l.remove(&conns[2])
		l.remove(&conns[3])
		l.add(&conns[0]) // with the timer that runs already
		time.Sleep(watchAfter)
		synctest.Wait()
		require.Empty(t, l.conns)
		require.Zero(t, conns[0].state.late)
		require.False(t, l.armed)
		l.remove(&conns[0])
	})
}
