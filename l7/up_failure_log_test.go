// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

type lockedLog struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// failures returns the lines about failed requests so far, and forgets them.
func (l *lockedLog) failures() (lines []string) {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.b.String()) {
		if strings.Contains(line, "request failed") {
			lines = append(lines, line)
		}
	}
	l.b.Reset()
	return lines
}

// Where no OnDone is told, each failure of a server or of the gateway has a
// line that names server, phase and cause; what the client did has none.
func TestFailuresAreLoggedWithoutOnDone(t *testing.T) {
	for _, c := range carriers {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := l4test.NewNetwork()
				serveHTTP(t, n, "10.0.0.1:80", func(w http.ResponseWriter, r *http.Request) {
					switch r.URL.Path {
					case "/slow":
						time.Sleep(3 * time.Second)
					case "/cut":
						w.Header().Set("Content-Length", "10")
						io.WriteString(w, "x")
						_ = http.NewResponseController(w).Flush()
						panic(http.ErrAbortHandler)
					case "/500":
						w.WriteHeader(500)
					}
				})
				log := new(lockedLog)
				was := slog.Default()
				slog.SetDefault(slog.New(slog.NewTextHandler(log, nil)))
				defer slog.SetDefault(was)
				good, gone, empty := newProxy(n, "10.0.0.1:80"), newProxy(n, "10.0.0.9:80"), newProxy(n)
				good.HeaderTimeout = time.Second
				empty.Pool = &balance.Pool{Name: "nobody"}
				h := http.Handler(l7.HandlerFunc(func(x *l7.Exchange) {
					switch x.Path {
					case "/gone":
						l7.Serve(gone, x)
					case "/refused":
						x.OnReply(l7.ReplyFunc(func(_ *l7.Exchange, r *l7.Reply) { r.Refuse(errors.New("a secret")) }))
						l7.Serve(good, x)
					case "/empty":
						l7.Serve(empty, x)
					default:
						l7.Serve(good, x)
					}
				}))
				if c.foreign {
					native := h
					h = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { native.ServeHTTP(w, r) })
				}
				srv := &l7.Server{Handler: h}
				c.runServer(t, n, srv, func(client *http.Client) {
					for _, tc := range []struct {
						path string
						want []string // parts of the only line; nil: none
					}{
						{"/", nil},
						{"/500", nil}, // the server's own word
						{"/gone", []string{"level=WARN", "server=10.0.0.9:80", "phase=connect", `cause="server aborted"`, "status=502", "path=/gone", "refused"}},
						{"/empty", []string{`server=""`, "status=503", "pool=nobody", "no usable server"}},
						{"/slow", []string{"server=10.0.0.1:80", "phase=headers", `cause="server timeout"`, "status=504"}},
						{"/refused", []string{"level=WARN", "server=10.0.0.1:80", "phase=headers", "cause=denied", "status=502", "a secret"}},
						{"/cut", []string{"server=10.0.0.1:80", "phase=data", `cause="server aborted"`, "status=200"}},
					} {
						if res, err := client.Get("http://a.test" + tc.path); err == nil {
							_, _ = io.Copy(io.Discard, res.Body)
							res.Body.Close()
						}
						lines := log.failures()
						if len(lines) != min(len(tc.want), 1) {
							t.Errorf("%s: %d lines: %q", tc.path, len(lines), lines)
							continue
						}
						for _, part := range tc.want {
							if !strings.Contains(lines[0], part) {
								t.Errorf("%s: %q is not in %s", tc.path, part, lines[0])
							}
						}
					}
				})
				time.Sleep(3 * time.Second) // the slow one
				for _, p := range []*l7.Proxy{good, gone, empty} {
					p.Upstream.CloseIdle()
				}
			})
		})
	}
}

// However many requests fail, there are ten lines a second, and none is lost
// from the count.
func TestFailureLogIsBounded(t *testing.T) {
	log := new(lockedLog)
	site := func(n *l4test.Network) http.Handler {
		p := newProxy(n, "10.0.0.9:80")
		p.Logger = slog.New(slog.NewTextHandler(log, nil))
		return p
	}
	synctest.Test(t, func(t *testing.T) {
		standardFront(t, site, func(t *testing.T, f *front) {
			for range 35 {
				f.get(t, "/")
			}
			if n := len(log.failures()); n != 10 {
				t.Errorf("%d lines in a second; want 10", n)
			}
			time.Sleep(time.Second)
			f.get(t, "/")
			lines := log.failures()
			if len(lines) != 1 || !strings.Contains(lines[0], "left_out=25") {
				t.Errorf("then %q; want one that tells of 25", lines)
			}
			time.Sleep(time.Second)
			f.get(t, "/")
			if lines = log.failures(); len(lines) != 1 || strings.Contains(lines[0], "left_out") {
				t.Errorf("then %q", lines)
			}
		})
	})
}

// An OnDone is told instead.
func TestFailuresAreNotLoggedBesideOnDone(t *testing.T) {
	log := new(lockedLog)
	for _, c := range carriers {
		if c.host {
			continue
		}
		synctest.Test(t, func(t *testing.T) {
			n := l4test.NewNetwork()
			p := newProxy(n, "10.0.0.9:80")
			var told sync.WaitGroup
			told.Add(1)
			c.runServer(t, n, &l7.Server{Handler: p, OnDone: func(*l7.Record) { told.Done() }, Logger: slog.New(slog.NewTextHandler(log, nil))}, func(client *http.Client) {
				fetchSite(t, client, "/")
			})
			told.Wait()
			if lines := log.failures(); len(lines) != 0 {
				t.Errorf("%s: %q", c.name, lines)
			}
		})
	}
}
