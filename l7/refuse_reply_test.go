// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
)

var errSecret = errors.New("there is a secret in it")

// refusing has the editors of several layers see a reply: the middle one refuses
// what has the field X-Secret.
func refusing(rec *Record, seen *[]int, next http.Handler) http.Handler {
	note := func(next http.Handler) http.Handler {
		return HandlerFunc(func(x *Exchange) {
			x.OnReply(ReplyFunc(func(x *Exchange, r *Reply) {
				*seen = append(*seen, r.Status)
				r.Header.Set("X-Edited", "yes")
			}))
			Serve(next, x)
		})
	}
	pages := &ErrorPages{
		Next: note(HandlerFunc(func(x *Exchange) {
			x.OnReply(ReplyFunc(func(_ *Exchange, r *Reply) {
				if r.Header.Has("X-Secret") {
					r.Refuse(errSecret)
				}
			}))
			Serve(note(next), x)
		})),
		Make: func(x *Exchange, status int, err error) *FixedReply {
			if errors.Is(err, errSecret) {
				return &FixedReply{Header: MakeFields("X-Page", "own"), Body: "refused"}
			}
			return nil
		},
	}
	return HandlerFunc(func(x *Exchange) {
		*seen = nil
		Serve(pages, x)
		*rec = x.Record
	})
}

// A reply that an editor refuses becomes the 502 of the error page, for the editors
// outside too; nothing of it reaches the client, and the connection goes on.
func TestEditorsMayRefuseAReply(t *testing.T) {
	secret := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/good" {
			w.Header().Set("X-Secret", "1")
		}
		w.Header().Set("Content-Type", "text/x")
		_, _ = io.WriteString(w, strings.Repeat("secret", 1000))
		_ = http.NewResponseController(w).Flush()
		_, _ = io.WriteString(w, "secret")
	}
	leaves := map[string]func(s *site) http.Handler{
		"proxy":   func(s *site) http.Handler { s.origin("10.0.1.1:80", secret); return s.proxy("10.0.1.1:80") },
		"foreign": func(*site) http.Handler { return http.HandlerFunc(secret) },
		"in process": func(s *site) http.Handler {
			pool := new(balance.Pool)
			require.NoError(s, pool.Set(balance.Endpoint{Name: "here", Addr: "here:1", Value: http.HandlerFunc(secret)}))
			return s.proxyTo(pool)
		},
		"local": func(*site) http.Handler {
			return HandlerFunc(func(x *Exchange) {
				h := MakeFields("Content-Type", "text/x")
				if x.Path != "/good" {
					h.Set("X-Secret", "1")
				}
				x.Respond(200, &h, "secret")
			})
		},
		"sandwich": func(s *site) http.Handler {
			s.origin("10.0.1.1:80", secret)
			return foreigners["plain"](s.proxy("10.0.1.1:80"))
		},
		"wrap": func(s *site) http.Handler {
			s.origin("10.0.1.1:80", secret)
			return &Wrap{With: foreigners["plain"], Next: s.proxy("10.0.1.1:80")}
		},
		"wrapped writer": func(s *site) http.Handler {
			s.origin("10.0.1.1:80", secret)
			return &Wrap{With: foreigners["wrapped writer"], Next: s.proxy("10.0.1.1:80")}
		},
	}
	for name, leaf := range leaves {
		t.Run(name, func(t *testing.T) {
			var rec Record
			var seen []int
			onBoth(t, func(s *site) http.Handler { return refusing(&rec, &seen, leaf(s)) }, func(s *site) {
				for range 2 {
					a := s.get("/good")
					require.Equal(s, 200, a.StatusCode)
					require.Contains(s, a.body, "secret")
					synctest.Wait()
					a = s.get("/bad")
					require.Equal(s, 502, a.StatusCode)
					require.Equal(s, "refused", a.body)
					require.Equal(s, "own", a.Header.Get("X-Page"))
					require.Equal(s, "yes", a.Header.Get("X-Edited"))
					require.Empty(s, a.Header.Get("X-Secret"))
					require.NotEqual(s, "text/x", a.Header.Get("Content-Type"))
					synctest.Wait()
					require.Equal(s, []int{200, 502}, seen, "inside, then outside")
					require.ErrorIs(s, rec.Err, errSecret)
					require.Equal(s, 502, rec.Status)
					require.Equal(s, endOf(l4.Denied, l4.PhaseHeaders), rec.Termination)
					require.Equal(s, 502, s.get("/bad", "Method", "HEAD").StatusCode)
					synctest.Wait()
				}
			})
		})
	}
}

