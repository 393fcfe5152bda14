// SPDX-License-Identifier: Apache-2.0

package penstock_test

import (
	"context"
	"fmt"
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

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/health"
	"github.com/penstock-lb/penstock/l7"
)

// Two servers, one gateway: the program of the README, with an end.
func Example() {
	pool := &balance.Pool{Name: "web", Policy: balance.RoundRobin{}}
	if err := pool.Set(
		balance.Endpoint{Addr: hello("one")},
		balance.Endpoint{Addr: hello("two"), Weight: 2},
	); err != nil {
		panic(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	checker := &health.Checker{Pools: []*balance.Pool{pool}, Probe: health.HTTP{Path: "/healthy"}}
	go checker.Run(ctx)

	gateway := &l7.Server{Handler: &l7.Proxy{Pool: pool}}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go gateway.Serve(ln)

	count := map[string]int{}
	for range 9 {
		count[get("http://"+ln.Addr().String())]++
	}
	fmt.Println(count)

	stop()
	fmt.Println("shut down:", gateway.Shutdown(context.Background()))
	// Output:
	// map[one:3 two:6]
	// shut down: <nil>
}

// hello starts a server that answers with its name, and returns its address.
func hello(name string) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, name) }))
	return s.Listener.Addr().String()
}

func get(url string) string {
	resp, err := http.Get(url)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return string(body)
}

// TestREADME runs the program of README.md as it stands there, but for its
// three addresses.
func TestREADME(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a program")
	}
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	_, program, found := strings.Cut(string(readme), "```go\n")
	require.True(t, found)
	program, _, _ = strings.Cut(program, "```")
	require.LessOrEqual(t, strings.Count(program, "\n"), 30, "short enough for a first look")

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	front := ln.Addr().String()
	require.NoError(t, ln.Close())
	for from, to := range map[string]string{"127.0.0.1:8080": front, "127.0.0.1:8081": hello("one"), "127.0.0.1:8082": hello("two")} {
		require.Equal(t, 1, strings.Count(program, from), from)
		program = strings.Replace(program, from, to, 1)
	}
	dir := t.TempDir()
	source, binary := filepath.Join(dir, "main.go"), filepath.Join(dir, "readme.exe")
	require.NoError(t, os.WriteFile(source, []byte(program), 0o600))
	out, err := exec.Command("go", "build", "-o", binary, source).CombinedOutput()
	require.NoError(t, err, "%s", out)
	cmd := exec.CommandContext(t.Context(), binary)
	require.NoError(t, cmd.Start())
	defer cmd.Wait()
	defer cmd.Process.Kill()
	require.Eventually(t, func() bool {
		answer := get("http://" + front)
		return answer == "one" || answer == "two"
	}, 10*time.Second, 20*time.Millisecond)
}

// TestREADMEHasThePicture keeps the picture of the README that of doc.go.
func TestREADMEHasThePicture(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	doc, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	_, picture, _ := strings.Cut(string(readme), "## The picture\n\n```\n")
	picture, _, found := strings.Cut(picture, "```")
	require.True(t, found)
	for line := range strings.Lines(picture) {
		require.Contains(t, string(doc), "//\t"+strings.TrimRight(line, "\n"))
	}
}
