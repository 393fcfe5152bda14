// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// start runs the command with these flags until the end of the test, and
// returns the addresses it listens on, by flag.
func start(t *testing.T, args ...string) map[string]string {
	o, err := ParseOptions(args, t.Output())
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ready, done := make(chan map[string]string, 1), make(chan error, 1)
	go func() { done <- Run(ctx, o, func(addr map[string]string) { ready <- addr }) }()
	select {
	case addr := <-ready:
		t.Cleanup(func() {
			stop()
			require.NoError(t, <-done, "it ends well when told to")
		})
		return addr
	case err := <-done:
		stop()
		require.NoError(t, err)
		return nil
	}
}

// origin is an HTTP server that names itself and what it was asked.
func origin(t *testing.T, name string) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%s %s %s%s %d %s %s %s", name, r.Method, r.Host, r.URL, n,
			r.Header["X-Forwarded-For"], r.Header["X-Forwarded-Proto"], r.Header["X-Forwarded-Host"])
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func TestUDP(t *testing.T) {
	back, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	defer back.Close()
	go func() {
		b := make([]byte, 100)
		for {
			n, from, err := back.ReadFrom(b)
			if err != nil {
				return
			}
			back.WriteTo([]byte("re: "+string(b[:n])), from)
		}
	}()
	addr := start(t, "-udp", "127.0.0.1:0", "-to", back.LocalAddr().String(), "-check-interval", "0", "-timeout", "1s")
	c, err := net.Dial("udp", addr["-udp"])
	require.NoError(t, err)
	defer c.Close()
	for _, text := range []string{"one", "two"} {
		fmt.Fprint(c, text)
		b := make([]byte, 100)
		n, err := c.Read(b)
		require.NoError(t, err)
		require.Equal(t, "re: "+text, string(b[:n]))
	}
	_, err = ParseOptions([]string{"-udp", "nowhere", "-to", "a:1"}, io.Discard)
	require.Error(t, err)
}

func TestTCP(t *testing.T) {
	addr := start(t, "-tcp", "127.0.0.1:0", "-to", origin(t, "a"), "-balance", "roundrobin")
	c, err := net.Dial("tcp", addr["-tcp"])
	require.NoError(t, err)
	defer c.Close()
	fmt.Fprintf(c, "GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
	all, err := io.ReadAll(bufio.NewReader(c))
	require.NoError(t, err)
	require.Contains(t, string(all), "a GET h/x 0 [] [] []", "bytes pass as they are")
}

func TestServersFromAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "servers")
	write := func(addr string) {
		require.NoError(t, os.WriteFile(path+".new", []byte(addr+" weight=2\n"), 0o600))
		require.NoError(t, os.Rename(path+".new", path))
	}
	write(origin(t, "a"))
	addr := start(t, "-http", "127.0.0.1:0", "-from", path)
	get := func() string {
		res, err := http.Get("http://" + addr["-http"])
		require.NoError(t, err)
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		return string(body)
	}
	require.Contains(t, get(), "a GET")
	write(origin(t, "b"))
	require.Eventually(t, func() bool { return strings.Contains(get(), "b GET") }, 20*time.Second, 10*time.Millisecond)
}

func TestTakenAddress(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	err = Run(t.Context(), &Options{TCP: ln.Addr().String(), Balance: "random2", To: []string{"127.0.0.1:1"}}, nil)
	require.ErrorContains(t, err, "-tcp: listen")
}

func TestCPUProfile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cpu.pprof")
	stop, err := profile(file)
	require.NoError(t, err)
	stop()
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "\x1f\x8b", string(b[:2]), "a profile is gzipped")
	_, err = profile(filepath.Join(t.TempDir(), "no", "such", "folder"))
	require.ErrorIs(t, err, os.ErrNotExist)
}
