// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"crypto/tls"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A between is a wrapper between TLS and its socket. It notes whether each write was
// made while more was announced.
type between struct {
	net.Conn
	c    *Conn
	more []bool

	deadlines int // times that one was set
}

func (b *between) NetConn() net.Conn { return b.c }

func (b *between) Write(p []byte) (int, error) {
	b.more = append(b.more, b.c.flags.has(moreFollows))
	return b.Conn.Write(p)
}

// All records of a long write but the last are sent as parts of larger segments.
func TestConnSendsRecordsTogether(t *testing.T) {
	client, server := tcpPair(t)
	defer client.Close()
	under := NewConn(server)
	w := &between{Conn: under, c: under}
	cfg := testConfig(t, "a.test")
	cfg.DynamicRecordSizingDisabled = true
	c := NewConn(tls.Server(w, cfg))
	defer c.Close()
	got := make(chan int64)
	go func() {
		n, _ := io.Copy(io.Discard, tls.Client(client, &tls.Config{InsecureSkipVerify: true}))
		got <- n
	}()
	require.NoError(t, c.nc.(*tls.Conn).Handshake())

	total := 0
	write := func(n int, write func([]byte) (int, error), more ...bool) {
		w.more = nil
		m, err := write(make([]byte, n))
		require.NoError(t, err)
		require.Equal(t, n, m)
		assert.Equal(t, more, w.more, n)
		assert.False(t, under.flags.has(moreFollows))
		total += n
	}
	write(1, c.Write, false)
	write(maxRecord, c.Write, false)
	write(maxRecord+1, c.Write, true, false)
	write(4*maxRecord, c.Write, true, true, true, false)
	write(1, c.WriteMore, true)
	write(maxRecord+1, c.WriteMore, true, true)
	write(1, c.Write, false)

	assert.EqualValues(t, total, c.BytesWritten())
	require.NoError(t, c.CloseWrite())
	assert.EqualValues(t, total, <-got)
}

func (b *between) SetReadDeadline(t time.Time) error {
	b.deadlines++
	return b.Conn.SetReadDeadline(t)
}

// What TLS holds is taken without a change of the deadline, which takes longer than to read
// it, and without a wait for more.
func TestConnDrainsTLSWithoutADeadline(t *testing.T) {
	client, server := tcpPair(t)
	defer client.Close()
	under := NewConn(server)
	w := &between{Conn: under, c: under}
	c := NewConn(tls.Server(w, testConfig(t, "a.test")))
	defer c.Close()
	peer := tls.Client(client, &tls.Config{InsecureSkipVerify: true})
	go peer.Handshake()
	require.NoError(t, c.nc.(*tls.Conn).Handshake())

	pool := &BufferPool{}
	for _, word := range []string{"one", "more", "still"} {
		_, err := peer.Write([]byte(word))
		require.NoError(t, err)
		b, err := c.ReadBuffer(pool)
		require.NoError(t, err)
		assert.Equal(t, word, string(b.B))
		pool.Put(b)
		b, err = c.TryReadBuffer(pool)
		require.NoError(t, err)
		assert.Nil(t, b)
	}
	assert.Zero(t, w.deadlines)
	require.NoError(t, c.SetReadDeadline(time.Unix(1, 0)))
	_, err := c.ReadBuffer(pool)
	assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
}

// TLS over what is not a socket writes as before.
func TestConnFindsTheSocketUnderTLS(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	assert.Nil(t, socketUnder(nil))
	assert.Nil(t, socketUnder(a))
	assert.Nil(t, socketUnder(NewConn(a)))
	_, server := tcpPair(t)
	defer server.Close()
	assert.Nil(t, socketUnder(server), "a bare socket is written to by its own methods")
	c := NewConn(server)
	assert.Same(t, c, socketUnder(tls.Server(&between{Conn: c, c: c}, nil)))
}
