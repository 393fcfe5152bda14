// SPDX-License-Identifier: Apache-2.0

package kube_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	client "k8s.io/client-go/kubernetes/typed/discovery/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"
)

// A cluster runs etcd and kube-apiserver on this machine, and on request the controllers that
// make EndpointSlices. It has no nodes: tests take their part.
type cluster struct {
	t              *testing.T
	dir            string
	etcd, bus, api string // addresses
	http           *http.Client
	running        []*exec.Cmd
}

// start starts a cluster, or skips the test if a program is missing.
func start(t *testing.T) *cluster {
	t.Helper()
	for _, program := range []string{"etcd", "kube-apiserver"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("no " + program + " here")
		}
	}
	c := &cluster{t: t, dir: t.TempDir(), etcd: free(t), bus: free(t), api: free(t)}
	c.http = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	block := &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
	require.NoError(t, os.WriteFile(c.file("key"), pem.EncodeToMemory(block), 0o600))
	require.NoError(t, os.WriteFile(c.file("tokens"), []byte("admin,admin,admin,system:masters\n"), 0o600))
	t.Cleanup(c.kill)
	c.up()
	return c
}

func (c *cluster) file(name string) string { return filepath.Join(c.dir, name) }

func free(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	return ln.Addr().String()
}

func (c *cluster) write(name string, what any) {
	c.t.Helper()
	text, err := json.Marshal(what)
	require.NoError(c.t, err)
	require.NoError(c.t, os.WriteFile(c.file(name), text, 0o600))
}

func (c *cluster) run(program string, args ...string) {
	c.t.Helper()
	cmd := exec.Command(program, args...)
	log, err := os.OpenFile(c.file(program+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(c.t, err)
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	require.NoError(c.t, cmd.Start())
	c.running = append(c.running, cmd)
}

// up starts etcd and the API server, and waits until it is ready.
func (c *cluster) up() {
	c.t.Helper()
	url, bus := "http://"+c.etcd, "http://"+c.bus
	c.run("etcd", "--name", "one", "--data-dir", c.file("etcd"), "--log-level", "error", "--listen-client-urls", url, "--advertise-client-urls", url,
		"--listen-peer-urls", bus, "--initial-advertise-peer-urls", bus, "--initial-cluster", "one="+bus)
	_, port, _ := net.SplitHostPort(c.api)
	c.run("kube-apiserver", "--etcd-servers", url, "--bind-address", "127.0.0.1", "--secure-port", port, "--cert-dir", c.file("certs"),
		"--service-cluster-ip-range", "10.96.0.0/16", "--endpoint-reconciler-type", "none", "--advertise-address", "192.0.2.1",
		"--authorization-mode", "RBAC", "--token-auth-file", c.file("tokens"), "--disable-admission-plugins", "ServiceAccount",
		"--service-account-issuer", "https://"+c.api, "--service-account-key-file", c.file("key"), "--service-account-signing-key-file", c.file("key"))
	require.Eventually(c.t, func() bool {
		status, _ := c.try("GET", "/readyz", "", nil)
		return status == http.StatusOK
	}, 2*time.Minute, 100*time.Millisecond, "see %s", c.file("kube-apiserver.log"))
}

// kill ends all of it by SIGKILL.
func (c *cluster) kill() {
	for _, cmd := range c.running {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	c.running = nil
}

func (c *cluster) try(method, path, kind string, body any) (status int, answer []byte) {
	text, err := json.Marshal(body)
	if err != nil {
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "https://"+c.api+path, bytes.NewReader(text))
	if err != nil {
		return 0, nil
	}
	req.Header.Set("Authorization", "Bearer admin")
	req.Header.Set("Content-Type", kind)
	res, err := c.http.Do(req)
	if err != nil {
		return 0, nil
	}
	defer res.Body.Close()
	answer, _ = io.ReadAll(res.Body)
	return res.StatusCode, answer
}

// ask makes a request that must succeed.
func (c *cluster) ask(method, path string, body any) []byte {
	c.t.Helper()
	kind := "application/json"
	if method == "PATCH" {
		kind = "application/merge-patch+json"
	}
	status, answer := c.try(method, path, kind, body)
	if status/100 != 2 {
		c.t.Errorf("%s %s: %d %s", method, path, status, answer)
	}
	return answer
}

type object = map[string]any

// client returns a client of the API server with a token.
func (c *cluster) client(token string) *client.DiscoveryV1Client {
	c.t.Helper()
	api, err := client.NewForConfig(&rest.Config{Host: "https://" + c.api, BearerToken: token, TLSClientConfig: rest.TLSClientConfig{Insecure: true}})
	require.NoError(c.t, err)
	return api
}

// account makes the service account of the example's manifest, and returns a token of it.
// Its rights come with rights.
func (c *cluster) account() string {
	c.t.Helper()
	c.apply("ServiceAccount")
	var token struct{ Status struct{ Token string } }
	require.NoError(c.t, json.Unmarshal(c.ask("POST", "/api/v1/namespaces/shop/serviceaccounts/gateway/token",
		object{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": object{}}), &token))
	return token.Status.Token
}

func (c *cluster) rights() {
	c.t.Helper()
	c.apply("Role")
	c.apply("RoleBinding")
}

// apply makes the object of that kind in the example's manifest.
func (c *cluster) apply(kind string) {
	c.t.Helper()
	text, err := os.ReadFile("../../examples/kube/gateway.yaml")
	require.NoError(c.t, err)
	path := map[string]string{
		"ServiceAccount": "/api/v1/namespaces/shop/serviceaccounts",
		"Role":           "/apis/rbac.authorization.k8s.io/v1/namespaces/shop/roles",
		"RoleBinding":    "/apis/rbac.authorization.k8s.io/v1/namespaces/shop/rolebindings",
		"Deployment":     "/apis/apps/v1/namespaces/shop/deployments",
		"Service":        "/api/v1/namespaces/shop/services",
	}[kind]
	for _, doc := range bytes.Split(text, []byte("\n---\n")) {
		var o object
		require.NoError(c.t, yaml.Unmarshal(doc, &o))
		if o["kind"] == kind {
			c.ask("POST", path+"?fieldValidation=Strict", o)
			return
		}
	}
	c.t.Fatalf("no %s in the manifest", kind)
}

// namespace makes the namespace shop.
func (c *cluster) namespace() {
	c.t.Helper()
	c.ask("POST", "/api/v1/namespaces", object{"metadata": object{"name": "shop"}})
}

func (f *followed) becomes(t *testing.T, want string) {
	t.Helper()
	if !eventually(func() bool { return f.servers() == want }) {
		t.Fatalf("servers are %.300s; want %.300s (%v)", f.servers(), want, f.failures())
	}
}

// eventually waits for up to two minutes.
func eventually(f func() bool) bool {
	for range 6000 {
		if f() {
			return true
		}
		time.Sleep(20 * time.Millisecond)
	}
	return false
}
