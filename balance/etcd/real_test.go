// SPDX-License-Identifier: Apache-2.0

package etcd_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/naming/endpoints"
	"go.uber.org/zap"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/balance/etcd"
)

// An engine is an etcd of the machine, on a free port, whose data outlives it.
type engine struct {
	t         *testing.T
	dir       string
	addr, bus string
	cmd       *exec.Cmd
}

// start starts an etcd, or skips the test if there is none.
func start(t *testing.T) *engine {
	t.Helper()
	e := &engine{t: t, dir: t.TempDir(), addr: free(t), bus: free(t)}
	e.up()
	t.Cleanup(e.kill)
	return e
}

func free(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	return ln.Addr().String()
}

func (e *engine) up() {
	e.t.Helper()
	path, err := exec.LookPath("etcd")
	if err != nil {
		e.t.Skip("no etcd here")
	}
	url, bus := "http://"+e.addr, "http://"+e.bus
	e.cmd = exec.Command(path, "--name", "one", "--data-dir", e.dir, "--log-level", "error",
		"--listen-client-urls", url, "--advertise-client-urls", url,
		"--listen-peer-urls", bus, "--initial-advertise-peer-urls", bus, "--initial-cluster", "one="+bus)
	require.NoError(e.t, e.cmd.Start())
	c := e.client()
	require.Eventually(e.t, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := c.Get(ctx, "up")
		return err == nil
	}, time.Minute, 20*time.Millisecond)
}

func (e *engine) kill() {
	if e.cmd != nil {
		_ = e.cmd.Process.Kill()
		_ = e.cmd.Wait()
		e.cmd = nil
	}
}

func (e *engine) client() *clientv3.Client {
	e.t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{e.addr}, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	require.NoError(e.t, err)
	e.t.Cleanup(func() { c.Close() })
	return c
}

func (f *followed) becomes(t *testing.T, want string) {
	t.Helper()
	require.Eventually(t, func() bool { return f.servers() == want }, time.Minute, 10*time.Millisecond, "want %s", want)
}

// A story of a real etcd: servers register, in both formats; it is killed and comes back,
// compacts, and forgets a lease; they leave.
func TestWithEtcd(t *testing.T) {
	e := start(t)
	c := e.client()
	ctx := t.Context()
	log := slog.New(slog.DiscardHandler)
	register := func(name, addr string, grpc bool) (stop func(), r *etcd.Registration) {
		r = &etcd.Registration{Client: c, Prefix: "/web/", TTL: 2 * time.Second, Logger: log, GRPC: grpc, Endpoint: balance.Endpoint{Name: name, Addr: addr}}
		return run(t, r), r
	}
	f := follow(t, &etcd.Source{Client: c, Prefix: "/web/", Refresh: time.Second, Timeout: time.Second})
	stopA, a := register("a", "10.0.0.1:80", false)
	f.becomes(t, "a=10.0.0.1:80")
	stopB, _ := register("b", "10.0.0.2:80", true)
	manager, err := endpoints.NewManager(c, "/web")
	require.NoError(t, err)
	require.NoError(t, manager.AddEndpoint(ctx, "/web/c", endpoints.Endpoint{Addr: "10.0.0.3:80", Metadata: map[string]string{"rack": "r7"}}))
	f.becomes(t, "a=10.0.0.1:80 b=10.0.0.2:80 c=10.0.0.3:80")
	require.Equal(t, "r7", f.Server("c").Endpoint().Labels["rack"])
	seen, err := manager.List(ctx)
	require.NoError(t, err)
	require.Equal(t, "10.0.0.2:80", seen["/web/b"].Addr, "etcd's own package reads what we write")

	// Killed for longer than the leases last.
	f.becomes(t, "a=10.0.0.1:80 b=10.0.0.2:80 c=10.0.0.3:80") // a lease may have ended while the machine stalled
	e.kill()
	require.Eventually(t, func() bool { st, _ := f.SourceState(); return st.Err != nil && !a.Registered() }, time.Minute, 10*time.Millisecond)
	time.Sleep(2 * time.Second)
	require.Equal(t, "a=10.0.0.1:80 b=10.0.0.2:80 c=10.0.0.3:80", f.servers())
	e.up()
	require.Eventually(t, func() bool { st, _ := f.SourceState(); return st.Err == nil && a.Registered() }, 60*time.Second, 10*time.Millisecond)
	f.becomes(t, "a=10.0.0.1:80 b=10.0.0.2:80 c=10.0.0.3:80")

	// The history is compacted.
	_, err = c.Delete(ctx, "/web/c")
	require.NoError(t, err)
	now, err := c.Get(ctx, "/web/a")
	require.NoError(t, err)
	_, err = c.Compact(ctx, now.Header.Revision, clientv3.WithCompactPhysical())
	require.NoError(t, err)
	f.becomes(t, "a=10.0.0.1:80 b=10.0.0.2:80")

	// A lease ends, of a process that does not come back, and of one that does.
	granted, err := c.Grant(ctx, 3600)
	require.NoError(t, err)
	_, err = c.Put(ctx, "/web/d", "10.0.0.4:80", clientv3.WithLease(granted.ID))
	require.NoError(t, err)
	f.becomes(t, "a=10.0.0.1:80 b=10.0.0.2:80 d=10.0.0.4:80")
	_, err = c.Revoke(ctx, granted.ID)
	require.NoError(t, err)
	f.becomes(t, "a=10.0.0.1:80 b=10.0.0.2:80")
	lease := func() clientv3.LeaseID {
		now, err := c.Get(ctx, "/web/a")
		if err != nil || len(now.Kvs) == 0 {
			return clientv3.NoLease
		}
		return clientv3.LeaseID(now.Kvs[0].Lease)
	}
	var revoked clientv3.LeaseID
	require.Eventually(t, func() bool {
		revoked = lease()
		_, err := c.Revoke(ctx, revoked)
		return err == nil
	}, time.Minute, 10*time.Millisecond)
	require.Eventually(t, func() bool { now := lease(); return now != clientv3.NoLease && now != revoked }, time.Minute, 10*time.Millisecond)
	f.becomes(t, "a=10.0.0.1:80 b=10.0.0.2:80")

	stopA()
	stopB()
	f.becomes(t, "")
}

