// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// sendUrgent sends a byte of urgent data (RFC 9293, section 3.8.5).
func sendUrgent(t *testing.T, c *net.TCPConn) {
	t.Helper()
	raw, err := c.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Control(func(fd uintptr) {
		require.NoError(t, syscall.Sendto(int(fd), []byte{'!'}, syscall.MSG_OOB, nil))
	}))
}

// A read or splice ends at urgent data, and does not mean that there is no more behind it. The
// urgent byte itself is not passed on.
func TestNothingIsLostBehindUrgentData(t *testing.T) {
	for _, bulk := range []bool{false, true} {
		for _, ends := range []bool{false, true} {
			near, client := sockets(t)
			toServer, server := sockets(t)
			before, behind := strings.Repeat("a", 1000), strings.Repeat("b", 2000)
			_, err := io.WriteString(client, before)
			require.NoError(t, err)
			sendUrgent(t, client)
			_, err = io.WriteString(client, behind)
			require.NoError(t, err)
			if ends {
				require.NoError(t, client.CloseWrite())
			}
			r := &relay{}
			over := make(chan struct{})
			r.init(NewConn(near), NewConn(toServer), (&RelayOptions{}).complete(), func(*relay) { close(over) })
			if bulk {
				r.up.full = bulkAfter
			}
			require.True(t, r.wire(runParker(t)))
			require.NoError(t, server.SetReadDeadline(time.Now().Add(10*time.Second)))
			got := make([]byte, 3000)
			n, err := io.ReadFull(server, got)
			require.NoError(t, err, "bulk: %v, ends: %v, got %d bytes", bulk, ends, n)
			require.Equal(t, before+behind, string(got))
			if !ends {
				require.NoError(t, client.CloseWrite())
			}
			wantError(t, server, io.EOF)
			server.Close()
			<-over
			require.Equal(t, RelayResult{AtoB: 3000}, r.result())
		}
	}
}

// The same of what is behind a message with descriptors, which are not passed on.
func TestNothingIsLostBehindDescriptors(t *testing.T) {
	for name, adopt := range map[string]func(net.Conn) net.Conn{"of net": func(nc net.Conn) net.Conn { return nc }, "sock": Adopt} {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir() + "/s"
			ln, err := net.Listen("unix", path)
			require.NoError(t, err)
			defer ln.Close()
			near, err := net.Dial("unix", path)
			require.NoError(t, err)
			client, err := ln.Accept()
			require.NoError(t, err)
			defer client.Close()
			toServer, server := sockets(t)
			null, err := os.Open(os.DevNull)
			require.NoError(t, err)
			defer null.Close()
			_, _, err = client.(*net.UnixConn).WriteMsgUnix([]byte("with"), syscall.UnixRights(int(null.Fd())), nil)
			require.NoError(t, err)
			_, err = io.WriteString(client, "behind")
			require.NoError(t, err)
			r := &relay{}
			over := make(chan struct{})
			a := NewConn(adopt(near))
			defer a.Close()
			r.init(a, NewConn(toServer), (&RelayOptions{}).complete(), func(*relay) { close(over) })
			require.True(t, r.wire(runParker(t)))
			require.NoError(t, server.SetReadDeadline(time.Now().Add(10*time.Second)))
			got := make([]byte, len("withbehind"))
			_, err = io.ReadFull(server, got)
			require.NoError(t, err)
			require.Equal(t, "withbehind", string(got))
			require.NoError(t, client.Close())
			wantError(t, server, io.EOF)
			server.Close()
			<-over
		})
	}
}
