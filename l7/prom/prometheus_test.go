// SPDX-License-Identifier: Apache-2.0

package prom_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// tool skips the test if the program is not installed.
func tool(t *testing.T, name string) string {
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("no %s here", name)
	}
	return path
}

func TestPromtoolFindsNoFaultWithTheMetrics(t *testing.T) {
	promtool, w := tool(t, "promtool"), newWorld(t)
	w.get(t, "/page")
	cmd := exec.Command(promtool, "check", "metrics")
	cmd.Stdin = strings.NewReader(w.scrape(t))
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Empty(t, string(out))
}

func TestAlertsFireWhenTheyShould(t *testing.T) {
	promtool := tool(t, "promtool")
	dir := t.TempDir() // rule_files are relative to the file of the test
	for from, to := range map[string]string{"alerts.yml": "alerts.yml", "testdata/alerts_test.yml": "alerts_test.yml"} {
		text, err := os.ReadFile(from)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, to), text, 0o600))
	}
	for _, args := range [][]string{{"check", "rules", "alerts.yml"}, {"test", "rules", "alerts_test.yml"}} {
		cmd := exec.Command(promtool, args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
	}
}

// TestPrometheusScrapes has a Prometheus scrape the metrics, and runs all queries of the
// dashboard.
func TestPrometheusScrapes(t *testing.T) { scraped(t, false) }

func TestPrometheusScrapesNativeHistograms(t *testing.T) { scraped(t, true) }

func scraped(t *testing.T, native bool) {
	program, w := tool(t, "prometheus"), newWorld(t)
	w.c.NativeHistograms = native
	for range 5 {
		w.get(t, "/page")
	}
	target := httptest.NewServer(w.metrics)
	defer target.Close()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := lis.Addr().String()
	require.NoError(t, lis.Close())
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil,
		"scrape_configs:\n- job_name: gateway\n  scrape_interval: 200ms\n  scrape_timeout: 200ms\n  static_configs:\n  - targets: [%q]\n", target.Listener.Addr()), 0o600))
	var log strings.Builder
	cmd := exec.Command(program, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+addr)
	if native {
		cmd.Args = append(cmd.Args, "--enable-feature=native-histograms")
	}
	cmd.Stdout, cmd.Stderr = &log, &log
	require.NoError(t, cmd.Start())
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	}()
	require.Eventually(t, func() bool {
		_, n := query(addr, `sum(penstock_front_requests_total{code="2xx"}) == 5 and sum(penstock_pool_picks_total) == 5`)
		return n == 1
	}, 60*time.Second, 50*time.Millisecond)
	if native {
		_, n := query(addr, `histogram_count(penstock_pool_latency_seconds{pool="web"}) == 5`)
		require.Equal(t, 1, n)
		_, n = query(addr, `histogram_quantile(0.5, penstock_pool_latency_seconds{pool="web"}) > 0`)
		require.Equal(t, 1, n)
		return
	}

	text, err := os.ReadFile("dashboard.json")
	require.NoError(t, err)
	var board struct {
		Panels []struct{ Targets []struct{ Expr string } }
	}
	require.NoError(t, json.Unmarshal(text, &board))
	require.NotEmpty(t, board.Panels)
	for _, p := range board.Panels {
		for _, target := range p.Targets {
			expr := strings.NewReplacer("$__rate_interval", "1m", "$pool", ".*").Replace(target.Expr)
			status, _ := query(addr, expr)
			require.Equal(t, "success", status, expr)
		}
	}
}

// query evaluates an expression in a Prometheus, and returns its status and the number of
// series.
func query(addr, expr string) (status string, series int) {
	reply, err := http.Get("http://" + addr + "/api/v1/query?" + url.Values{"query": {expr}}.Encode())
	if err != nil {
		return err.Error(), 0
	}
	defer reply.Body.Close()
	body, _ := io.ReadAll(reply.Body)
	var answer struct {
		Status string
		Data   struct{ Result []json.RawMessage }
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return err.Error(), 0
	}
	return answer.Status, len(answer.Data.Result)
}
