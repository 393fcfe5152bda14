// SPDX-License-Identifier: Apache-2.0

//go:build linux

package health_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/health"
)

// The tests of this file and of real_*_test.go put the probes before real
// servers: as the distribution installs them, started here on free ports of
// loopback, and killed. They run as root, if PENSTOCK_REAL_SERVERS is set:
//
//	PENSTOCK_REAL_SERVERS=1 go test ./health -run TestReal -v
//
// A server that is not installed is skipped. With -v each prints what the probe
// said in each situation.

func TestRealRedis(t *testing.T) {
	d := real(t, "redis", "redis-server")
	args := []string{"--port", d.port, "--bind", "127.0.0.1", "--dir", d.dir, "--enable-debug-command", "yes", "--save", ""}
	d.start("redis-server", args...)
	d.becomes("healthy", health.Redis{}, "ok")
	d.says("healthy, the role", health.Redis{Role: "master"}, "ok")
	d.says("not a replica", health.Redis{Role: "slave"}, "unexpected content / ROLE: the role is master, not slave")
	d.says("a password it has not", health.Redis{Password: "x"}, "not authorized / AUTH: ERR AUTH")
	d.says("Script", health.Script{Steps: []health.Step{{Send: "PING\r\n", Expect: health.Match{Contains: "+PONG"}}}}, "ok")
	d.says("asked for SMTP", health.SMTP{}, "timeout / greeting: no answer within 1s")
	d.says("asked for PostgreSQL", health.PostgreSQL{}, "timeout / startup")
	d.says("asked for TLS", health.TLS{}, "timeout / TLS: no answer within 1s")
	d.says("asked for HTTP", health.HTTP{}, "")

	d.says("a big data set", health.Script{Steps: []health.Step{
		{Send: "DEBUG POPULATE 100000\r\n", Expect: health.Match{Contains: "OK"}},
		{Send: "SAVE\r\n", Expect: health.Match{Contains: "OK"}},
	}}, "ok")
	d.common(health.Redis{}, "PING: no answer within 1s")
	d.start("redis-server", append(args, "--key-load-delay", "10", "--loading-process-events-interval-bytes", "1024")...)
	d.becomes("starting up", health.Redis{}, "bad status / PING: LOADING")
	d.becomes("started", health.Redis{}, "ok")
	d.kill(syscall.SIGKILL)

	d.start("redis-server", append(args, "--requirepass", "secret")...)
	d.becomes("wants a password", health.Redis{}, "not authorized / PING: NOAUTH")
	d.says("a wrong one", health.Redis{Password: "x"}, "not authorized / AUTH: WRONGPASS")
	d.says("the right one", health.Redis{Password: "secret"}, "ok")
	d.says("as a user", health.Redis{User: "default", Password: "secret"}, "ok")
	d.kill(syscall.SIGKILL)

	d.start("redis-server", append(args, "--replicaof", "127.0.0.1 1")...)
	d.becomes("a replica", health.Redis{Role: "slave"}, "ok")
	d.says("a replica, not a master", health.Redis{Role: "master"}, "unexpected content / ROLE: the role is slave, not master")
	d.kill(syscall.SIGKILL)
	d.start("redis-server", append(args, "--replicaof", "127.0.0.1 1", "--replica-serve-stale-data", "no")...)
	d.becomes("a replica without its master", health.Redis{}, "bad status / PING: MASTERDOWN")
}

