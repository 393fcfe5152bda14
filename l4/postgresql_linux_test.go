// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

// A postgres is a real server, on 127.0.0.1 and on 127.0.0.2, so that a session can tell
// which of two pools it came by. Its certificate is for through.test.
type postgres struct {
	t    *testing.T
	dir  string
	port string
	as   *syscall.Credential // nil means that of this process
}

// startPostgres runs PostgreSQL until the test ends, and skips the test where there is
// none.
func startPostgres(t *testing.T) *postgres {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if _, err := exec.LookPath("psql"); err != nil || len(found) == 0 {
		t.Skip("no psql, or no PostgreSQL")
	}
	bin := filepath.Dir(found[len(found)-1])
	dir, err := os.MkdirTemp("/tmp", "penstock-postgres-")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := &postgres{t: t, dir: dir}
	owner := os.Getuid()
	if owner == 0 { // which it does not run as
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Skip(err)
		}
		owner, _ = strconv.Atoi(u.Uid)
		group, _ := strconv.Atoi(u.Gid)
		p.as = &syscall.Credential{Uid: uint32(owner), Gid: uint32(group)}
		require.NoError(t, os.Chown(dir, owner, group))
	}
	require.NoError(t, os.Chmod(dir, 0o755)) // psql reads the certificates
	p.file("password", "secret", owner)
	p.certificate("server", testCert(t, nil, "through.test"), owner)
	out, err := p.command(filepath.Join(bin, "initdb"), "-D", "data", "-U", "ann", "-A", "scram-sha-256", "--pwfile", "password", "--no-sync", "--no-locale").CombinedOutput()
	require.NoError(t, err, "%s", out)

	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	_, p.port, _ = net.SplitHostPort(free.Addr().String())
	free.Close()
	cmd := p.command(filepath.Join(bin, "postgres"), "-D", "data", "-p", p.port, "-c", "listen_addresses=127.0.0.1,127.0.0.2",
		"-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "ssl=on", "-c", "ssl_cert_file="+dir+"/server.pem", "-c", "ssl_key_file="+dir+"/server.key")
	cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGQUIT) // ends its sessions, too
		cmd.Wait()
	})
	require.Eventually(t, func() bool {
		return p.psql(context.Background(), "host=127.0.0.1 port="+p.port, "select 1").Run() == nil
	}, 20*time.Second, 50*time.Millisecond)
	return p
}

// command is a program that runs in dir, as who owns that.
func (p *postgres) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Dir = p.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.as}
	return cmd
}

func (p *postgres) file(name, text string, owner int) {
	path := filepath.Join(p.dir, name)
	require.NoError(p.t, os.WriteFile(path, []byte(text), 0o600))
	require.NoError(p.t, os.Chown(path, owner, -1))
}

// certificate writes name.pem, which is its own authority, and name.key.
func (p *postgres) certificate(name string, c tls.Certificate, owner int) {
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	require.NoError(p.t, err)
	p.file(name+".pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})), owner)
	p.file(name+".key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})), owner)
}

// psql runs one query, with the user's password.
func (p *postgres) psql(ctx context.Context, conninfo, query string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "psql", "-X", "-A", "-t", "-c", query, "user=ann password=secret dbname=postgres connect_timeout=10 "+conninfo)
	cmd.Dir, cmd.Env = p.dir, append(os.Environ(), "HOME="+p.dir)
	return cmd
}

// gateway serves h and returns what to add to a conninfo to get there.
func (p *postgres) gateway(h Handler) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(p.t, err)
	s := &Server{Handler: h, Logger: quiet}
	ended := serve(s, ln)
	p.t.Cleanup(func() { s.Close(); ended() })
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return "hostaddr=127.0.0.1 port=" + port
}

// TestRealPostgreSQL has psql reach a server by names on one port: with the server's TLS
// passing through, with TLS of our own before a server with TLS and before one without.
func TestRealPostgreSQL(t *testing.T) {
	p := startPostgres(t)
	to := func(host string) *Proxy {
		pool := new(balance.Pool)
		require.NoError(t, pool.Set(balance.Endpoint{Addr: net.JoinHostPort(host, p.port)}))
		return &Proxy{Pool: pool}
	}
	through, again, off := to("127.0.0.1"), to("127.0.0.1"), to("127.0.0.2")
	through.Handshake = RequestPostgreSQL
	again.Handshake = Handshakes(RequestPostgreSQL, (&OriginateTLS{Config: &tls.Config{InsecureSkipVerify: true}}).Handshake)
	cert := testCert(t, nil, "again.test", "off.test")
	p.certificate("gateway", cert, os.Getuid())
	accept := &AcceptPostgreSQL{Next: &Router{
		Routes: []Route{{Match: SNI("through.test"), Handler: through}},
		Default: &TerminateTLS{
			Config: &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"postgresql"}},
			Next:   &Router{Routes: []Route{{Match: SNI("again.test"), Handler: again}, {Match: SNI("off.test"), Handler: off}}},
		},
	}}
	strict := p.gateway(accept)
	lax := p.gateway(&AcceptPostgreSQL{Next: accept.Next, Plain: off})

	const query = "select host(inet_server_addr()), ssl from pg_stat_ssl where pid = pg_backend_pid()"
	for _, tt := range []struct{ why, at, conninfo, want string }{
		{"passthrough", strict, "host=through.test sslmode=verify-full sslrootcert=server.pem", "127.0.0.1|t\n"},
		{"passthrough, channel bound", strict, "host=through.test sslmode=require channel_binding=require", "127.0.0.1|t\n"},
		{"TLS on both sides", strict, "host=again.test sslmode=verify-full sslrootcert=gateway.pem channel_binding=disable", "127.0.0.1|t\n"},
		{"TLS on both sides, channel bound", strict, "host=again.test sslmode=require", "SCRAM channel binding check failed"},
		{"offload", strict, "host=off.test sslmode=verify-full sslrootcert=gateway.pem", "127.0.0.2|f\n"},
		{"offload, another name", strict, "host=again.test sslmode=verify-full sslrootcert=server.pem", "certificate verify failed"},
		{"TLS if need be", strict, "host=off.test sslmode=allow", "127.0.0.2|f\n"},
		{"no TLS", strict, "host=off.test sslmode=disable", "FATAL:  connections without TLS are not accepted here"},
		{"no TLS, by choice", lax, "host=again.test sslmode=disable", "127.0.0.2|f\n"},
	} {
		out, _ := p.psql(t.Context(), tt.at+" "+tt.conninfo, query).CombinedOutput()
		require.Contains(t, string(out), tt.want, tt.why)
	}

	// The query comes by TLS, its end by another connection without.
	cmd := p.psql(t.Context(), lax+" host=off.test sslmode=require", "select pg_sleep(60)")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(t, cmd.Start())
	direct := "host=127.0.0.1 port=" + p.port
	require.Eventually(t, func() bool {
		b, _ := p.psql(t.Context(), direct, "select count(*) from pg_stat_activity where query = 'select pg_sleep(60)' and state = 'active'").Output()
		return string(b) == "1\n"
	}, 20*time.Second, 50*time.Millisecond)
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	require.Error(t, cmd.Wait())
	require.Contains(t, out.String(), "canceling statement due to user request")
}
