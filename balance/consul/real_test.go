// SPDX-License-Identifier: Apache-2.0

package consul_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance/consul"
)

// An engine is a Consul of this machine, a server of its own whose data outlives it.
type engine struct {
	t    *testing.T
	dir  string
	http string
	args []string
	cmd  *exec.Cmd
}

// start starts a Consul, or skips the test if there is none.
func start(t *testing.T) *engine {
	t.Helper()
	if _, err := exec.LookPath("consul"); err != nil {
		t.Skip("no consul here")
	}
	e := &engine{t: t, dir: t.TempDir()}
	port := func() string {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer ln.Close()
		_, p, _ := net.SplitHostPort(ln.Addr().String())
		return p
	}
	p := port()
	e.http = "127.0.0.1:" + p
	ports := fmt.Sprintf(`ports { http = %s, server = %s, serf_lan = %s, serf_wan = -1, dns = -1, grpc = -1, grpc_tls = -1 }
		raft_protocol = 3
		performance { raft_multiplier = 1 }`, p, port(), port())
	require.NoError(t, os.WriteFile(filepath.Join(e.dir, "test.hcl"), []byte(ports), 0o600))
	e.args = []string{"agent", "-server", "-bootstrap-expect=1", "-node=n1", "-bind=127.0.0.1", "-client=127.0.0.1", "-log-level=err",
		"-data-dir=" + filepath.Join(e.dir, "data"), "-config-file=" + filepath.Join(e.dir, "test.hcl")}
	t.Cleanup(e.kill)
	e.up()
	return e
}

func (e *engine) up() {
	e.t.Helper()
	e.cmd = exec.Command("consul", e.args...)
	log, err := os.OpenFile(filepath.Join(e.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(e.t, err)
	defer log.Close()
	e.cmd.Stdout, e.cmd.Stderr = log, log
	require.NoError(e.t, e.cmd.Start())
	c := e.client()
	require.Eventually(e.t, func() bool {
		nodes, _, err := c.Catalog().Nodes(nil)
		return err == nil && len(nodes) == 1
	}, time.Minute, 50*time.Millisecond)
}

func (e *engine) kill() {
	if e.cmd != nil {
		_ = e.cmd.Process.Kill()
		_ = e.cmd.Wait()
		e.cmd = nil
	}
}

func (e *engine) client() *api.Client {
	e.t.Helper()
	c, err := api.NewClient(&api.Config{Address: e.http})
	require.NoError(e.t, err)
	return c
}

func (f *followed) becomes(t *testing.T, want string) {
	t.Helper()
	for range 3000 {
		if f.servers() == want {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("servers are %s; want %s (%v)", f.servers(), want, f.failures())
}

// A story of a real Consul: instances register, fail, are maintained, change weights; it is
// killed and comes back; a hundred of them come and go.
func TestWithConsul(t *testing.T) {
	e := start(t)
	c := e.client()
	agent := c.Agent()
	register := func(id, addr, status string, passing, warning int) {
		t.Helper()
		require.NoError(t, agent.ServiceRegister(&api.AgentServiceRegistration{
			ID: id, Name: "web", Address: addr, Port: 80, Tags: []string{"v2", "x"}, Meta: map[string]string{"zone": "east"},
			Weights: &api.AgentWeights{Passing: passing, Warning: warning},
			Check:   &api.AgentServiceCheck{CheckID: "check-" + id, TTL: "1h", Status: status},
		}))
	}
	f := follow(t, &consul.Source{Client: c, Tags: []string{"v2", "x"}, Wait: 2 * time.Second})
	register("a", "10.0.0.1", "passing", 10, 1)
	register("b", "10.0.0.2", "critical", 10, 1)
	f.becomes(t, "a=10.0.0.1:80/10")
	require.Equal(t, "east", f.Server("n1/a").Endpoint().Zone)
	require.Equal(t, "v2,x", f.Server("n1/a").Endpoint().Labels["tags"])
	require.NoError(t, agent.UpdateTTL("check-b", "well", "pass"))
	f.becomes(t, "a=10.0.0.1:80/10 b=10.0.0.2:80/10")
	require.NoError(t, agent.UpdateTTL("check-b", "so-so", "warn"))
	f.becomes(t, "a=10.0.0.1:80/10 b=10.0.0.2:80/1")
	require.NoError(t, agent.EnableServiceMaintenance("a", "deploy"))
	f.becomes(t, "a=10.0.0.1:80/-1 b=10.0.0.2:80/1")
	require.NoError(t, agent.DisableServiceMaintenance("a"))
	f.becomes(t, "a=10.0.0.1:80/10 b=10.0.0.2:80/1")
	require.NoError(t, agent.EnableNodeMaintenance("reboot"))
	f.becomes(t, "a=10.0.0.1:80/-1 b=10.0.0.2:80/-1")
	require.NoError(t, agent.DisableNodeMaintenance())
	f.becomes(t, "a=10.0.0.1:80/10 b=10.0.0.2:80/1")

	e.kill()
	require.Eventually(t, func() bool { st, _ := f.SourceState(); return st.Err != nil }, 30*time.Second, 10*time.Millisecond)
	time.Sleep(3 * time.Second)
	require.Equal(t, "a=10.0.0.1:80/10 b=10.0.0.2:80/1", f.servers())
	e.up()
	require.Eventually(t, func() bool { st, _ := f.SourceState(); return st.Err == nil }, 90*time.Second, 10*time.Millisecond)
	register("b", "10.0.0.2", "passing", 7, 1)
	for _, check := range []string{"check-a", "check-b"} { // the agent has what it saved of them
		require.NoError(t, agent.UpdateTTL(check, "well", "pass"))
	}
	f.becomes(t, "a=10.0.0.1:80/10 b=10.0.0.2:80/7")

	rng := rand.New(rand.NewPCG(1, 2))
	there := map[string]string{"a": "a=10.0.0.1:80/10", "b": "b=10.0.0.2:80/7"}
	for i := range 200 {
		id := fmt.Sprint("i", rng.IntN(100))
		if there[id] != "" && rng.IntN(2) == 0 {
			require.NoError(t, agent.ServiceDeregister(id))
			delete(there, id)
			continue
		}
		addr := fmt.Sprintf("10.1.0.%d", i)
		register(id, addr, "passing", 1+i%5, 1)
		there[id] = fmt.Sprintf("%s=%s:80/%d", id, addr, 1+i%5)
	}
	var ids, all []string
	for id := range there {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		all = append(all, there[id])
	}
	f.becomes(t, strings.Join(all, " "))
}
