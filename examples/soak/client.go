// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// patience is how long a request may take, with all its tries, before it counts as stuck.
const patience = 90 * time.Second

// A crowd is the clients of a run.
type crowd struct {
	l      *ledger
	gates  []*gate
	tls    *tls.Config
	spared atomic.Pointer[string] // host of the server that is well throughout this round
	tokens atomic.Uint64
}

// A client does one kind of request, one after another.
type client struct {
	*crowd
	*tally
	rnd  *rand.Rand
	do   func(c *client, g *gate)
	http *http.Transport // nil if it makes its own connections
	tls  bool
	grpc bool

	cookie, kept string // of the sticky client, and the server that has set it
}

// kinds are all that clients do, and how many of them do it.
var kinds = []struct {
	kind string
	n    int
	make func(c *client)
}{
	{"HTTP/1", 4, func(c *client) { c.http, c.do = transport("1", nil), (*client).ask }},
	{"HTTP/2", 4, func(c *client) { c.http, c.do = transport("h2c", nil), (*client).ask }},
	{"HTTP/1 over TLS", 2, func(c *client) { c.http, c.do, c.tls = transport("1", c.crowd.tls), (*client).ask, true }},
	{"HTTP/2 over TLS", 3, func(c *client) { c.http, c.do, c.tls = transport("2", c.crowd.tls), (*client).ask, true }},
	{"gRPC", 3, func(c *client) { c.http, c.do, c.grpc = transport("h2c", nil), (*client).ask, true }},
	{"WebSocket", 2, func(c *client) { c.do = (*client).webSocket }},
	{"TCP", 3, func(c *client) { c.do = (*client).line }},
	{"UDP", 2, func(c *client) { c.do = (*client).datagram }},
	{"sticky", 1, func(c *client) { c.http, c.do = transport("1", nil), (*client).sticky }},
	{"limited", 1, func(c *client) { c.http, c.do = transport("h2c", nil), (*client).limited }},
	{"slow reader", 1, func(c *client) { c.do = (*client).slow }},
	{"quitter", 2, func(c *client) { c.do = (*client).quit }},
	{"operator", 1, func(c *client) { c.http, c.do = transport("1", nil), (*client).look }},
}

// transport makes one; net/http changes the configuration.
func transport(protocol string, secure *tls.Config) *http.Transport {
	p := new(http.Protocols)
	p.SetHTTP1(protocol == "1")
	p.SetHTTP2(protocol == "2")
	p.SetUnencryptedHTTP2(protocol == "h2c")
	return &http.Transport{Protocols: p, TLSClientConfig: secure.Clone(), DisableCompression: true}
}

func newCrowd(l *ledger, gates []*gate, secure *tls.Config) *crowd {
	for _, k := range kinds {
		l.tallies = append(l.tallies, &tally{kind: k.kind})
	}
	return &crowd{l: l, gates: gates, tls: secure}
}

// gather returns the clients of a round. They have no connections yet.
func (c *crowd) gather(rnd *rand.Rand) (all []*client) {
	for i, k := range kinds {
		for range k.n {
			one := &client{crowd: c, tally: c.l.tallies[i], rnd: rand.New(rand.NewPCG(rnd.Uint64(), 0))}
			k.make(one)
			all = append(all, one)
		}
	}
	return all
}

// run sends requests until ctx ends, pause after pause.
func (c *client) run(ctx context.Context, pause time.Duration) {
	for {
		select {
		case <-time.After(time.Duration(c.rnd.ExpFloat64() * float64(pause))):
		case <-ctx.Done():
			if c.http != nil {
				c.http.CloseIdleConnections()
			}
			return
		}
		begun := time.Now()
		c.asked.Add(1)
		c.do(c, c.gates[c.rnd.IntN(len(c.gates))])
		if took := time.Since(begun); took > patience {
			c.l.wrong("%s: a request took %v", c.kind, took.Round(time.Millisecond))
		}
	}
}

