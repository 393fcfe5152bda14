// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4/l4test"
)

// TestRecordNoteInOnDone: the host may note things until the very end, and a
// handler that goes on after its connection was closed does not meet it.
func TestRecordNoteInOnDone(t *testing.T) {
	world(t, func(t *testing.T, n *l4test.Network) {
		records := make(chan Record, 1)
		closed, noted := make(chan struct{}), make(chan struct{})
		s := &Server{
			Handler: HandlerFunc(func(_ context.Context, c net.Conn) error {
				r := RecordOf(c)
				r.Note(func(r *Record) { r.Server = "before" })
				go func() {
					<-closed
					r.Note(func(r *Record) { r.Server = "late" })
					r.End(Termination{Internal, PhaseData}, io.ErrUnexpectedEOF)
					close(noted)
				}()
				return c.Close()
			}),
			OnDone: func(r *Record) {
				close(closed)
				<-noted
				r.Note(func(r *Record) { r.Tries = 7 })
				r.End(Termination{Denied, PhaseData}, nil)
				records <- *r
			},
		}
		wait := serve(s, listen(t, n, "10.0.0.1:80"))
		dial(t, n, "10.0.0.1:80")
		r := <-records
		require.Equal(t, "before", r.Server)
		require.Equal(t, 7, r.Tries)
		require.Equal(t, "PD", r.Termination.String())
		require.NoError(t, r.Err)
		require.NoError(t, s.Close())
		require.ErrorIs(t, wait(), ErrServerClosed)
	})
}
