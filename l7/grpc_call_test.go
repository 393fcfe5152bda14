// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// callers runs do with clients of HTTP/2, on the front of [l7.Server] and on a
// plain http.Server, before servers of HTTP/2.
func callers(t *testing.T, set func(p *l7.Proxy), do func(t *testing.T, f *front)) {
	story := func(t *testing.T, f *front) {
		f.client.Transport.(*http.Transport).Protocols = protocols("h2c")
		do(t, f)
	}
	t.Run("http2", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { byteFront(t, proxyH2(set), new(l7.Server), story) })
	})
	t.Run("standard", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := newFront("standard")
			h := proxyH2(set)(f.network)
			srv := &http.Server{Protocols: protocols("h2c"), Handler: l7.HandlerFunc(func(x *l7.Exchange) {
				defer func() { f.record(&x.Record) }()
				l7.Serve(h, x)
			})}
			f.run(t, srv.Serve, srv.Close, story)
		})
	})
}

// An answered call is what the client of gRPC sees.
type answered struct {
	status        int
	kind, body    string
	code, message string // of the head, or of the trailer
	inHead        bool
	err           error
}

func (f *front) call(t *testing.T, body io.Reader, fields ...string) answered {
	t.Helper()
	req, _ := http.NewRequestWithContext(t.Context(), "POST", "http://a.test/pkg.Service/Method", body)
	req.Header.Set("Content-Type", "application/grpc+proto")
	req.Header.Set("TE", "trailers")
	for i := 0; i < len(fields); i += 2 {
		req.Header.Set(fields[i], fields[i+1])
	}
	res, err := f.client.Do(req)
	if err != nil {
		return answered{err: err}
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	a := answered{status: res.StatusCode, kind: res.Header.Get("Content-Type"), body: string(b), err: err}
	from := res.Trailer
	if a.inHead = res.Header.Get("Grpc-Status") != ""; a.inHead {
		from = res.Header
	}
	a.code, a.message = from.Get("Grpc-Status"), from.Get("Grpc-Message")
	return a
}

// grpcReply answers with a message and a status behind it.
func grpcReply(code string, messages ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/grpc+proto")
		for _, m := range messages {
			io.WriteString(w, m)
		}
		if len(messages) > 0 {
			w.(http.Flusher).Flush()
		}
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", code)
	}
}

// What the gateway answers itself is a status of gRPC and nothing else.
func TestGRPCGetsLocalErrorsAsItsStatus(t *testing.T) {
	page := func(*l7.Exchange, int) (*l7.Fields, string) { return nil, "<html>" }
	callers(t, func(p *l7.Proxy) { p.Upstream.Protocols = protocols("h2c") }, func(t *testing.T, f *front) {
		if a := f.call(t, strings.NewReader("hi")); a.status != 200 || a.kind != "application/grpc" || a.code != "14" || a.message != "502 Bad Gateway" || a.body != "" || !a.inHead {
			t.Errorf("no server there: %+v", a)
		}
		if r := f.last(t); r.Termination.String() != "SC" || r.Status != 200 || r.GRPCStatus != "14" {
			t.Errorf("the record says %v, %d, %q", r.Termination, r.Status, r.GRPCStatus)
		}
	})
	for status, want := range map[int]string{401: "16", 403: "7", 404: "12", 429: "14", 413: "2"} {
		synctest.Test(t, func(t *testing.T) {
			h := l7.HandlerFunc(func(x *l7.Exchange) {
				x.ErrorPage = page
				l7.Serve(&l7.Deny{Status: status}, x)
			})
			byteFront(t, fixed(h), new(l7.Server), func(t *testing.T, f *front) {
				f.client.Transport.(*http.Transport).Protocols = protocols("h2c")
				if a := f.call(t, strings.NewReader("hi")); a.status != 200 || a.code != want || a.body != "" {
					t.Errorf("%d: %+v; want grpc-status %s", status, a, want)
				}
				if code, body := f.get(t, "/"); code != status || body != "<html>" {
					t.Errorf("what is no gRPC got %d %q", code, body)
				}
			})
		})
	}
}

