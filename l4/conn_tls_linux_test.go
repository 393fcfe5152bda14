// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"crypto/tls"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A between is a wrapper between TLS and its socket. It notes whether each write was
// made while more was announced.
type between struct {
	net.Conn
	c    *Conn
	more []bool
}

func (b *between) NetConn() net.Conn { return b.c }

func (b *between) Write(p []byte) (int, error) {
	b.more = append(b.more, b.c.more.Load())
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
		assert.False(t, under.more.Load())
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