// request makes a request of a new token, for a random path.
func (c *client) request(ctx context.Context, g *gate) (req *http.Request, token string, reply int64) {
	token = fmt.Sprint("r", c.tokens.Add(1))
	reply = size(c.rnd)
	methods := []string{"GET", "GET", "GET", "GET", "HEAD", "PUT", "POST", "POST"}
	method := methods[c.rnd.IntN(len(methods))]
	path := []string{"/", "/", "/gated/", "/secure/"}[c.rnd.IntN(4)]
	var sent int64
	var b io.Reader
	if method == "PUT" || method == "POST" {
		sent = size(c.rnd)
		b = body(token, sent)
	}
	if c.grpc {
		method, path, sent = "POST", "/calls/", size(c.rnd)
		b = framed(token, sent)
	}
	scheme := "http"
	if c.tls {
		scheme = "https"
	}
	req, err := http.NewRequestWithContext(ctx, method, scheme+"://"+g.host+path+token, b)
	if err != nil {
		panic(err)
	}
	if !c.grpc && sent > 0 && c.rnd.IntN(3) > 0 {
		req.ContentLength = sent
	}
	h := req.Header
	h.Set("X-Token", token)
	h.Set("X-Body", strconv.FormatInt(sent, 10))
	h.Set("X-Reply", strconv.FormatInt(reply, 10))
	if c.rnd.IntN(4) == 0 {
		h.Set("X-Think", (time.Duration(c.rnd.IntN(200)) * time.Millisecond).String())
	}
	if c.rnd.IntN(3) == 0 {
		h.Set("X-Open", "yes")
	}
	if c.grpc {
		h.Set("Content-Type", "application/grpc")
		h.Set("TE", "trailers")
	}
	return req, token, reply
}

// ask sends a request, and checks what comes.
func (c *client) ask(g *gate) {
	ctx, cancel := context.WithTimeout(context.Background(), patience+time.Minute)
	defer cancel()
	leaves := c.rnd.IntN(8) == 0
	if leaves {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(1+c.rnd.IntN(300))*time.Millisecond)
		defer cancel()
	}
	req, token, reply := c.request(ctx, g)
	begun := time.Now()
	answered, got := c.trip(req, token, reply)
	safe := req.Method == "GET" || req.Method == "HEAD"
	if !answered && safe && !leaves && !strings.HasPrefix(req.URL.Path, "/gated") && !g.crashedSince(begun) {
		c.l.wrong("%s: %s %s of gateway %s was not answered by a server, but after %v by %s, though server %s was well", c.kind, req.Method, req.URL.Path, g.name, time.Since(begun), got, *c.spared.Load())
	}
}

// trip does the round trip, and reports whether a server has answered well, or what has
// instead.
func (c *client) trip(req *http.Request, token string, reply int64) (answered bool, got string) {
	res, err := c.http.RoundTrip(req)
	if err != nil {
		c.cut.Add(1)
		return false, fmt.Sprintf("an error: %v", err)
	}
	defer res.Body.Close()
	from := res.Header.Get("X-Token")
	if from == "" { // it is the gateway's own
		page, _ := io.ReadAll(io.LimitReader(res.Body, 1<<16))
		c.refused.Add(1)
		if status := res.Header.Get("Grpc-Status"); res.StatusCode < 400 && (status == "" || status == "0") {
			c.l.wrong("%s: request %s got status %d without a server", c.kind, token, res.StatusCode)
		}
		return false, fmt.Sprintf("%s: %.80q", res.Status, page)
	}
	if from != token {
		c.l.wrong("%s: request %s got the reply to request %s", c.kind, token, from)
		return true, ""
	}
	if res.StatusCode != http.StatusOK || res.Header.Get("Grpc-Status") != "" {
		c.refused.Add(1)
		return false, res.Status
	}
	r := io.Reader(res.Body)
	if c.grpc {
		r = &unframed{r: r}
	}
	n, err := compare(token, r)
	status := res.Trailer.Get("Grpc-Status")
	switch {
	case errors.Is(err, errMixed):
		c.l.wrong("%s: the reply to request %s: %v", c.kind, token, err)
	case err != nil, c.grpc && status != "" && status != "0":
		c.cut.Add(1)
	case n != reply && req.Method != http.MethodHead:
		c.l.wrong("%s: request %s got %d bytes as the whole reply, of which there are %d", c.kind, token, n, reply)
	case c.grpc && status != "0":
		c.l.wrong("%s: call %s ended without a status", c.kind, token)
	default:
		c.whole.Add(1)
	}
	return true, ""
}