// The status of a call is in the record whatever answers: also a handler of net/http, such as
// a server of grpc-go in this process.
func TestGRPCStatusOfForeignHandlers(t *testing.T) {
	for _, messages := range [][]string{nil, {"first"}} {
		for _, declared := range []bool{false, true} {
			h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !declared {
					grpcReply("14", messages...)(w, r)
					return
				}
				w.Header().Set("Content-Type", "application/grpc")
				if w.Header().Set("Trailer", "Grpc-Status"); messages != nil {
					io.WriteString(w, messages[0])
				}
				w.Header().Set("Grpc-Status", "14")
			})
			do := func(t *testing.T, f *front) {
				f.client.Transport.(*http.Transport).Protocols = protocols("h2c")
				if a := f.call(t, strings.NewReader("hi")); a.code != "14" {
					t.Errorf("%+v", a)
				}
				if r := f.last(t); r.GRPCStatus != "14" {
					t.Errorf("messages %v, declared %v: the record says %q", messages, declared, r.GRPCStatus)
				}
			}
			synctest.Test(t, func(t *testing.T) { byteFront(t, fixed(h), new(l7.Server), do) })
			synctest.Test(t, func(t *testing.T) {
				f := newFront("standard")
				srv := &http.Server{Protocols: protocols("h2c"), Handler: l7.HandlerFunc(func(x *l7.Exchange) {
					defer func() { f.record(&x.Record) }()
					l7.Serve(h, x)
				})}
				f.run(t, srv.Serve, srv.Close, do)
			})
		}
	}
}

// The client's deadline is that of the request.
func TestGRPCTimeoutEndsTheRequest(t *testing.T) {
	for _, tc := range []struct {
		asked string
		bound time.Duration
		want  time.Duration
		field string
	}{
		{"2S", 0, 2 * time.Second, "grpc-timeout"},
		{"2S", time.Second, time.Second, "Proxy.Timeout"},
		{"2S", time.Minute, 2 * time.Second, "grpc-timeout"},
		{"50S", 0, 50 * time.Second, "grpc-timeout"}, // beyond the default of HeaderTimeout
	} {
		callers(t, func(p *l7.Proxy) { p.Timeout = tc.bound }, func(t *testing.T, f *front) {
			startOrigin(t, f.network, one, nil, true, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
			start := time.Now()
			a := f.call(t, strings.NewReader("hi"), "Grpc-Timeout", tc.asked)
			if a.code != "4" || !a.inHead || time.Since(start) != tc.want {
				t.Errorf("%s within %v: %+v after %v; want DEADLINE_EXCEEDED after %v", tc.asked, tc.bound, a, time.Since(start), tc.want)
			}
			if r := f.last(t); r.Termination.String() != "sH" {
				t.Errorf("the record says %v", r.Termination)
			} else if e, _ := errors.AsType[*l7.TimeoutError](r.Err); e == nil || e.Field != tc.field || e.Limit != tc.want {
				t.Errorf("%s within %v: %v; want %s of %v", tc.asked, tc.bound, r.Err, tc.field, tc.want)
			} else {
				var log bytes.Buffer
				l7.LogTo(slog.New(slog.NewTextHandler(&log, nil)))(&r)
				if warns := strings.Contains(log.String(), "level=WARN"); warns != (tc.field != "grpc-timeout") {
					t.Errorf("%s of %v: %s", tc.field, tc.want, log.String())
				}
			}
		})
	}
}

// A slowEditor holds up the head of each reply, as a busy machine might.
type slowEditor time.Duration

func (e slowEditor) EditReply(*l7.Exchange, *l7.Reply)   { time.Sleep(time.Duration(e)) }
func (e slowEditor) EditInterim(*l7.Exchange, *l7.Reply) { time.Sleep(time.Duration(e)) }

// A server that keeps the client's deadline too resets the stream then. Its reset may be read
// before the deadline is noticed: the call was late all the same.
func TestGRPCResetsBehindTheDeadlineAreLate(t *testing.T) {
	for _, tc := range []struct {
		name      string
		status    int // of what the server sends before
		timeout   string
		code, end string
	}{
		{"before the reply", 103, "2S", "4", "sH"},
		{"in the reply", 200, "2S", "4", "sD"},
		{"before the reply, early", 103, "1M", "14", "SH"},
		{"in the reply, early", 200, "1M", "14", "SD"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			site := func(n *l4test.Network) http.Handler {
				p := proxyH2(nil)(n)
				return l7.HandlerFunc(func(x *l7.Exchange) {
					x.OnReply(slowEditor(3 * time.Second))
					l7.Serve(p, x)
				})
			}
			synctest.Test(t, func(t *testing.T) {
				byteFront(t, site, new(l7.Server), func(t *testing.T, f *front) {
					f.client.Transport.(*http.Transport).Protocols = protocols("h2c")
					startOrigin(t, f.network, one, nil, true, func(w http.ResponseWriter, r *http.Request) {
						io.Copy(io.Discard, r.Body)
						w.Header().Set("Content-Type", "application/grpc")
						w.WriteHeader(tc.status)
						if tc.status == 200 {
							http.NewResponseController(w).Flush()
						}
						time.Sleep(2 * time.Second)
						panic(http.ErrAbortHandler)
					})
					if a := f.call(t, strings.NewReader("hi"), "Grpc-Timeout", tc.timeout); a.code != tc.code || a.err != nil {
						t.Errorf("%+v; want grpc-status %s", a, tc.code)
					}
					r := f.last(t)
					if e, _ := errors.AsType[*l7.TimeoutError](r.Err); r.Termination.String() != tc.end || r.GRPCStatus != tc.code || (e != nil && e.Field == "grpc-timeout") != (tc.code == "4") {
						t.Errorf("the record says %v, %q, %v", r.Termination, r.GRPCStatus, r.Err)
					}
				})
			})
		})
	}
}

