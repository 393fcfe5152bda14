// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"os/exec"
	"testing"
	"time"

	"github.com/oauth2-proxy/mockoidc"
	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7"
)

// TestLogin goes through a login as a browser does, with the oauth2-proxy in PATH
// (go install github.com/oauth2-proxy/oauth2-proxy/v7@latest).
func TestLogin(t *testing.T) {
	program, err := exec.LookPath("oauth2-proxy")
	if err != nil {
		t.Skip("no oauth2-proxy in PATH")
	}
	provider, err := mockoidc.Run()
	require.NoError(t, err)
	defer func() { _ = provider.Shutdown() }()

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	service, err := net.Listen("tcp", "127.0.0.1:0") // a free port, which oauth2-proxy takes over
	require.NoError(t, err)
	require.NoError(t, service.Close())
	gateway := "http://" + ln.Addr().String()
	cmd := exec.CommandContext(t.Context(), program, "--reverse-proxy", "--upstream=static://202", "--set-xauthrequest", "--skip-provider-button",
		"--http-address="+service.Addr().String(), "--redirect-url="+gateway+"/oauth2/callback",
		"--provider=oidc", "--oidc-issuer-url="+provider.Issuer(), "--client-id="+provider.ClientID, "--client-secret="+provider.ClientSecret,
		"--email-domain=*", "--cookie-secret=0123456789abcdef0123456789abcdef", "--cookie-secure=false", "--trusted-proxy-ip=127.0.0.1")
	var log logWriter
	cmd.Stdout, cmd.Stderr = &log, &log
	require.NoError(t, cmd.Start())
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s", log.b)
		}
	}()
	require.Eventually(t, func() bool {
		c, err := net.Dial("tcp", service.Addr().String())
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	}, time.Minute, 20*time.Millisecond)

	pool := &balance.Pool{Name: "login"}
	require.NoError(t, pool.Set(balance.Endpoint{Addr: service.Addr().String()}))
	server := &l7.Server{Handler: Login(pool, hello)}
	go func() { _ = server.Serve(ln) }()
	defer server.Close()

	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	browser := &http.Client{Jar: jar, Timeout: 30 * time.Second}
	var way []string
	browser.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
		way = append(way, r.URL.Host+r.URL.Path)
		return nil
	}
	get := func(path string, fields ...string) (int, string, string) {
		r, err := http.NewRequest(http.MethodGet, gateway+path, nil)
		require.NoError(t, err)
		for i := 0; i < len(fields); i += 2 {
			r.Header.Set(fields[i], fields[i+1])
		}
		res, err := browser.Do(r)
		require.NoError(t, err)
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		return res.StatusCode, string(body), res.Request.URL.RequestURI()
	}

	status, body, _ := get("/api", "Accept", "application/json", "X-Auth-Request-Email", "root@example.com")
	require.Equal(t, http.StatusUnauthorized, status, body)
	require.Empty(t, way, "a script is not led to the login")
	status, body, at := get("/cart?item=1", "Accept", "text/html", "X-Auth-Request-Email", "root@example.com")
	require.Equal(t, http.StatusOK, status, body)
	require.Equal(t, "hello "+mockoidc.DefaultUser().Email, body)
	require.Equal(t, "/cart?item=1", at, "by way of %v", way)
	require.Contains(t, way, ln.Addr().String()+"/oauth2/callback")
	way = nil
	status, body, _ = get("/api", "Accept", "application/json")
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, "hello "+mockoidc.DefaultUser().Email, body)
	require.Empty(t, way)
	jar, err = cookiejar.New(nil)
	require.NoError(t, err)
	browser.Jar = jar
	status, _, _ = get("/api", "Accept", "application/json", "Cookie", "_oauth2_proxy=forged|1|x")
	require.Equal(t, http.StatusUnauthorized, status)
}

// logWriter keeps what a process says; one goroutine of exec writes it.
type logWriter struct{ b []byte }

func (l *logWriter) Write(b []byte) (int, error) {
	l.b = append(l.b, b...)
	return len(b), nil
}