// A refusal is no failure of the server: the pool hears what the server sent, and a
// breaker nothing.
func TestRefusedRepliesAreNotTheServersFault(t *testing.T) {
	var heard []balance.Outcome
	var failed, counts bool
	onBoth(t, func(s *site) http.Handler {
		s.origin("10.0.1.1:80", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(203) })
		pool := &balance.Pool{OnOutcome: []func(*balance.Server, balance.Outcome){
			func(_ *balance.Server, o balance.Outcome) { heard = append(heard, o) },
		}}
		require.NoError(s, pool.Set(balance.Endpoint{Addr: "10.0.1.1:80"}))
		p := s.proxyTo(pool)
		return HandlerFunc(func(x *Exchange) {
			x.OnReply(ReplyFunc(func(_ *Exchange, r *Reply) { r.Refuse(errSecret) }))
			Serve(p, x)
			failed, counts = failedByServer(x)
		})
	}, func(s *site) {
		heard, failed, counts = nil, true, true
		require.Equal(s, 502, s.get("/").StatusCode)
		synctest.Wait()
		require.Len(s, heard, 1)
		require.Equal(s, balance.OK, heard[0].Class)
		require.Equal(s, 203, heard[0].Status)
		require.False(s, failed)
		require.False(s, counts)
	})
}

// A refusal is warned of if the client is told of a failure, and not if it gets another
// status by the gateway's own rule, as by a Deny.
func TestRefusalsAreWarnedOfByTheirStatus(t *testing.T) {
	for status, warns := range map[int]bool{0: true, 404: false, 403: false, 499: false, 200: false, 500: true, 503: true} {
		for _, observed := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, false)
				s.origin("10.0.1.1:80", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) })
				var log bytes.Buffer
				p, srv := s.proxy("10.0.1.1:80"), new(Server)
				p.Logger = slog.New(slog.NewTextHandler(&log, nil))
				if observed {
					srv.OnDone = LogTo(p.Logger)
				}
				srv.Handler = &ErrorPages{
					Make: func(*Exchange, int, error) *FixedReply { return &FixedReply{Status: status, Body: "page"} },
					Next: HandlerFunc(func(x *Exchange) {
						x.OnReply(ReplyFunc(func(_ *Exchange, r *Reply) {
							if !r.Local {
								r.Refuse(errSecret)
							}
						}))
						Serve(p, x)
					}),
				}
				s.serve(srv)
				a := s.get("/")
				require.Equal(t, cmp.Or(status, 502), a.StatusCode)
				require.Equal(t, "page", a.body)
				synctest.Wait()
				require.Equal(t, warns, strings.Contains(log.String(), "level=WARN"), "%d: %s", status, log.String())
				require.Equal(t, observed && !warns, strings.Contains(log.String(), "level=INFO"), "%d: %s", status, log.String())
			})
		}
	}
}

// An upgrade can be refused, too.
func TestEditorsMayRefuseAnUpgrade(t *testing.T) {
	for _, front := range []string{"native", "sandwich"} {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t, false)
			s.origin("10.0.1.1:80", func(w http.ResponseWriter, r *http.Request) {
				c, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					return
				}
				_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Secret: 1\r\n\r\n")
				_, _ = io.Copy(io.Discard, c)
				_ = c.Close()
			})
			var rec Record
			var seen []int
			var next http.Handler = s.proxy("10.0.1.1:80")
			if front == "sandwich" {
				next = foreigners["plain"](next)
			}
			s.serve(&Server{Handler: refusing(&rec, &seen, next)})
			a := s.get("/", "Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Key", "x3JJHMbDL1EzLkh9GBhXDw==", "Sec-WebSocket-Version", "13")
			require.Equal(t, 502, a.StatusCode)
			require.Equal(t, "refused", a.body)
			synctest.Wait()
			require.Equal(t, endOf(l4.Denied, l4.PhaseHeaders), rec.Termination)
		})
	}
}

// The error page is made with the cause at hand, and may give the reply another
// status.
func TestErrorPagesAreMadeOfTheCause(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		p := s.proxy("10.0.1.9:80") // nobody is there
		return &ErrorPages{
			Pages: map[int]FixedReply{404: {Header: MakeFields("X-Page", "static"), Body: "static"}},
			Make: func(x *Exchange, status int, err error) *FixedReply {
				switch {
				case status == 404:
					return nil
				case errors.Is(err, context.Canceled):
					return &FixedReply{Status: 499}
				case err != nil && x.Record.Termination.Phase == l4.PhaseConnect:
					return &FixedReply{Status: 521, Header: MakeFields("X-Page", "made"), Body: "no connection"}
				}
				return &FixedReply{Header: MakeFields("X-Page", "made"), Body: "status only"}
			},
			Next: NewRouter(
				Route{Match: Path("/down"), Handler: p},
				Route{Match: Path("/denied"), Handler: &Deny{}},
				Route{Match: Path("/none"), Handler: &Deny{Status: 404}},
			),
		}
	}, func(s *site) {
		for path, want := range map[string]struct {
			status     int
			page, body string
		}{"/down": {521, "made", "no connection"}, "/denied": {403, "made", "status only"}, "/none": {404, "static", "static"}} {
			a := s.get(path)
			require.Equal(s, want.status, a.StatusCode)
			require.Equal(s, want.page, a.Header.Get("X-Page"))
			require.Equal(s, want.body, a.body)
		}
	})
}