// A reply that is cut on the server's side ends with a status.
func TestGRPCCutRepliesEndWithAStatus(t *testing.T) {
	for _, tc := range []struct {
		name, timeout, code string
		then                func(r *http.Request)
	}{
		{"time over", "2S", "4", func(r *http.Request) { <-r.Context().Done() }},
		{"reset by the server", "1M", "14", func(*http.Request) { panic(http.ErrAbortHandler) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			callers(t, nil, func(t *testing.T, f *front) {
				startOrigin(t, f.network, one, nil, true, func(w http.ResponseWriter, r *http.Request) {
					grpcReply("0", "first")(w, r)
					tc.then(r)
				})
				a := f.call(t, strings.NewReader("hi"), "Grpc-Timeout", tc.timeout)
				if a.body != "first" || a.code != tc.code || a.inHead || a.err != nil {
					t.Errorf("%+v; want grpc-status %s behind the message", a, tc.code)
				}
				if r := f.last(t); r.GRPCStatus != tc.code {
					t.Errorf("the record says grpc-status %q; want %s", r.GRPCStatus, tc.code)
				}
			})
		})
	}
}

// Streams of gRPC may pause for as long as a tunnel, unless a limit was set.
func TestGRPCStreamsMayPause(t *testing.T) {
	for _, limit := range []time.Duration{0, 10 * time.Second} {
		callers(t, func(p *l7.Proxy) { p.BodyTimeout, p.HeaderTimeout = limit, limit }, func(t *testing.T, f *front) {
			startOrigin(t, f.network, one, nil, true, func(w http.ResponseWriter, r *http.Request) {
				time.Sleep(10 * time.Minute)
				grpcReply("0", "late")(w, r)
				time.Sleep(10 * time.Minute)
				io.WriteString(w, " and later")
			})
			body, write := io.Pipe()
			go func() {
				time.Sleep(15 * time.Minute)
				write.Close()
			}()
			a := f.call(t, body)
			write.CloseWithError(errors.New("over"))
			if limit == 0 && (a.body != "late and later" || a.code != "0" || a.err != nil) {
				t.Errorf("%+v", a)
			}
			if limit > 0 && (a.code == "0" || a.code == "") {
				t.Errorf("with a limit: %+v", a)
			}
			time.Sleep(time.Hour)
		})
	}
}

// A status that speaks against the server reaches the pool, with and without
// messages before it, and can be retried for where it came alone.
func TestGRPCStatusReachesThePool(t *testing.T) {
	for _, alone := range []bool{false, true} {
		var seen []balance.Outcome
		set := func(p *l7.Proxy) {
			seen = nil
			p.Pool = &balance.Pool{
				OnOutcome: []func(*balance.Server, balance.Outcome){func(_ *balance.Server, o balance.Outcome) { seen = append(seen, o) }},
				Budget:    balance.Budget{Share: 1},
			}
			if err := p.Pool.Set(balance.Endpoint{Addr: one}); err != nil {
				t.Error(err)
			}
			p.Retry = l7.Retry{Statuses: []int{503}, Repeatable: func(*l7.Exchange) bool { return true }}
		}
		callers(t, set, func(t *testing.T, f *front) {
			n := 0
			startOrigin(t, f.network, one, nil, true, func(w http.ResponseWriter, r *http.Request) {
				if n++; n > 1 {
					grpcReply("0", "fine")(w, r)
					return
				}
				if alone {
					w.Header().Set("Grpc-Status", "14")
					grpcReply("14")(w, r)
				} else {
					grpcReply("14", "message")(w, r)
				}
			})
			a := f.call(t, strings.NewReader("hi"))
			synctest.Wait()
			if len(seen) == 0 || seen[0].Class != balance.StatusError || seen[0].Status != 503 {
				t.Errorf("alone %v: outcomes %+v", alone, seen)
			}
			if alone && (a.body != "fine" || a.code != "0") || !alone && (a.body != "message" || a.code != "14") {
				t.Errorf("alone %v: the client got %+v", alone, a)
			}
			if r := f.last(t); r.GRPCStatus != a.code {
				t.Errorf("alone %v: the record says grpc-status %q", alone, r.GRPCStatus)
			}
		})
	}
}
