// SPDX-License-Identifier: Apache-2.0

package health_test

import (
	"context"
	"errors"
	"io"
	"net"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/health"
)

// canned is a connection to a server that says one thing, in pieces, and ends.
// With endless set it says that again and again.
type canned struct {
	endless bool

	mu     sync.Mutex
	data   string
	at     int // in data
	read   int // in all
	closed bool
}

func (c *canned) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, net.ErrClosed
	}
	if c.endless && c.at == len(c.data) {
		c.at = 0
	}
	if c.at == len(c.data) {
		return 0, io.EOF
	}
	n := copy(p, c.data[c.at:min(len(c.data), c.at+1+c.read%700)])
	c.at += n
	c.read += n
	return n, nil
}

func (c *canned) Write(p []byte) (int, error) { return len(p), nil }

func (c *canned) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	return nil
}

func (c *canned) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *canned) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *canned) SetDeadline(time.Time) error      { return nil }
func (c *canned) SetReadDeadline(time.Time) error  { return nil }
func (c *canned) SetWriteDeadline(time.Time) error { return nil }

// most is what a probe may read: its bound, and what TLS and HTTP/2 may add.
const most = 16<<10 + 4<<10 + 64<<10

// feed probes c and checks what holds for every answer: the probe ends, reads
// no more than its bound, closes, and returns nil or an *Error fit for a log.
func feed(t *testing.T, c *canned, probe func(health.Connect) health.Probe) error {
	d := health.Connect{Dial: func(context.Context, string, string) (net.Conn, error) { return c, nil }}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err := probe(d).Probe(ctx, balance.Endpoint{Addr: "a:1"})
	require.NoError(t, ctx.Err(), "no answer takes so long")
	c.mu.Lock()
	defer c.mu.Unlock()
	require.True(t, c.closed)
	require.LessOrEqual(t, c.read, most)
	if err == nil {
		return nil
	}
	var e *health.Error
	require.True(t, errors.As(err, &e), "%T", err)
	require.NotEqual(t, health.CodeOK, e.Code)
	text := e.Error()
	require.True(t, utf8.ValidString(text))
	require.Less(t, len(text), 600)
	require.Equal(t, -1, strings.IndexFunc(text, unicode.IsControl), "%q", text)
	return err
}

func fuzz(f *testing.F, probe func(health.Connect) health.Probe, seeds ...string) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		feed(t, &canned{data: string(answer)}, probe)
	})
}

func FuzzRedis(f *testing.F) {
	fuzz(f, func(d health.Connect) health.Probe { return health.Redis{Connect: d, Password: "x", Role: "master"} },
		"+OK\r\n+PONG\r\n*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n", "-NOAUTH\r\n", "+OK\r\n-LOADING \x1b[31m\r\n")
}

func FuzzPostgreSQL(f *testing.F) {
	fuzz(f, func(d health.Connect) health.Probe { return health.PostgreSQL{Connect: d} },
		"R\x00\x00\x00\x08\x00\x00\x00\x00Z\x00\x00\x00\x05I", "E\x00\x00\x00\x10C57P03\x00Mup\x00\x00", "R\xff\xff\xff\xff", "R\x00\x00\x00\x04")
}

func FuzzMySQL(f *testing.F) {
	fuzz(f, func(d health.Connect) health.Probe { return health.MySQL{Connect: d, User: "u"} },
		"\x10\x00\x00\x00\xff\x10\x04Too many conn", "\x14\x00\x00\x00\x0a8\x001234123456780\xff\xf7!\x07\x00\x00\x02\x00\x00\x00\x02\x00\x00\x00",
		"\x01\x00\x00\x00\x0a", "\x01\x00\x00\x00\xff", "\xff\xff\xff\x00")
}

func FuzzSMTP(f *testing.F) {
	fuzz(f, func(d health.Connect) health.Probe { return health.SMTP{Connect: d} },
		"220-a\r\n220 b\r\n250 c\r\n221 d\r\n", "421\r\n", "2200\r\n", "\n")
}

func FuzzLDAP(f *testing.F) {
	fuzz(f, func(d health.Connect) health.Probe { return health.LDAP{Connect: d} },
		"0\x0c\x02\x01\x01a\x07\x0a\x01\x00\x04\x00\x04\x00", "0\x84\x00\x00\x00\x0c\x02\x01\x01a\x07\x0a\x01\x31\x04\x00\x04\x00",
		"0\x84\xff\xff\xff\xff", "0\x80", "0\x0c\x02\x01\x00x\x07\x0a\x01\x34\x04\x00\x04\x00", "0\x02\x02\x84")
}

func FuzzAgent(f *testing.F) {
	fuzz(f, func(d health.Connect) health.Probe { return health.Agent{Connect: d} },
		"75%,maxconn:30,maint,down\n", "up #\x00\xff\n", "weight:65536", "%")
}

func FuzzHTTP(f *testing.F) {
	fuzz(f, func(d health.Connect) health.Probe {
		return health.HTTP{Connect: d, Content: health.Match{Contains: "a", Regexp: regexp.MustCompile("b+")},
			Headers: []health.HeaderMatch{{Name: "A", Value: health.Match{Not: true}}}}
	}, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\nab", "HTTP/1.1 103 x\r\n\r\n", "HTTP/1.0 \x80\r\n\r\n")
}

const settings = "\x00\x00\x00\x04\x00\x00\x00\x00\x00"

func FuzzHTTP2(f *testing.F) {
	fuzz(f, func(d health.Connect) health.Probe { return health.HTTP{Connect: d, HTTP2: true} },
		settings+"\x00\x00\x01\x01\x05\x00\x00\x00\x01\x88", settings+"\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01", settings)
}

func FuzzGRPC(f *testing.F) {
	// :status 200, content-type and grpc-status 0, as literals.
	head := "\x88\x00\x0ccontent-type\x10application/grpc\x00\x0bgrpc-status\x010"
	fuzz(f, func(d health.Connect) health.Probe { return health.GRPC{Connect: d} },
		settings+"\x00\x00"+string(rune(len(head)))+"\x01\x04\x00\x00\x00\x01"+head+"\x00\x00\x07\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x02\x08\x01",
		settings+"\x00\x00\x01\x01\x05\x00\x00\x00\x01\x88")
}

func FuzzScript(f *testing.F) {
	fuzz(f, func(d health.Connect) health.Probe {
		return health.Script{Connect: d, Steps: []health.Step{
			{Expect: health.Match{Regexp: regexp.MustCompile("a|b")}},
			{Min: 5, Expect: health.Match{Contains: "x", Not: true}},
			{Send: "z", Min: 3},
		}}
	}, "a1234567", "bx", "", "12345678a12345678")
}
