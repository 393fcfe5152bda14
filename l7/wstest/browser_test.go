// SPDX-License-Identifier: Apache-2.0

package wstest

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7"
)

// browserPage sends messages of all lengths of a frame's head, and tells what came of it. It
// asks again for a WebSocket that is refused before it opens.
const browserPage = `<!doctype html><script>
const tell = what => fetch("/done", {method: "POST", body: what});
const sizes = [0, 125, 126, 65535, 65536, 3000000];
const data = n => new Uint8Array(n).map((_, i) => i * 7);
const chat = async tries => {
	await fetch("/again"); // by the connection that the browser has now
	const ws = new WebSocket("wss://" + location.host + "/chat", ["chat"]);
	ws.binaryType = "arraybuffer";
	let came = 0, opened = false;
	ws.onopen = () => { opened = true; for (const n of sizes) ws.send(data(n)); ws.send("text é"); };
	ws.onmessage = e => {
		if (typeof e.data === "string") {
			if (e.data === "text é" && came === sizes.length) came++;
			ws.close(3001, "enough");
			return;
		}
		const got = new Uint8Array(e.data), want = data(sizes[came]);
		if (got.length !== want.length || !got.every((b, i) => b === want[i])) tell("message " + came + " is different");
		came++;
	};
	ws.onclose = e => {
		if (!opened && tries > 1) setTimeout(chat, 300, tries - 1);
		else tell([ws.protocol, came, e.code, e.wasClean].join(" "));
	};
};
chat(10);
</script>`

// TestBrowser has a page in Chromium open a WebSocket over wss, in the HTTP/2 connection
// by which the page came (RFC 8441), to a server of HTTP/1.
func TestBrowser(t *testing.T) {
	chromium, err := exec.LookPath("chromium")
	if err != nil || testing.Short() {
		t.Skip("no chromium in PATH")
	}
	if ranInOwnNetwork(t) {
		return
	}
	cert := httptest.NewUnstartedServer(nil)
	cert.StartTLS() // for its certificate
	defer cert.Close()
	echo := gateway(t, serve(t, &http.Server{Handler: http.HandlerFunc(echoGorilla)}), false)
	done := make(chan string, 1)
	var connected, refused, others atomic.Int32
	front := &l7.Server{
		TLSConfig: &tls.Config{Certificates: cert.TLS.Certificates},
		Logger:    quiet,
		Handler: l7.HandlerFunc(func(x *l7.Exchange) {
			switch x.Path {
			case "/chat":
				if x.Record.Front != l7.FrontHTTP2 { // Chromium has just retired its connection, as it does now and then when it starts on a busy machine
					refused.Add(1)
					x.Error(http.StatusServiceUnavailable, l4.Termination{Cause: l4.Denied})
					return
				}
				connected.Add(1)
				echo.ServeExchange(x)
			case "/done":
				body, _ := io.ReadAll(x.Body())
				x.Respond(200, nil, "")
				done <- string(body)
			default:
				header := l7.MakeFields("Content-Type", "text/html; charset=utf-8")
				x.Respond(200, &header, browserPage)
			}
		}),
		OnDone: func(r *l7.Record) {
			if r.Front != l7.FrontHTTP2 && r.Path != "/chat" {
				others.Add(1)
			}
		},
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go front.ServeTLS(ln, "", "")
	t.Cleanup(func() { front.Close() })

	key := sha256.Sum256(cert.Certificate().RawSubjectPublicKeyInfo)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, chromium, "--headless", "--no-sandbox", "--disable-gpu", "--user-data-dir="+t.TempDir(),
		"--ignore-certificate-errors-spki-list="+base64.StdEncoding.EncodeToString(key[:]), "https://"+ln.Addr().String()+"/")
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill()
		io.Copy(io.Discard, out) // its children write into the folder that is removed next, until they close the pipe
		cmd.Wait()
	}()
	select {
	case got := <-done:
		if got != "chat 7 3001 true" {
			t.Errorf("the page says %q", got)
		}
	case <-ctx.Done():
		t.Fatal("Chromium does not come to the end of the page")
	}
	if n := refused.Load(); n > 0 {
		t.Logf("Chromium asked for a WebSocket over HTTP/1 %d times", n)
	}
	if connected.Load() != 1 || others.Load() != 0 {
		t.Errorf("%d WebSockets over HTTP/2, %d exchanges over other fronts", connected.Load(), others.Load())
	}
}

// ranInOwnNetwork runs the test again, in a network of its own where that can be had. Chromium
// closes its connections, or takes new ones, when any interface of its network comes or goes.
func ranInOwnNetwork(t *testing.T) bool {
	unshare := []string{"--net", "--map-root-user", "sh", "-c", `ip link set lo up && exec "$0" "$@"`}
	if os.Getenv("PENSTOCK_NETWORK") != "" || exec.Command("unshare", append(unshare, "true")...).Run() != nil {
		return false
	}
	cmd := exec.CommandContext(t.Context(), "unshare", append(unshare, os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=3m")...)
	cmd.Env = append(os.Environ(), "PENSTOCK_NETWORK=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("%v: %s", err, out)
	}
	return true
}
