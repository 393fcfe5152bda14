// SPDX-License-Identifier: Apache-2.0

package h3_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"io"
	"net"
	"net/http/httptest"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/h3"
)

// browserPage sends more than the windows hold, and tells what came of it and by what.
const browserPage = `<!doctype html><script>
(async () => {
	const res = await fetch("/echo", {method: "POST", body: "x".repeat(3000000)});
	const text = await res.text();
	const hops = performance.getEntries().filter(e => e.nextHopProtocol).map(e => e.nextHopProtocol);
	await fetch("/done", {method: "POST", body: [res.status, text.length, ...hops].join(" ")});
})();
</script>`

// TestBrowser has Chromium fetch a page over HTTP/3 and send a body from it.
func TestBrowser(t *testing.T) {
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("no chromium in PATH")
	}
	cert := httptest.NewUnstartedServer(nil)
	cert.StartTLS() // for its certificate
	defer cert.Close()
	done := make(chan string, 1)
	var others atomic.Int32
	gateway := &l7.Server{
		TLSConfig: &tls.Config{Certificates: cert.TLS.Certificates},
		Handler: l7.HandlerFunc(func(x *l7.Exchange) {
			if x.Path != "/echo" && x.Path != "/done" {
				header := l7.MakeFields("Content-Type", "text/html")
				x.Respond(200, &header, browserPage)
				return
			}
			body, err := io.ReadAll(x.Body())
			if err != nil {
				x.Respond(400, nil, err.Error())
				return
			}
			x.Respond(200, nil, string(body))
			if x.Path == "/done" {
				done <- string(body)
			}
		}),
		OnDone: func(r *l7.Record) {
			if r.Front != l7.FrontHTTP3 {
				others.Add(1)
			}
		},
	}
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	front := &h3.Front{Server: gateway}
	go func() { _ = front.ServeTLS(udp, "", "") }()

	key := sha256.Sum256(cert.Certificate().RawSubjectPublicKeyInfo)
	_, port, err := net.SplitHostPort(udp.LocalAddr().String())
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), chromium, "--headless", "--no-sandbox", "--disable-gpu", "--user-data-dir="+t.TempDir(),
		"--host-resolver-rules=MAP example.com 127.0.0.1", "--origin-to-force-quic-on=example.com:"+port,
		"--ignore-certificate-errors-spki-list="+base64.StdEncoding.EncodeToString(key[:]), "https://example.com:"+port+"/")
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	defer func() {
		_ = cmd.Process.Kill()
		_, _ = io.Copy(io.Discard, out) // its children write into the folder that is removed next, until they close the pipe
		_ = cmd.Wait()
	}()
	select {
	case got := <-done:
		require.Regexp(t, `^200 3000000 h3 h3( h3)*$`, got)
	case <-time.After(2 * time.Minute):
		require.Fail(t, "Chromium does not come to the end of the page")
	}
	require.Zero(t, others.Load())
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_ = gateway.Shutdown(ctx)
}
