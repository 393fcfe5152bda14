// SPDX-License-Identifier: Apache-2.0

package kube_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/balance/kube"
	"github.com/penstock-lb/penstock/l7"
)

// TestRollingUpdateLosesNothing has Kubernetes' own controllers replace the pods of a
// Deployment twice, while clients send requests through a gateway; and it kills the API
// server and etcd in between. The test is the node: a pod is an HTTP server at an address
// of its own, which this needs:
//
//	ip addr add 198.18.0.0/24 dev lo
//
// (RFC 2544, section C.2.2: the block for benchmarks. A Service cannot have loopback
// addresses.)
func TestRollingUpdateLosesNothing(t *testing.T) {
	if _, err := exec.LookPath("kube-controller-manager"); err != nil {
		t.Skip("no kube-controller-manager here")
	}
	if ln, err := net.Listen("tcp", "198.18.0.1:8080"); err != nil {
		t.Skip("no addresses for pods: ip addr add 198.18.0.0/24 dev lo")
	} else {
		ln.Close()
	}
	c := start(t)
	c.namespace()
	token := c.account()
	c.rights()
	c.controllers()
	node := &node{c: c, pods: make(map[string]*pod), last: 10}
	c.ask("POST", "/api/v1/nodes", object{"metadata": object{"name": "n1", "labels": object{"topology.kubernetes.io/zone": "east"}}})
	c.ask("POST", "/api/v1/namespaces/shop/services", object{"metadata": object{"name": "web"},
		"spec": object{"selector": object{"app": "web"}, "ports": []object{{"name": "http", "port": 80, "targetPort": "http"}}}})
	c.ask("POST", "/apis/apps/v1/namespaces/shop/deployments", object{"metadata": object{"name": "web"}, "spec": object{
		"replicas": 6, "selector": object{"matchLabels": object{"app": "web"}}, "template": object{"metadata": object{"labels": object{"app": "web"}},
			"spec": object{"containers": []object{{"name": "web", "image": "web", "ports": []object{{"name": "http", "containerPort": 8080}}}}}}}})

	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { node.run(ctx) })
	pool := &balance.Pool{Name: "web"}
	wg.Go(func() {
		_ = pool.Follow(ctx, &kube.Source{Client: c.client(token), Namespace: "shop", Service: "web", Port: "http"})
	})
	require.True(t, eventually(func() bool { return pool.Usable() == 6 }), "%v", pool.Explain())
	for s := range pool.All() {
		require.Equal(t, "n1", s.Endpoint().Labels["node"])
		require.Equal(t, "east", s.Endpoint().Zone)
	}

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	gateway := &l7.Server{Handler: &l7.Proxy{Pool: pool}}
	wg.Go(func() { _ = gateway.Serve(ln) })
	defer gateway.Close()
	load := &load{url: "http://" + ln.Addr().String()}
	loading, stop := context.WithCancel(ctx)
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() { load.run(loading) })
	}

	for version := range 2 {
		node.generation(c, version)
		require.True(t, eventually(func() bool { return node.replaced(version) && pool.Usable() == 6 }), "%v", pool.Explain())
		t.Logf("rollout %d: %d requests, %d failed", version+1, load.sent.Load(), load.failed.Load())
		if version == 0 {
			c.kill()
			time.Sleep(3 * time.Second)
			require.Equal(t, 6, pool.Usable())
			c.up()
			c.controllers()
			require.True(t, eventually(func() bool { st, _ := pool.SourceState(); return st.Err == nil }))
		}
	}
	stop()
	clients.Wait()
	require.Zero(t, load.failed.Load(), "of %d: %v", load.sent.Load(), load.err.Load())
	require.Greater(t, load.sent.Load(), int64(1000))
}

// controllers starts the controllers of pods and EndpointSlices.
func (c *cluster) controllers() {
	config := object{"apiVersion": "v1", "kind": "Config", "current-context": "c",
		"clusters": []object{{"name": "c", "cluster": object{"server": "https://" + c.api, "insecure-skip-tls-verify": true}}},
		"users":    []object{{"name": "u", "user": object{"token": "admin"}}},
		"contexts": []object{{"name": "c", "context": object{"cluster": "c", "user": "u"}}}}
	c.write("config", config)
	_, port, _ := net.SplitHostPort(free(c.t))
	c.run("kube-controller-manager", "--kubeconfig", c.file("config"), "--leader-elect=false", "--secure-port", port, "--bind-address", "127.0.0.1",
		"--cert-dir", c.file("certs-manager"), "--controllers", "deployment-controller,replicaset-controller,endpointslice-controller")
}