// sticky sends a request with its cookie. The server that is well keeps its clients.
func (c *client) sticky(g *gate) {
	ctx, cancel := context.WithTimeout(context.Background(), patience+time.Minute)
	defer cancel()
	req, token, _ := c.request(ctx, g)
	req.Method, req.Body, req.ContentLength = "GET", nil, 0
	req.URL.Path = "/sticky/" + token
	req.Header.Set("X-Body", "0")
	req.Header.Set("X-Reply", "100")
	if c.cookie != "" {
		req.Header.Set("Cookie", c.cookie)
	}
	begun := time.Now()
	res, err := c.http.RoundTrip(req)
	if err != nil {
		c.cut.Add(1)
		return
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	from, spared := res.Header.Get("X-Server"), *c.spared.Load()
	if c.kept == spared && from != spared && !g.crashedSince(begun) {
		c.l.wrong("a client with a cookie of server %s, which is well, got %s from %q", spared, res.Status, from)
	}
	for _, set := range res.Cookies() {
		c.cookie, c.kept = set.Name+"="+set.Value, from
	}
	c.whole.Add(1)
}

// limited sends a burst for one key. The gateway counts.
func (c *client) limited(g *gate) {
	for range 2 * limitMost {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		req, _ := http.NewRequestWithContext(ctx, "GET", "http://"+g.host+"/limited/key", nil)
		begun := time.Now()
		res, err := c.http.RoundTrip(req)
		switch {
		case err != nil && !g.crashedSince(begun):
			c.l.wrong("%s: %v", c.kind, err)
		case err != nil:
			c.cut.Add(1)
		case res.StatusCode == http.StatusOK:
			c.whole.Add(1)
		case res.StatusCode == http.StatusTooManyRequests:
			c.refused.Add(1)
		default:
			c.l.wrong("%s: %s", c.kind, res.Status)
		}
		if err == nil {
			_ = res.Body.Close()
		}
		cancel()
	}
}

func (c *client) dial(g *gate, port string) (*net.TCPConn, bool) {
	nc, err := net.DialTimeout("tcp", net.JoinHostPort(g.host, port), patience)
	if err != nil {
		c.cut.Add(1)
		return nil, false
	}
	_ = nc.SetDeadline(time.Now().Add(patience))
	return nc.(*net.TCPConn), true
}

// line talks over a TCP connection: some messages, each of which comes back.
func (c *client) line(g *gate) {
	if nc, ok := c.dial(g, "9000"); ok {
		defer nc.Close()
		c.converse(g, nc, nc, c.rnd.IntN(2) == 0)
	}
}

// webSocket does the same over an upgraded connection.
func (c *client) webSocket(g *gate) {
	nc, ok := c.dial(g, "80")
	if !ok {
		return
	}
	defer nc.Close()
	token := fmt.Sprint("w", c.tokens.Add(1))
	fmt.Fprintf(nc, "GET /socket HTTP/1.1\r\nHost: soak.test\r\nX-Token: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c29hay1zb2FrLXNvYWs=\r\n\r\n", token)
	r := bufio.NewReader(nc)
	res, err := http.ReadResponse(r, nil)
	switch {
	case err != nil:
		c.cut.Add(1)
	case res.StatusCode != http.StatusSwitchingProtocols:
		c.refused.Add(1)
	case res.Header.Get("X-Token") != token:
		c.l.wrong("%s: upgrade %s got the reply to %q", c.kind, token, res.Header.Get("X-Token"))
	default:
		c.converse(g, r, nc, false)
	}
}

// converse sends messages and checks what comes back. The last one may end the client's
// side before the reply.
func (c *client) converse(g *gate, r io.Reader, nc *net.TCPConn, half bool) {
	begun := time.Now()
	for last := c.rnd.IntN(4); last >= 0; last-- {
		m := greeting{Token: c.tokens.Add(1), Size: uint32(size(c.rnd)), Half: half && last == 0}
		sent := make(chan error, 1)
		go func() {
			_, err := io.Copy(nc, m.message())
			if err == nil && m.Half {
				err = nc.CloseWrite()
			}
			sent <- err
		}()
		got, n, err := greeting{}, int64(0), error(nil)
		if err = got.read(r); err == nil && got == m {
			n, err = compare(m.name(), io.LimitReader(r, int64(m.Size)))
		}
		if err != nil {
			_ = nc.SetDeadline(time.Unix(1, 0)) // ends the sending
		}
		unsent := <-sent
		switch {
		case errors.Is(err, errMixed), err == nil && got != m:
			c.l.wrong("%s: %s got %v: %v", c.kind, m.name(), got, err)
		case errors.Is(err, os.ErrDeadlineExceeded):
			c.l.wrong("%s: %s is stuck after %d bytes of %d", c.kind, m.name(), n, m.Size)
		case err == nil && unsent == nil && n == int64(m.Size):
			continue
		case (err == nil || err == io.EOF) && unsent == nil && !c.l.crashedSince(begun):
			c.l.wrong("%s: %s ended well after %d bytes of %d", c.kind, m.name(), n, m.Size)
		}
		c.cut.Add(1)
		return
	}
	c.whole.Add(1)
}

// datagram sends some, and takes what comes back.
func (c *client) datagram(g *gate) {
	nc, err := net.Dial("udp", net.JoinHostPort(g.host, "9001"))
	if err != nil {
		c.cut.Add(1)
		return
	}
	defer nc.Close()
	b := make([]byte, 64<<10)
	for range 1 + c.rnd.IntN(5) {
		m := greeting{Token: c.tokens.Add(1), Size: uint32(c.rnd.IntN(1200))}
		text, _ := io.ReadAll(m.message())
		_ = nc.SetDeadline(time.Now().Add(time.Second))
		if _, err := nc.Write(text); err != nil {
			break
		}
		for { // a late one may come first
			n, err := nc.Read(b)
			if err != nil {
				c.cut.Add(1)
				return
			}
			if err := checkDatagram(b[:n]); err != nil {
				c.l.wrong("%s: %v", c.kind, err)
			}
			if bytes.Equal(b[:n], text) {
				break
			}
		}
	}
	c.whole.Add(1)
}

// slow reads a reply of some size a bit at a time.
func (c *client) slow(g *gate) {
	nc, ok := c.dial(g, "80")
	if !ok {
		return
	}
	defer nc.Close()
	_ = nc.SetReadBuffer(4 << 10)
	token, n := fmt.Sprint("s", c.tokens.Add(1)), 200_000
	fmt.Fprintf(nc, "GET /slow HTTP/1.1\r\nHost: soak.test\r\nX-Token: %s\r\nX-Body: 0\r\nX-Reply: %d\r\nConnection: close\r\n\r\n", token, n)
	res, err := http.ReadResponse(bufio.NewReaderSize(nc, 512), nil)
	if err != nil {
		c.cut.Add(1)
		return
	}
	if res.StatusCode != http.StatusOK {
		c.refused.Add(1)
		return
	}
	got, err := compare(token, slowly{res.Body})
	switch {
	case errors.Is(err, errMixed), err == nil && got != int64(n):
		c.l.wrong("%s: %d bytes of %d: %v", c.kind, got, n, err)
	case err != nil:
		c.cut.Add(1)
	default:
		c.whole.Add(1)
	}
}

type slowly struct{ io.Reader }

func (s slowly) Read(b []byte) (int, error) {
	time.Sleep(20 * time.Millisecond)
	return s.Reader.Read(b)
}

// quit leaves in the middle of an exchange, or of a handshake.
func (c *client) quit(g *gate) {
	port := []string{"80", "443", "9000"}[c.rnd.IntN(3)]
	nc, ok := c.dial(g, port)
	if !ok {
		return
	}
	defer nc.Close()
	token := fmt.Sprint("q", c.tokens.Add(1))
	message := io.MultiReader(strings.NewReader("POST /quit HTTP/1.1\r\nHost: soak.test\r\nX-Token: "+token+"\r\nX-Body: 30000\r\nX-Reply: 30000\r\nContent-Length: 30000\r\n\r\n"), body(token, 30_000))
	if port == "9000" {
		message = greeting{Token: c.tokens.Add(1), Size: 30_000, Quits: true}.message()
	}
	text, _ := io.ReadAll(message)
	_, _ = nc.Write(text[:c.rnd.IntN(len(text)+1)])
	switch c.rnd.IntN(3) {
	case 0:
		_ = nc.SetLinger(0)
	case 1:
		_ = nc.SetDeadline(time.Now().Add(100 * time.Millisecond))
		_, _ = nc.Read(make([]byte, 1))
	}
	c.cut.Add(1)
}

// look reads the admin page's JSON, or its live parts for a moment.
func (c *client) look(g *gate) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	begun := time.Now()
	err := g.fetch(ctx, c.http, "/state", new(state))
	if err == nil && c.rnd.IntN(4) == 0 {
		short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		defer cancel()
		_ = g.fetch(short, c.http, "/events", nil)
	}
	switch {
	case err == nil:
		c.whole.Add(1)
	case g.crashedSince(begun) || g.restartedSince(begun):
		c.cut.Add(1)
	default:
		c.l.wrong("the admin page of gateway %s: %v", g.name, err)
	}
}
