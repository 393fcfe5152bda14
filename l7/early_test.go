// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/l7test"
)

// A reply that comes before the client has sent its body says that the connection ends
// if, and only if, it does (RFC 9112, section 9.6).
func TestEarlyReplySaysThatTheConnectionEnds(t *testing.T) {
	early := func(steps ...l7test.Step) l7test.Script {
		return append(l7test.Script{l7test.Early()}, steps...)
	}
	const chunkedReply = "HTTP/1.1 413 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n"
	const headOfReply = "HTTP/1.1 413 No\r\nContent-Length: 2\r\n"
	editing := func(edit func(r *l7.Reply)) func(next http.Handler) http.Handler {
		return func(next http.Handler) http.Handler {
			return l7.HandlerFunc(func(x *l7.Exchange) {
				x.OnReply(l7.ReplyFunc(func(_ *l7.Exchange, r *l7.Reply) { edit(r) }))
				l7.Serve(next, x)
			})
		}
	}
	for name, c := range map[string]struct {
		script l7test.Script
		around func(next http.Handler) http.Handler
		server string // the protocol that the server speaks
		stays  bool
		either bool // it stays if the rest of the body is short
	}{
		"whole reply":         {script: early(l7test.Reply(413, "no"), l7test.ReadBody())},
		"no body":             {script: early(l7test.Reply(204, ""), l7test.ReadBody())},
		"chunked reply":       {script: early(l7test.Send(chunkedReply), l7test.ReadBody())},
		"server says close":   {script: early(l7test.Send(headOfReply+"Connection: close\r\n\r\n"), l7test.Wait(time.Second), l7test.Send("no"), l7test.Close())},
		"reply until the end": {script: early(l7test.Send("HTTP/1.1 413 No\r\n\r\n"), l7test.Wait(time.Second), l7test.Send("no"), l7test.CloseWrite())},
		"server closes":       {script: early(l7test.Reply(413, "no"), l7test.Close()), either: true},
		"body before the end": {script: early(l7test.Send(headOfReply+"\r\nn"), l7test.ReadBody(), l7test.Send("o")), stays: true},
		"reply filtered":      {script: early(l7test.Reply(413, "NO"), l7test.ReadBody()), around: editing(func(r *l7.Reply) { r.FilterBody(func(b io.Reader) io.Reader { return b }) })},
		"reply refused":       {script: early(l7test.Reply(413, "no"), l7test.ReadBody()), around: editing(func(r *l7.Reply) { r.Refuse(errors.New("no")) })},
		"reply of an http.Handler around": {script: early(l7test.Reply(413, "no"), l7test.ReadBody()), around: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(w, r) })
		}},
		"reply held back":         {script: early(l7test.Send(headOfReply+"\r\nn"), l7test.Wait(time.Second), l7test.Send("o"), l7test.ReadBody()), around: func(next http.Handler) http.Handler { return &l7.BufferReply{Next: next} }},
		"HTTP/2, without a body":  {script: early(l7test.Reply(204, "")), server: "h2c", either: true},
		"HTTP/2, reply held back": {script: early(l7test.Reply(413, "no")), server: "h2c", either: true, around: func(next http.Handler) http.Handler { return &l7.BufferReply{Next: next} }},
	} {
		for framing, request := range map[string][2]string{
			"length":      {"Content-Length: 200\r\n\r\nsome", strings.Repeat("x", 196)},
			"chunked":     {"Transfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n", "1\r\nx\r\n0\r\n\r\n"},
			"long length": {"Content-Length: 200000\r\n\r\nsome", strings.Repeat("x", 199996)},
		} {
			t.Run(name+"/"+framing, func(t *testing.T) {
				fronts(t, func(n *l4test.Network) http.Handler {
					p := newProxy(n, one)
					if c.server != "" {
						p.Upstream.Protocols = protocols(c.server)
					}
					if c.around != nil {
						return c.around(p)
					}
					return p
				}, func(t *testing.T, f *front) {
					if f.name == "http2" {
						return // it has no Connection
					}
					origin(t, f.network, one, c.script)
					raw := f.dial(t).send("POST / HTTP/1.1\r\nHost: a\r\n" + request[0])
					if c.stays {
						synctest.Wait()
						raw.send(request[1])
					}
					res, _, err := raw.reply("POST")
					if err != nil {
						t.Fatal(err)
					}
					synctest.Wait()
					if !c.stays {
						raw.Conn.Write([]byte(request[1]))
					}
					raw.Conn.Write([]byte(getA))
					rest := raw.rest()
					ended := rest == "" || rest == "<reset>" // by net/http, if there is more behind the body
					if f.name == "standard" && c.stays {
						return // net/http's connection ends after any early reply
					}
					if res.Close != ended || ended == c.stays && !c.either {
						t.Errorf("%d: says close: %v, the connection ends: %v (%q)", res.StatusCode, res.Close, ended, rest)
					}
				})
			})
		}
	}
}