// A load sends requests and counts those that fail.
type load struct {
	url          string
	sent, failed atomic.Int64
	err          atomic.Value
}

func (l *load) run(ctx context.Context) {
	client := &http.Client{Transport: &http.Transport{}, Timeout: 30 * time.Second}
	defer client.CloseIdleConnections()
	for ctx.Err() == nil {
		l.sent.Add(1)
		res, err := client.Get(l.url)
		if err == nil {
			_, err = io.Copy(io.Discard, res.Body)
			res.Body.Close()
			if res.StatusCode != http.StatusOK {
				err = fmt.Errorf("status %d", res.StatusCode)
			}
		}
		if err != nil {
			l.failed.Add(1)
			l.err.Store(err.Error())
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// A node plays the scheduler, the kubelet and the pods.
type node struct {
	c *cluster

	mu   sync.Mutex
	pods map[string]*pod
	last int // of the addresses that were given out
}

type pod struct {
	addr    string
	version string
	server  *http.Server
	leaving bool
}

// generation has the Deployment replace its pods.
func (n *node) generation(c *cluster, version int) {
	c.ask("PATCH", "/apis/apps/v1/namespaces/shop/deployments/web",
		object{"spec": object{"template": object{"metadata": object{"annotations": object{"version": fmt.Sprint("v", version)}}}}})
}

// replaced reports whether all existing pods have the version.
func (n *node) replaced(version int) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	count := 0
	for _, p := range n.pods {
		if p.version != fmt.Sprint("v", version) {
			return false
		}
		count++
	}
	return count == 6
}

// run starts and ends pods as the API server asks, until ctx ends, and waits for its pods.
func (n *node) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer func() {
		for _, p := range n.pods {
			p.server.Close()
		}
	}()
	for ctx.Err() == nil {
		var list struct {
			Items []struct {
				Metadata struct {
					Name              string
					Annotations       map[string]string
					DeletionTimestamp string
				}
				Spec struct{ NodeName string }
			}
		}
		status, answer := n.c.try("GET", "/api/v1/namespaces/shop/pods?labelSelector=app%3Dweb", "", nil)
		if status == http.StatusOK && json.Unmarshal(answer, &list) == nil {
			for _, p := range list.Items {
				n.mu.Lock()
				have := n.pods[p.Metadata.Name]
				n.mu.Unlock()
				switch {
				case have == nil && p.Metadata.DeletionTimestamp == "" && p.Spec.NodeName == "":
					n.begin(p.Metadata.Name, p.Metadata.Annotations["version"], &wg)
				case have != nil && p.Metadata.DeletionTimestamp != "" && !have.leaving:
					have.leaving = true
					wg.Go(func() { n.end(p.Metadata.Name, have) })
				}
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// begin starts a pod and says that it is ready.
func (n *node) begin(name, version string, wg *sync.WaitGroup) {
	n.last++
	p := &pod{addr: fmt.Sprintf("198.18.0.%d", n.last), version: version}
	ln, err := net.Listen("tcp", p.addr+":8080")
	if err != nil {
		n.c.t.Error(err)
		return
	}
	p.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(5 * time.Millisecond)
		fmt.Fprintln(w, name)
	})}
	wg.Go(func() { _ = p.server.Serve(ln) })
	n.mu.Lock()
	n.pods[name] = p
	n.mu.Unlock()
	path := "/api/v1/namespaces/shop/pods/" + name
	n.c.ask("POST", path+"/binding", object{"metadata": object{"name": name}, "target": object{"kind": "Node", "name": "n1"}})
	n.c.ask("PATCH", path+"/status", object{"status": object{"phase": "Running", "podIP": p.addr, "podIPs": []object{{"ip": p.addr}},
		"conditions": []object{{"type": "Ready", "status": "True"}}}})
}

// end ends a pod as kubelet does, for a server that keeps accepting for a second and then
// finishes its requests.
func (n *node) end(name string, p *pod) {
	time.Sleep(time.Second)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_ = p.server.Shutdown(ctx)
	n.c.ask("DELETE", "/api/v1/namespaces/shop/pods/"+name+"?gracePeriodSeconds=0", nil)
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.pods, name)
}