func TestRealPostgreSQL(t *testing.T) {
	d := real(t, "postgres", "pg_ctlcluster")
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		t.Skip("no initdb")
	}
	bin := filepath.Dir(found[len(found)-1])
	data := filepath.Join(d.dir, "data")
	d.run(filepath.Join(bin, "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "--no-sync")
	require.NoError(t, os.WriteFile(filepath.Join(data, "pg_hba.conf"), []byte(
		"local all all trust\n"+
			"host all banned 127.0.0.1/32 reject\n"+
			"host all secret 127.0.0.1/32 scram-sha-256\n"+
			"host all all 127.0.0.1/32 trust\n"), 0o644))
	start := func(more ...string) {
		d.start(filepath.Join(bin, "postgres"), append([]string{"-D", data, "-p", d.port, "-k", d.dir, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"}, more...)...)
	}
	cert, key := d.certificate()
	start("-c", "ssl=on", "-c", "ssl_cert_file="+cert, "-c", "ssl_key_file="+key)
	d.becomes("healthy", health.PostgreSQL{Connect: health.Connect{TLS: trustOnly(t, cert)}}, "ok")
	d.says("a certificate not trusted", health.PostgreSQL{Connect: health.Connect{TLS: &tls.Config{}}}, "TLS failed / TLS: ")
	d.kill(syscall.SIGQUIT)

	start("-c", "max_connections=5", "-c", "superuser_reserved_connections=0")
	d.becomes("healthy", health.PostgreSQL{}, "ok")
	d.says("asks for a password", health.PostgreSQL{User: "secret"}, "ok")
	d.says("rejected by pg_hba.conf", health.PostgreSQL{User: "banned"}, "not authorized / startup: 28000")
	d.says("no such user", health.PostgreSQL{User: "nobody"}, "not authorized / startup: 28000")
	d.says("no such database", health.PostgreSQL{Database: "nodb"}, "bad status / startup: 3D000")
	d.says("TLS that it has not", health.PostgreSQL{Connect: health.Connect{TLS: trustAll()}}, "TLS failed / SSLRequest: the server has no TLS")
	d.says("asked for HTTP", health.HTTP{}, "closed / HTTP")
	d.says("a primary", primary("postgres", health.Connect{}), "ok")

	var held []net.Conn // sessions that take up all places
	for range 5 {
		c, err := net.Dial("tcp", d.addr)
		require.NoError(t, err)
		held = append(held, c)
		_, err = c.Write([]byte("\x00\x00\x00\x17\x00\x03\x00\x00user\x00postgres\x00\x00"))
		require.NoError(t, err)
		c.Read(make([]byte, 1000))
	}
	d.becomes("no place left", health.PostgreSQL{}, "bad status / startup: 53300")
	for _, c := range held {
		c.Close()
	}
	d.becomes("places again", health.PostgreSQL{}, "ok")
	d.common(health.PostgreSQL{}, "startup: no answer within 1s")

	// A standby that waits for its archive has not started.
	require.NoError(t, os.WriteFile(filepath.Join(data, "standby.signal"), nil, 0o644))
	start("-c", "restore_command=sleep 1; false", "-c", "hot_standby=off")
	d.becomes("starting up", health.PostgreSQL{}, "bad status / startup: 57P03")
	d.kill(syscall.SIGQUIT)

	start() // as a hot standby
	d.becomes("a standby", health.PostgreSQL{}, "ok")
	d.says("a standby, not a primary", primary("postgres", health.Connect{}), `unexpected content / role: found "in_hot_standby`)
	require.NoError(t, os.Remove(filepath.Join(data, "standby.signal")))
	d.kill(syscall.SIGQUIT)

	start()
	d.becomes("started", health.PostgreSQL{}, "ok")
	c, err := net.Dial("tcp", d.addr)
	require.NoError(t, err)
	defer c.Close()
	_, err = c.Write([]byte("\x00\x00\x00\x17\x00\x03\x00\x00user\x00postgres\x00\x00"))
	require.NoError(t, err)
	c.Read(make([]byte, 1000))
	syscall.Kill(d.cmd.Process.Pid, syscall.SIGTERM) // smart shutdown: waits for c
	d.becomes("shutting down", health.PostgreSQL{}, "bad status / startup: 57P03")
}

func TestRealMariaDB(t *testing.T) {
	d := real(t, "mysql", "mariadbd")
	data := filepath.Join(d.dir, "data")
	d.run("mariadb-install-db", "--no-defaults", "--datadir="+data, "--auth-root-authentication-method=normal", "--skip-test-db")
	users := d.file("users.sql", "CREATE USER IF NOT EXISTS 'check'@'%';\nCREATE USER IF NOT EXISTS locked@'%' IDENTIFIED BY 'x';\nDELETE FROM mysql.global_priv WHERE User='';\nFLUSH PRIVILEGES;\n")
	start := func(more ...string) {
		d.start("mariadbd", append([]string{"--no-defaults", "--datadir=" + data, "--port=" + d.port, "--bind-address=127.0.0.1", "--socket=" + filepath.Join(d.dir, "s"), "--skip-name-resolve", "--init-file=" + users}, more...)...)
	}
	cert, key := d.certificate()
	secure := health.Connect{TLS: trustOnly(t, cert)}
	start("--ssl-cert="+cert, "--ssl-key="+key)
	d.becomes("healthy", health.MySQL{User: "check", Connect: secure}, "ok")
	d.says("by the greeting, over TLS", health.MySQL{Connect: secure}, "ok")
	d.kill(syscall.SIGTERM)

	start("--max-connections=10")
	before := d.becomes("healthy", health.MySQL{User: "check"}, "ok")
	t.Logf("%-28s %v", "on the way to it", before)
	d.says("healthy, by the greeting", health.MySQL{}, "ok")
	d.says("the user has a password", health.MySQL{User: "locked"}, "not authorized / login: 1045")
	d.says("no such user", health.MySQL{User: "nobody"}, "not authorized / login: 1045")
	d.says("TLS that it has not", health.MySQL{Connect: health.Connect{TLS: trustAll()}}, "TLS failed / TLS: the server has no TLS")
	d.says("asked for Redis", health.Redis{}, "protocol error / PING: ")
	var held []net.Conn
	for range 13 {
		c, err := net.Dial("tcp", d.addr)
		require.NoError(t, err)
		held = append(held, c)
	}
	d.becomes("no place left", health.MySQL{User: "check"}, "bad status / greeting: 1040")
	for _, c := range held {
		c.Close()
	}
	d.becomes("places again", health.MySQL{User: "check"}, "ok")
	d.common(health.MySQL{User: "check"}, "greeting: no answer within 1s")
}

func TestRealNginx(t *testing.T) {
	d := real(t, "root", "nginx")
	cert, key := d.certificate()
	secure := refusedAddr(t)
	conf := func(status string) string {
		return d.file("nginx.conf", fmt.Sprintf(`daemon off; master_process off; pid %[1]s/pid; error_log %[1]s/error.log;
events {}
http {
	access_log off;
	client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
	server { listen %[2]s; location / { return %[4]s "state: %[4]s\n"; } location /private { auth_basic x; auth_basic_user_file /dev/null; } }
	server { listen %[3]s ssl http2; ssl_certificate %[5]s; ssl_certificate_key %[6]s; location / { return 200 "$server_protocol $ssl_server_name\n"; } }
	server { listen unix:%[1]s/proxied proxy_protocol; location / { return 200 "$proxy_protocol_addr.\n"; } }
}
`, d.dir, d.addr, secure, status, cert, key))
	}
	d.start("nginx", "-p", d.dir, "-c", conf("200"))
	d.becomes("healthy", health.HTTP{}, "ok")
	d.says("its body", health.HTTP{Content: health.Match{Contains: "state: 200"}}, "ok")
	d.says("wants a password", health.HTTP{Path: "/private"}, "bad status / HTTP: status 401")
	d.says("HTTP/2 by ALPN", health.HTTP{HTTP2: true, Connect: health.Connect{Addr: secure, TLS: trustOnly(t, cert)}, Content: health.Match{Contains: "HTTP/2.0 localhost"}}, "ok")
	d.says("HTTP/1.1 over TLS", health.HTTP{Connect: health.Connect{Addr: secure, TLS: trustOnly(t, cert)}, Content: health.Match{Contains: "HTTP/1.1 localhost"}}, "ok")
	d.says("a certificate not trusted", health.TLS{Connect: health.Connect{Addr: secure}}, "TLS failed / TLS: ")
	d.says("HTTP/2 that it has not", health.HTTP{HTTP2: true}, "")
	for _, v := range []health.ProxyVersion{health.ProxyV1, health.ProxyV2} {
		d.says(fmt.Sprintf("PROXY header, version %d", v), health.HTTP{Connect: health.Connect{Addr: "unix:" + d.dir + "/proxied", Proxy: v}}, "ok")
	}
	d.says("no PROXY header", health.HTTP{Connect: health.Connect{Addr: "unix:" + d.dir + "/proxied"}}, "closed / HTTP: connection closed")
	d.common(health.HTTP{}, "HTTP: no answer within 1s")
	for _, status := range []string{"503", "404"} {
		d.start("nginx", "-p", d.dir, "-c", conf(status))
		d.becomes("answers "+status, health.HTTP{}, "bad status / HTTP: status "+status)
		if status == "404" {
			d.says("404 as a soft stop", health.HTTP{Stop: []health.StatusRange{{From: 404}}}, "stopping / HTTP: status 404")
		}
		d.kill(syscall.SIGTERM)
	}
}

func TestRealOpenSMTPD(t *testing.T) {
	d := real(t, "root", "smtpd")
	cert, key := d.certificate()
	require.NoError(t, os.Chmod(d.dir, 0o755))
	conf := d.file("smtpd.conf", fmt.Sprintf("pki here cert %q\npki here key %q\nlisten on 127.0.0.1 port %s tls pki here hostname mail.test\naction \"out\" relay\nmatch from local for any action \"out\"\n", cert, key, d.port))
	_ = os.MkdirAll("/var/spool/smtpd", 0o711)
	d.start("smtpd", "-d", "-f", conf)
	d.becomes("healthy", health.SMTP{}, "ok")
	d.says("HELO", health.SMTP{Hello: "HELO probe.test"}, "ok")
	// OpenSMTPD 6.8 of Debian 12 loses its private key under OpenSSL 3, and refuses
	// every client so, openssl s_client too. TestUpgrades has a handshake that succeeds.
	d.says("STARTTLS, its key is lost", health.SMTP{StartTLS: true, Connect: health.Connect{TLS: trustOnly(t, cert)}}, "")
	d.says("a word it does not know", health.SMTP{Hello: "HALLO x"}, "bad status / HALLO: 500")
	d.common(health.SMTP{}, "greeting: no answer within 1s")
}

func TestRealOpenLDAP(t *testing.T) {
	d := real(t, "openldap", "slapd")
	conf := func(more string) string {
		data := filepath.Join(d.dir, "data")
		require.NoError(t, os.MkdirAll(data, 0o777))
		require.NoError(t, os.Chmod(data, 0o777))
		return d.file("slapd.conf", fmt.Sprintf("include /etc/ldap/schema/core.schema\nmodulepath /usr/lib/ldap\nmoduleload back_mdb\n%s\ndatabase mdb\nsuffix dc=test\nrootdn cn=root,dc=test\nrootpw secret\ndirectory %s\nmaxsize 10485760\n", more, data))
	}
	start := func(more string) {
		d.start("slapd", "-d", "0", "-h", "ldap://"+d.addr, "-f", conf(more))
	}
	start("")
	d.becomes("healthy", health.LDAP{}, "ok")
	d.says("with a name", health.LDAP{DN: "cn=root,dc=test", Password: "secret"}, "ok")
	d.says("a wrong password", health.LDAP{DN: "cn=root,dc=test", Password: "x"}, "not authorized / bind: result 49")
	d.common(health.LDAP{}, "bind: no answer within 1s")
	start("disallow bind_anon")
	d.becomes("refuses strangers", health.LDAP{}, "not authorized / bind: result 48")
}
