// SPDX-License-Identifier: Apache-2.0

package chaostest

import (
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"strconv"
	"time"
)

// A pattern is the body that belongs to a token: each byte says whose it is, and which.
type pattern struct {
	seed uint32
	at   int64
	n    int64
}

func body(token string, n int64) *pattern {
	h := fnv.New32a()
	_, _ = io.WriteString(h, token)
	return &pattern{seed: h.Sum32(), n: n}
}

func (p *pattern) byteAt(i int64) byte {
	x := p.seed ^ uint32(i)*2654435761
	return byte(x ^ x>>11 ^ x>>23)
}

func (p *pattern) Read(b []byte) (int, error) {
	if p.at == p.n {
		return 0, io.EOF
	}
	n := 0
	for n < len(b) && p.at < p.n {
		b[n] = p.byteAt(p.at)
		n, p.at = n+1, p.at+1
	}
	return n, nil
}

// compare reads r to its end and reports how much there was, and whether it is what
// belongs to the token.
func compare(token string, r io.Reader) (n int64, same bool, err error) {
	p := body(token, 0)
	buf := make([]byte, 16<<10)
	for {
		m, err := r.Read(buf)
		for i := range m {
			if buf[i] != p.byteAt(n+int64(i)) {
				return n, false, nil
			}
		}
		if n += int64(m); err == io.EOF {
			return n, true, nil
		} else if err != nil {
			return n, true, err
		}
	}
}

// ask sends a request and checks what comes.
func (w *World) ask(client int, token string, a ask) {
	begun := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 2*w.plan.Patience)
	defer cancel()
	if a.leave > 0 {
		ctx, cancel = context.WithTimeout(ctx, a.leave)
		defer cancel()
	}
	var b io.Reader
	if a.body > 0 {
		b = body(token, a.body)
	}
	req, err := http.NewRequestWithContext(ctx, a.method, "http://"+front+"/"+token, b)
	if err != nil {
		w.wrong("%v", err)
		return
	}
	if b != nil && !a.chunked {
		req.ContentLength = a.body
	}
	h := req.Header
	h.Set("X-Token", token)
	h.Set("X-Body", strconv.FormatInt(a.body, 10))
	h.Set("X-Reply", strconv.FormatInt(a.reply, 10))
	h.Set("X-Think", a.think.String())
	if a.open {
		h.Set("X-Open", "yes")
	}
	answered, got := w.check(client, token, a, req)
	if took := time.Since(begun); took > w.plan.Patience {
		w.wrong("request %s took %v", token, took.Round(time.Millisecond))
	}
	if w.plan.NoLoss && !answered && a.leave == 0 && a.body == 0 && a.method != http.MethodPost {
		for _, s := range w.servers {
			if s.wellSince(begun) {
				w.wrong("request %s was not answered by a server, but by %s, and %s has been well", token, got, s.name)
				return
			}
		}
	}
}

// check does the round trip, and reports whether a server has answered, or what has.
func (w *World) check(client int, token string, a ask, req *http.Request) (answered bool, got string) {
	res, err := w.clients[client].RoundTrip(req)
	if err != nil {
		return false, fmt.Sprintf("an error: %v", err) // it was cut, and the client knows
	}
	defer res.Body.Close()
	from := res.Header.Get("X-Token")
	if from == "" { // the gateway's own
		page, _ := io.ReadAll(res.Body)
		if res.StatusCode < 400 {
			w.wrong("request %s got status %d without a server", token, res.StatusCode)
		}
		return false, fmt.Sprintf("%s: %.80q", res.Status, page)
	}
	if from != token {
		w.wrong("request %s got the reply to request %s", token, from)
		return true, ""
	}
	n, same, err := compare(token, res.Body)
	switch {
	case !same:
		w.wrong("request %s got bytes of another reply, from %d on", token, n)
	case err == nil && a.method != http.MethodHead && n != a.reply:
		w.wrong("request %s got %d bytes as the whole reply, of which there are %d", token, n, a.reply)
	}
	return true, ""
}
