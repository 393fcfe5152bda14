// SPDX-License-Identifier: Apache-2.0

//go:build !race && !386 && !s390x

package l7

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// segmentsIn returns how many TCP segments c has received: tcpi_segs_in of tcp(7).
func segmentsIn(t *testing.T, c net.Conn) uint32 {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	require.NoError(t, err)
	var info [256]byte
	size := uint32(len(info))
	require.NoError(t, raw.Control(func(fd uintptr) {
		_, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, fd, syscall.IPPROTO_TCP, syscall.TCP_INFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
		require.Zero(t, errno)
	}))
	require.Greater(t, size, uint32(144), "an old kernel")
	return binary.NativeEndian.Uint32(info[140:])
}

// The end of a connection goes in one packet with its last reply. Over TLS close_notify
// does, before FIN.
func TestEndGoesWithTheReply(t *testing.T) {
	cert := httptest.NewUnstartedServer(nil)
	cert.StartTLS()
	cert.Close()
	for _, secure := range []bool{false, true} {
		srv := &Server{Handler: HandlerFunc(func(x *Exchange) { x.Respond(http.StatusOK, nil, "the reply") })}
		serve, want := srv.Serve, uint32(1)
		if secure {
			srv.TLSConfig = &tls.Config{Certificates: cert.TLS.Certificates}
			serve, want = func(ln net.Listener) error { return srv.ServeTLS(ln, "", "") }, 2
		}
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		go func() { _ = serve(ln) }()
		defer srv.Close()
		// More arrive if the kernel acknowledges the request before the reply is there.
		var got uint32
		for range 20 {
			if got = segmentsOfTheEnd(t, ln.Addr().String(), secure); got == want {
				break
			}
		}
		require.Equal(t, want, got, "secure: %v", secure)
	}
}

// segmentsOfTheEnd returns how many segments the last of two requests gets for a reply.
func segmentsOfTheEnd(t *testing.T, addr string, secure bool) uint32 {
	bare, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer bare.Close()
	c := bare
	if secure {
		c = tls.Client(bare, &tls.Config{InsecureSkipVerify: true})
	}
	_, err = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	require.NoError(t, err)
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, resp.Body)
	require.NoError(t, err)
	before := segmentsIn(t, bare)
	_, err = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	require.NoError(t, err)
	_, err = io.ReadAll(r)
	require.NoError(t, err)
	return segmentsIn(t, bare) - before
}
