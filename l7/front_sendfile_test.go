// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bytes"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4"
)

// A file goes to a slow client whole, by the kernel, although the bound of writes is
// looked at many times; and to one that takes nothing it does not go for ever.
func TestFileIsSentToSlowClient(t *testing.T) {
	content := make([]byte, 24<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(content)
	name := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(name, content, 0o600))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	const bound = 2 * time.Second // a busy machine may keep this process waiting as well
	srv := &Server{SendTimeout: bound, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, name) })}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	defer func() {
		require.NoError(t, srv.Close())
		require.ErrorIs(t, <-done, http.ErrServerClosed)
	}()
	ask := func() *http.Response {
		tr := &http.Transport{ReadBufferSize: 4 << 10}
		t.Cleanup(tr.CloseIdleConnections)
		resp, err := (&http.Client{Transport: tr}).Get("http://" + ln.Addr().String() + "/file")
		require.NoError(t, err)
		return resp
	}
	resp := ask()
	sum := sha256.New()
	for {
		n, err := io.CopyN(sum, resp.Body, 4<<20)
		if time.Sleep(bound / 4); err != nil || n == 0 { // more than a fifth of the bound
			break
		}
	}
	resp.Body.Close()
	want := sha256.Sum256(content)
	require.True(t, bytes.Equal(want[:], sum.Sum(nil)))

	resp = ask() // and nothing is read for longer than the bound
	defer resp.Body.Close()
	open := srv.Stats().Open
	require.Eventually(t, func() bool { return srv.Stats().Open < open }, time.Minute, 10*time.Millisecond)
	got, err := io.ReadAll(resp.Body)
	require.Error(t, err)
	require.Less(t, len(got), len(content))
}

// What net/http gives a connection is sent by the kernel if it is a file, and is
// counted as the reader that it is.
func TestHandedConnReadsFromFiles(t *testing.T) {
	nc, peer := pairOfTCP(t)
	got := make(chan string, 1)
	go func() { b, _ := io.ReadAll(peer); got <- string(b) }()
	name := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(name, []byte("0123456789"), 0o600))
	f, err := os.Open(name)
	require.NoError(t, err)
	defer f.Close()
	_, _ = f.Seek(2, io.SeekStart)
	h := &handedConn{Conn: l4.NewConn(nc)}
	l := &io.LimitedReader{R: f, N: 5}
	n, err := h.ReadFrom(l)
	require.NoError(t, err)
	require.EqualValues(t, 5, n)
	require.EqualValues(t, 0, l.N)
	n, err = h.ReadFrom(f) // to its end
	require.NoError(t, err)
	require.EqualValues(t, 3, n)
	n, err = h.ReadFrom(io.LimitReader(bytes.NewReader([]byte("abc")), 2))
	require.NoError(t, err)
	require.EqualValues(t, 2, n)
	_ = nc.Close()
	require.Equal(t, "23456789ab", <-got)
}

// The type of a file is guessed by its first bytes, after those that the handler has
// written before, as net/http does.
func TestTypeOfAFileIsGuessed(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	page := "<html>" + strings.Repeat("a page ", 1000)
	require.NoError(t, os.WriteFile(name, []byte(page), 0o600))
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, err := os.Open(name)
		if err != nil {
			panic(err)
		}
		defer f.Close()
		before := r.URL.Query().Get("before")
		n, _ := strconv.Atoi(r.URL.Query().Get("n"))
		w.Header().Set("Content-Length", strconv.Itoa(len(before)+n))
		w.WriteHeader(200)
		_, _ = io.WriteString(w, before)
		m, err := io.Copy(w, io.LimitReader(f, int64(n)))
		if err != nil || m != int64(n) {
			panic("not all")
		}
	})
	replies := make(map[string]string)
	for _, srv := range []interface {
		Serve(net.Listener) error
		Close() error
	}{&http.Server{Handler: h}, &Server{Handler: h}} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		done := make(chan error, 1)
		go func() { done <- srv.Serve(ln) }()
		for _, target := range []string{"/?n=7000", "/?n=512", "/?n=10", "/?n=0", "/?n=7000&before=plain+text"} {
			c, err := net.Dial("tcp", ln.Addr().String())
			require.NoError(t, err)
			_, _ = io.WriteString(c, "GET "+target+" HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
			b, err := io.ReadAll(c)
			require.NoError(t, err)
			_ = c.Close()
			reply := dateLine.ReplaceAllString(string(b), "")
			if want, ok := replies[target]; ok {
				require.Equal(t, want, reply)
			}
			replies[target] = reply
		}
		require.NoError(t, srv.Close())
		require.ErrorIs(t, <-done, http.ErrServerClosed)
	}
	require.Contains(t, replies["/?n=7000"], "Content-Type: text/html")
	require.Contains(t, replies["/?n=7000&before=plain+text"], "Content-Type: text/plain")
}
