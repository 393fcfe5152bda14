// SPDX-License-Identifier: Apache-2.0

package h3_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/h3"
)

// interop is a Front over a socket, for ngtcp2's client, which shares no code with ours.
type interop struct {
	*testing.T
	client string // its path
	port   string
	srv    *l7.Server
	front  *h3.Front
}

func newInterop(t *testing.T, handler http.HandlerFunc, change func(*h3.Front)) *interop {
	t.Helper()
	client, err := exec.LookPath("gtlsclient")
	if err != nil {
		t.Skip("no gtlsclient in PATH")
	}
	cert := httptest.NewUnstartedServer(nil)
	cert.StartTLS() // for its certificate
	t.Cleanup(cert.Close)
	i := &interop{T: t, client: client}
	i.srv = &l7.Server{Handler: handler, TLSConfig: &tls.Config{Certificates: cert.TLS.Certificates, ClientAuth: tls.RequestClientCert}}
	i.front = &h3.Front{Server: i.srv}
	if change != nil {
		change(i.front)
	}
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	_, i.port, err = net.SplitHostPort(udp.LocalAddr().String())
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- i.front.ServeTLS(udp, "", "") }()
	t.Cleanup(func() {
		require.NoError(t, i.srv.Close())
		require.ErrorIs(t, <-ended, l7.ErrServerClosed)
	})
	return i
}

// ask runs the client with the options, and returns what it has downloaded from /file.
func (i *interop) ask(options ...string) []byte {
	i.Helper()
	ctx, cancel := context.WithTimeout(i.Context(), 2*time.Minute)
	defer cancel()
	dir := i.TempDir()
	args := append([]string{"--quiet", "--no-quic-dump", "--no-http-dump", "--exit-on-all-streams-close", "--download=" + dir, "--sni=example.com"}, options...)
	out, err := exec.CommandContext(ctx, i.client, append(args, "127.0.0.1", i.port, "https://example.com/file")...).CombinedOutput()
	require.NoError(i, err, string(out))
	b, err := os.ReadFile(filepath.Join(dir, "file"))
	require.NoError(i, err, string(out))
	return b
}

// TestInterop is what a client made by others, and of another TLS library, asks of a
// server: the cases of the QUIC interop runner that concern one.
func TestInterop(t *testing.T) {
	large := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
	upload := filepath.Join(t.TempDir(), "upload")
	require.NoError(t, os.WriteFile(upload, large, 0o600))
	some := large[:1<<17]
	slowly := func(w http.ResponseWriter, r *http.Request) { // in pieces, so that things happen between them
		for b := some; len(b) > 0; b = b[1<<14:] {
			_, _ = w.Write(b[:1<<14])
			_ = http.NewResponseController(w).Flush()
			select {
			case <-time.After(50 * time.Millisecond):
			case <-r.Context().Done():
				return
			}
		}
	}
	echo := func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }
	retry := func(f *h3.Front) {
		f.Configure = func(tr *quic.Transport, _ *quic.Config) { tr.VerifySourceAddress = func(net.Addr) bool { return true } }
	}
	for _, tc := range []struct {
		name    string
		serve   http.HandlerFunc
		change  func(*h3.Front)
		options []string
		want    []byte
	}{
		{name: "get", options: []string{"--http-method=GET"}},
		{name: "post", options: []string{"--http-method=POST", "--data=" + upload}, serve: echo, want: large},
		{name: "post unread", options: []string{"--http-method=POST", "--data=" + upload}},
		{name: "chacha20", options: []string{"--ciphers=NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+CHACHA20-POLY1305"}},
		{name: "hello retry", options: []string{"--groups=-GROUP-ALL:+GROUP-SECP521R1:+GROUP-SECP256R1"}},
		{name: "retry", change: retry},
		{name: "version negotiation", options: []string{"--version=v2draft", "--preferred-versions=v1,v2draft"}},
		{name: "no connection id", options: []string{"--scid="}},
		{name: "small windows", options: []string{"--max-data=2K", "--max-stream-data-bidi-local=1K", "--max-window=4K", "--max-stream-window=4K"}, serve: func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(some) }, want: some},
		{name: "many", options: []string{"--nstreams=200"}},
		{name: "loss", options: []string{"--tx-loss=0.03", "--rx-loss=0.03", "--initial-rtt=10ms"}, serve: func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(large) }, want: large},
		{name: "key update", options: []string{"--key-update=100ms"}, serve: slowly, want: some}, // quic-go has one of its own after 100 packets
		{name: "migration", options: []string{"--change-local-addr=100ms"}, serve: slowly, want: some},
		{name: "rebinding", options: []string{"--change-local-addr=100ms", "--nat-rebinding", "--delay-stream=200ms", "--http-method=POST", "--data=" + upload}, serve: echo, want: large},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if tc.serve == nil {
				tc.serve, tc.want = func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }, []byte("HTTP/3.0")
			}
			got := newInterop(t, tc.serve, tc.change).ask(tc.options...)
			require.True(t, bytes.Equal(tc.want, got), "%d bytes; want %d", len(got), len(tc.want))
		})
	}
}

// A client that resumes its session sends its request with the first packets.
func TestInteropEarlyData(t *testing.T) {
	for _, tc := range []struct {
		name, method    string
		early           func(*http.Request) bool
		served, refused uint64
	}{
		{"none", "GET", nil, 0, 0},
		{"safe", "GET", h3.Safe, 1, 0},
		{"not safe", "POST", h3.Safe, 0, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			i := newInterop(t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.WriteString(w, strings.TrimSpace("early "+r.Header.Get("Early-Data")))
				_ = http.NewResponseController(w).Flush()
				time.Sleep(100 * time.Millisecond) // the ticket comes before the client leaves
			}, func(f *h3.Front) { f.Early = tc.early })
			dir := t.TempDir()
			keep := []string{"--session-file=" + dir + "/session", "--tp-file=" + dir + "/tp", "--http-method=" + tc.method}
			require.Equal(t, "early", string(i.ask(keep...)))
			require.FileExists(t, dir+"/session")
			want := map[bool]string{false: "early", true: "early 1"}[tc.served > 0]
			if got := string(i.ask(keep...)); tc.refused == 0 {
				require.Equal(t, want, got)
			}
			st := i.front.Stats()
			require.Equal(t, [2]uint64{tc.served, tc.refused}, [2]uint64{st.Early, st.TooEarly})
		})
	}
}

// Shutdown lets a client have the reply that it waits for, and tells it to leave.
func TestInteropShutdown(t *testing.T) {
	asked := make(chan struct{})
	i := newInterop(t, func(w http.ResponseWriter, _ *http.Request) {
		close(asked)
		time.Sleep(200 * time.Millisecond) // GOAWAY comes first
		_, _ = io.WriteString(w, "the end")
	}, nil)
	done := make(chan error, 1)
	go func() {
		<-asked
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		done <- i.srv.Shutdown(ctx)
	}()
	require.Equal(t, "the end", string(i.ask()))
	require.NoError(t, <-done)
	require.Equal(t, uint64(1), i.front.Stats().GoAways)
}