// TestCompactedWatchWithEtcd has real etcd refuse a watch of what it has compacted.
func TestCompactedWatchWithEtcd(t *testing.T) {
	e := start(t)
	c := e.client()
	ctx := t.Context()
	_, err := c.Put(ctx, "/web/a", "10.0.0.1:80")
	require.NoError(t, err)
	late := clientv3.NewCtxClient(ctx)
	late.Lease, late.Watcher = c.Lease, c.Watcher
	late.KV = &between{KV: c.KV, then: func() { // after the first read, and before the watch
		_, err := c.Delete(ctx, "/web/a")
		require.NoError(t, err)
		now, err := c.Put(ctx, "/web/b", "10.0.0.2:80")
		require.NoError(t, err)
		_, err = c.Compact(ctx, now.Header.Revision, clientv3.WithCompactPhysical())
		require.NoError(t, err)
	}}
	f := follow(t, &etcd.Source{Client: late, Prefix: "/web/"})
	f.becomes(t, "b=10.0.0.2:80")
	require.Zero(t, f.failures())
}

// between does something after the first Get.
type between struct {
	clientv3.KV
	once sync.Once
	then func()
}

func (b *between) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	r, err := b.KV.Get(ctx, key, opts...)
	b.once.Do(b.then)
	return r, err
}

// TestChurnWithEtcd has servers come and go while the source reads and watches, and
// leaves no goroutine.
func TestChurnWithEtcd(t *testing.T) {
	e := start(t)
	c := e.client()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	pool := &balance.Pool{AllowEmpty: true}
	var following sync.WaitGroup
	following.Go(func() { _ = pool.Follow(ctx, &etcd.Source{Client: c, Prefix: "/web/", Refresh: 5 * time.Millisecond}) })
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 100 {
				key := fmt.Sprintf("/web/%d-%d", g, i%10)
				op := clientv3.OpPut(key, "10.0."+strconv.Itoa(g)+"."+strconv.Itoa(i)+":80")
				if i%3 == 2 {
					op = clientv3.OpDelete(key)
				}
				if _, err := c.Do(ctx, op); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	want, err := c.Get(ctx, "/web/", clientv3.WithPrefix())
	require.NoError(t, err)
	var all []string
	for _, kv := range want.Kvs {
		all = append(all, strings.TrimPrefix(string(kv.Key), "/web/")+"="+string(kv.Value))
	}
	f := &followed{Pool: pool}
	f.becomes(t, strings.Join(all, " "))
	cancel()
	following.Wait()
	// Of the client its connections stay, and one stream at most: a watch that ends before it has
	// begun leaves it behind (client/v3, watch.go), and the next watch uses it.
	require.Eventually(t, func() bool {
		buf := make([]byte, 1<<20)
		stacks := string(buf[:runtime.Stack(buf, true)])
		return !strings.Contains(stacks, "balance/etcd.") && strings.Count(stacks, "v3.(*watchGRPCStream).run(") <= 1
	}, time.Minute, 10*time.Millisecond)
}
