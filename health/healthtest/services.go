// SPDX-License-Identifier: Apache-2.0

package healthtest

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
)

// Redis is a Redis server that knows AUTH, PING and ROLE.
type Redis struct {
	Password string // empty means that none is needed
	Role     string // empty means "master"
}

// ServeConn answers commands. Starting is LOADING, Denying a wrong password.
func (v Redis) ServeConn(c net.Conn, m Mode) {
	r := bufio.NewReader(c)
	open := v.Password == "" && m != Denying
	role := v.Role
	if role == "" {
		role = "master"
	}
	for {
		args := redisCommand(r)
		if len(args) == 0 {
			return
		}
		answer := "+PONG"
		switch name := strings.ToUpper(args[0]); {
		case m == Starting:
			answer = "-LOADING Redis is loading the dataset in memory"
		case name == "AUTH":
			answer = "+OK"
			if open = m != Denying && args[len(args)-1] == v.Password; !open {
				answer = "-WRONGPASS invalid username-password pair or user is disabled."
			}
		case !open:
			answer = "-NOAUTH Authentication required."
		case name == "ROLE":
			answer = fmt.Sprintf("*3\r\n$%d\r\n%s\r\n:0\r\n*0", len(role), role)
		case name != "PING":
			answer = "-ERR unknown command"
		}
		if _, err := io.WriteString(c, answer+"\r\n"); err != nil {
			return
		}
	}
}

// redisCommand reads an array of strings; nil means the end.
func redisCommand(r *bufio.Reader) (args []string) {
	var n int
	if _, err := fmt.Fscanf(r, "*%d\r\n", &n); err != nil {
		return nil
	}
	for range min(n, 16) {
		var size int
		if _, err := fmt.Fscanf(r, "$%d\r\n", &size); err != nil || size < 0 || size > 1<<16 {
			return nil
		}
		b := make([]byte, size+2)
		if _, err := io.ReadFull(r, b); err != nil {
			return nil
		}
		args = append(args, string(b[:size]))
	}
	return args
}

// PostgreSQL is a PostgreSQL server that asks for a password.
type PostgreSQL struct {
	Trust   bool        // asks for none
	Standby bool        // reports itself as a standby (in_hot_standby), if Trust is set
	TLS     *tls.Config // nil means that it has none
}

// ServeConn answers a startup. Starting is 57P03, Denying a rejection by pg_hba.conf.
func (v PostgreSQL) ServeConn(c net.Conn, m Mode) {
	const sslRequest = 80877103
	for {
		head := make([]byte, 8)
		if _, err := io.ReadFull(c, head); err != nil {
			return
		}
		size := binary.BigEndian.Uint32(head)
		if binary.BigEndian.Uint32(head[4:]) == sslRequest {
			if v.TLS == nil {
				c.Write([]byte("N"))
				continue
			}
			c.Write([]byte("S"))
			c = tls.Server(c, v.TLS)
			continue
		}
		if size < 8 || size > 1<<12 {
			return
		}
		if _, err := io.CopyN(io.Discard, c, int64(size)-8); err != nil {
			return
		}
		break
	}
	switch {
	case m == Starting:
		c.Write(postgres('E', "SFATAL\x00VFATAL\x00C57P03\x00Mthe database system is starting up\x00\x00"))
		return
	case m == Denying:
		c.Write(postgres('E', "SFATAL\x00C28000\x00Mpg_hba.conf rejects connection\x00\x00"))
		return
	case v.Trust:
		c.Write(postgres('R', "\x00\x00\x00\x00"))
		c.Write(postgres('S', "in_hot_standby\x00"+map[bool]string{true: "on", false: "off"}[v.Standby]+"\x00"))
		c.Write(postgres('S', "server_version\x0016.3\x00"))
		c.Write(postgres('K', "\x00\x00\x00\x01\x00\x00\x00\x02"))
		c.Write(postgres('Z', "I"))
	default:
		c.Write(postgres('R', "\x00\x00\x00\x0aSCRAM-SHA-256\x00\x00"))
	}
	io.Copy(io.Discard, c)
}

// postgres frames a message.
func postgres(kind byte, body string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(body)+4))
	return append(b, body...)
}

// MySQL is a MySQL server on which every user but "locked" has no password.
type MySQL struct {
	TLS *tls.Config // nil means that it has none
}

// ServeConn greets and answers a login. Starting is error 1040 in place of the
// greeting, Denying error 1045 after the login.
func (v MySQL) ServeConn(c net.Conn, m Mode) {
	if m == Starting {
		c.Write(mysql(0, "\xff\x10\x04Too many connections"))
		return
	}
	capabilities := "\xff\xf7" // all of the lower half, TLS aside
	if v.TLS != nil {
		capabilities = "\xff\xff"
	}
	c.Write(mysql(0, "\x0a8.0.39\x00\x01\x00\x00\x0012345678\x00"+capabilities+"\x21\x02\x00\xff\xc1\x15"+strings.Repeat("\x00", 10)+"123456789012\x00mysql_native_password\x00"))
	login := mysqlRead(c)
	if len(login) == 32 && v.TLS != nil {
		c = tls.Server(c, v.TLS)
		login = mysqlRead(c)
	}
	if len(login) < 33 {
		return
	}
	if name, _, _ := strings.Cut(string(login[32:]), "\x00"); name == "locked" || m == Denying {
		c.Write(mysql(2, "\xff\x15\x04#28000Access denied for user '"+name+"'"))
		return
	}
	c.Write(mysql(2, "\x00\x00\x00\x02\x00\x00\x00"))
	io.Copy(io.Discard, c)
}

