// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4/l4test"
)

// lineLog keeps lines of a log, from any goroutine.
type lineLog struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lineLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lineLog) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// take returns the lines so far, and forgets them.
func (l *lineLog) take() []string {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	text := l.b.String()
	l.b.Reset()
	return strings.FieldsFunc(text, func(r rune) bool { return r == '\n' })
}

// Where the descriptors have run out, Accept fails again and again, with a connection now
// and then: the log has a line at once and then one a minute.
func TestAcceptFailuresAreLoggedOnceAMinute(t *testing.T) {
	world(t, func(t *testing.T, n *l4test.Network) {
		var log lineLog
		s := &Server{Handler: Reject{}, Logger: log.logger()}
		ln := listen(t, n, "10.0.0.1:80")
		failing := ln.(*l4test.Listener)
		failing.FailAccept(3, syscall.EMFILE)
		wait := serve(s, ln)
		for range 299 { // five minutes
			time.Sleep(time.Second)
			failing.FailAccept(3, syscall.EMFILE)
			dial(t, n, "10.0.0.1:80").Close()
		}
		lines := log.take()
		require.Len(t, lines, 5)
		require.Contains(t, lines[4], "too many open files")
		s.Close()
		require.ErrorIs(t, wait(), ErrServerClosed)
	})
}

// A failure of all connections has ten lines a second, and the next one says how many were
// left out.
func TestConnectionsNotServedDoNotFillTheLog(t *testing.T) {
	world(t, func(t *testing.T, n *l4test.Network) {
		var log lineLog
		s := &Server{
			Logger:  log.logger(),
			Handler: HandlerFunc(func(context.Context, net.Conn) error { return errors.New("out of order") }),
		}
		wait := serve(s, listen(t, n, "10.0.0.1:80"))
		for range 100 {
			dial(t, n, "10.0.0.1:80").Close()
		}
		require.Len(t, log.take(), 10)
		time.Sleep(time.Second)
		dial(t, n, "10.0.0.1:80").Close()
		lines := log.take()
		require.Len(t, lines, 1)
		require.Contains(t, lines[0], `err="out of order" left_out=90`)
		s.Close()
		require.ErrorIs(t, wait(), ErrServerClosed)
	})
}

// Likewise for flows of datagrams.
func TestFlowsNotServedDoNotFillTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lineLog
		r := newUDP(t, &UDPProxy{Tries: -1}, "10.0.0.1:53")
		r.p.Logger = log.logger()
		r.p.OnDone = nil // would get them
		r.serve()
		r.servers["10.0.0.1:53"] = func([]byte) ([]string, error) { return nil, syscall.ECONNREFUSED }
		send := func(port int) {
			r.send(fmt.Sprintf("192.0.2.1:%d", port), "q")
			synctest.Wait()
			require.Zero(t, r.p.Flows())
		}
		for i := range 100 {
			send(1000 + i)
		}
		lines := log.take()
		require.Len(t, lines, 10)
		for i, l := range lines {
			require.Contains(t, l, fmt.Sprintf(`client=192.0.2.1:%d server=10.0.0.1:53 err="connection refused"`, 1000+i))
		}
		time.Sleep(time.Second)
		send(2000)
		require.Contains(t, log.take()[0], "left_out=90")
		r.stop(t)
	})
}
