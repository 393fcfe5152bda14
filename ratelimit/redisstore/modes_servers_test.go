// SPDX-License-Identifier: Apache-2.0

// Another module, l7/redisstick, has a file like this one, with names and times of its own. To
// share it would take a third module, with a version to release and to require.

package redisstore

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// secured starts a Redis that speaks TLS alone, and has one user, of the rights that doc.go
// lists.
func secured(t *testing.T) *redis.UniversalOptions {
	dir := t.TempDir()
	trusted := certificate(t, dir)
	s := &server{t: t, addr: free(t)}
	_, port, _ := net.SplitHostPort(s.addr)
	s.args = append([]string{
		"--port", "0", "--tls-port", port, "--tls-cert-file", filepath.Join(dir, "cert.pem"), "--tls-key-file", filepath.Join(dir, "key.pem"),
		"--tls-ca-cert-file", filepath.Join(dir, "cert.pem"), "--tls-auth-clients", "no", "--user", "default", "off", "--user", "gateway", "on", ">secret",
	}, rights...)
	s.options = redis.Options{Username: "gateway", Password: "secret", TLSConfig: &tls.Config{RootCAs: trusted, ServerName: "redis.example"}}
	s.up()
	t.Cleanup(s.down)
	return &redis.UniversalOptions{
		Addrs: []string{s.addr}, Username: "gateway", Password: "secret", TLSConfig: s.options.TLSConfig, ContextTimeoutEnabled: true,
	}
}

// certificate writes a certificate for redis.example and its key into dir.
func certificate(t *testing.T, dir string) *x509.CertPool {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"redis.example"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	require.NoError(t, os.WriteFile(filepath.Join(dir, "cert.pem"), text, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(text))
	return pool
}

// watched starts a Redis with a replica and three sentinels that watch them.
func watched(t *testing.T) (master *server, options *redis.UniversalOptions) {
	master = start(t, "--repl-diskless-sync-delay", "0")
	host, port, _ := net.SplitHostPort(master.addr)
	start(t, "--replicaof", host+" "+port)
	options = &redis.UniversalOptions{MasterName: "limits", ContextTimeoutEnabled: true, MaxRetries: -1}
	for range 3 {
		conf := filepath.Join(t.TempDir(), "sentinel.conf")
		require.NoError(t, os.WriteFile(conf, []byte("sentinel monitor limits "+host+" "+port+" 2\nsentinel down-after-milliseconds limits 500\nsentinel failover-timeout limits 3000\n"), 0o600))
		s := &server{t: t, addr: free(t), first: []string{conf, "--sentinel"}}
		s.up()
		t.Cleanup(s.down)
		options.Addrs = append(options.Addrs, s.addr)
	}
	for _, addr := range options.Addrs { // until they know of each other and of the replica
		c := redis.NewSentinelClient(&redis.Options{Addr: addr})
		defer c.Close()
		require.Eventually(t, func() bool {
			m, err := c.Master(context.Background(), "limits").Result()
			return err == nil && m["num-other-sentinels"] == "2" && m["num-slaves"] == "1"
		}, time.Minute, 50*time.Millisecond)
	}
	return master, options
}

// replicated starts a cluster of three masters, made by redis-cli, each with a replica.
func replicated(t *testing.T) (all map[string]*server, options *redis.UniversalOptions) {
	if _, err := exec.LookPath("redis-cli"); err != nil {
		t.Skip("no redis-cli here")
	}
	all = map[string]*server{}
	options = &redis.UniversalOptions{ContextTimeoutEnabled: true, MaxRetries: -1, MaxRedirects: 3}
	for range 6 {
		s := start(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "10000", "--repl-diskless-sync-delay", "0")
		all[s.addr] = s
		options.Addrs = append(options.Addrs, s.addr)
	}
	cli(t, append(append([]string{"--cluster", "create"}, options.Addrs...), "--cluster-replicas", "1", "--cluster-yes")...)
	for _, addr := range options.Addrs {
		c := redis.NewClient(&redis.Options{Addr: addr})
		defer c.Close()
		require.Eventually(t, func() bool {
			info, err := c.ClusterInfo(context.Background()).Result()
			nodes, _ := c.ClusterNodes(context.Background()).Result()
			return err == nil && strings.Contains(info, "cluster_state:ok") && strings.Count(nodes, "slave") == 3
		}, time.Minute, 50*time.Millisecond, addr)
	}
	return all, options
}

// replicates waits until a replica of the Redis at addr has what was written to it.
func replicates(t *testing.T, addr string) {
	c := redis.NewClient(&redis.Options{Addr: addr})
	defer c.Close()
	offset := func(name string) int {
		info, err := c.Info(context.Background(), "replication").Result()
		_, text, _ := strings.Cut(info, name)
		text = text[:max(0, strings.IndexAny(text, ",\r"))]
		n, _ := strconv.Atoi(text)
		if err != nil || text == "" {
			return -1
		}
		return n
	}
	var written int
	require.Eventually(t, func() bool { written = offset("master_repl_offset:"); return written >= 0 }, time.Minute, 20*time.Millisecond)
	require.Eventually(t, func() bool { return offset("state=online,offset=") >= written }, time.Minute, 20*time.Millisecond)
}

// cli runs redis-cli.
func cli(t *testing.T, args ...string) {
	out, err := exec.Command("redis-cli", args...).CombinedOutput()
	require.NoError(t, err, "%s", out)
}