// mysql frames a packet.
func mysql(seq byte, body string) []byte {
	return append([]byte{byte(len(body)), byte(len(body) >> 8), 0, seq}, body...)
}

func mysqlRead(c net.Conn) []byte {
	head := make([]byte, 4)
	if _, err := io.ReadFull(c, head); err != nil {
		return nil
	}
	b := make([]byte, int(head[0])|int(head[1])<<8)
	if _, err := io.ReadFull(c, b); err != nil {
		return nil
	}
	return b
}

// SMTP is a mail server.
type SMTP struct {
	TLS *tls.Config // for STARTTLS; nil means that it has none
}

// ServeConn answers commands. Starting is 421, Denying 554.
func (v SMTP) ServeConn(c net.Conn, m Mode) {
	switch m {
	case Starting:
		io.WriteString(c, "421 4.3.2 mail.example.com not ready\r\n")
		return
	case Denying:
		io.WriteString(c, "554 5.7.1 no service for you\r\n")
		return
	}
	io.WriteString(c, "220-mail.example.com\r\n220 ESMTP\r\n")
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		switch verb, _, _ := strings.Cut(strings.TrimSpace(line), " "); {
		case verb == "EHLO" || verb == "HELO" || verb == "LHLO":
			io.WriteString(c, "250-mail.example.com\r\n250 SIZE 1000000\r\n")
		case verb == "STARTTLS" && v.TLS != nil:
			io.WriteString(c, "220 go ahead\r\n")
			c = tls.Server(c, v.TLS)
			r = bufio.NewReader(c)
		case verb == "QUIT":
			io.WriteString(c, "221 bye\r\n")
			return
		default:
			io.WriteString(c, "502 not implemented\r\n")
		}
	}
}

// LDAP is a directory.
type LDAP struct{}

// ServeConn answers a bind. Starting is busy, Denying invalid credentials.
func (LDAP) ServeConn(c net.Conn, m Mode) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(c, head); err != nil || head[1] >= 0x80 {
		return
	}
	if _, err := io.CopyN(io.Discard, c, int64(head[1])); err != nil {
		return
	}
	result := map[Mode]byte{Starting: 51, Denying: 49}[m]
	c.Write([]byte{0x30, 12, 2, 1, 1, 0x61, 7, 10, 1, result, 4, 0, 4, 0})
	io.Copy(io.Discard, c)
}

// Agent is an agent that says a line.
type Agent struct {
	Line string // without its end; empty means "up"
}

// ServeConn says the line. Starting says drain, Denying maint.
func (v Agent) ServeConn(c net.Conn, m Mode) {
	line := v.Line
	switch {
	case m == Starting:
		line = "drain"
	case m == Denying:
		line = "maint"
	case line == "":
		line = "up"
	}
	io.WriteString(c, line+"\n")
	finish(c)
}

// HTTP serves a handler over HTTP/1 and, with prior knowledge, HTTP/2.
type HTTP struct {
	Handler http.Handler // nil means an empty 200
}

// ServeConn serves one connection. Starting is 503, Denying 401.
func (v HTTP) ServeConn(c net.Conn, m Mode) {
	h := v.Handler
	status := map[Mode]int{Starting: http.StatusServiceUnavailable, Denying: http.StatusUnauthorized}[m]
	if h == nil || status != 0 {
		h = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(max(status, 200)) })
	}
	serveHTTP(c, h)
}

// GRPC is a gRPC server with the health service.
type GRPC struct {
	Services []string // known by name, besides the server as a whole
}

// ServeConn serves one connection. Starting is NOT_SERVING, Denying UNAUTHENTICATED.
func (v GRPC) ServeConn(c net.Conn, m Mode) {
	serveHTTP(c, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<12))
		known := len(body) == 5
		for _, s := range v.Services {
			known = known || len(body) > 7 && string(body[7:]) == s
		}
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status, Grpc-Message")
		status, message := "0", ""
		switch {
		case r.URL.Path != "/grpc.health.v1.Health/Check":
			status, message = "12", "unknown method"
		case m == Denying:
			status, message = "16", "who%20are%20you"
		case !known:
			status, message = "5", "unknown service"
		case m == Starting:
			w.Write([]byte{0, 0, 0, 0, 2, 8, 2})
		default:
			w.Write([]byte{0, 0, 0, 0, 2, 8, 1})
		}
		w.Header().Set("Grpc-Status", status)
		w.Header().Set("Grpc-Message", message)
	}))
}

// serveHTTP serves c until it ends.
func serveHTTP(c net.Conn, h http.Handler) {
	one := &oneConn{Conn: c, done: make(chan struct{})}
	s := &http.Server{Handler: h, Protocols: new(http.Protocols)}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	s.Serve(&oneListener{conn: one})
	s.Close()
}

// oneConn tells when it was closed.
type oneConn struct {
	net.Conn
	once sync.Once
	done chan struct{}
}

func (c *oneConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { close(c.done) })
	return err
}

// oneListener yields one connection, and ends with it.
type oneListener struct {
	conn *oneConn
	gave bool
}

func (l *oneListener) Accept() (net.Conn, error) {
	if !l.gave {
		l.gave = true
		return l.conn, nil
	}
	<-l.conn.done
	return nil, net.ErrClosed
}

func (l *oneListener) Close() error   { return nil }
func (l *oneListener) Addr() net.Addr { return l.conn.LocalAddr() }
