// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/l7test"
)

// The reader of a reply is told which limit has ended it, as the record is, in
// the words of whoever ended it.
func TestTransportBodyTimeoutsSayWhichTheyAre(t *testing.T) {
	gone := errors.New("the user went home")
	for _, tc := range []struct {
		name  string
		set   func(tr *l7.Transport)
		typ   string
		field string
		limit time.Duration
		want  error // of the context
	}{
		{"body", func(tr *l7.Transport) { tr.BodyTimeout = 7 * time.Second }, "", "Transport.BodyTimeout", 7 * time.Second, nil},
		{"body, by default", func(*l7.Transport) {}, "", "Transport.BodyTimeout", time.Minute, nil},
		{"all", func(tr *l7.Transport) { tr.Timeout = 7 * time.Second }, "", "Transport.Timeout", 7 * time.Second, nil},
		{"stream", func(tr *l7.Transport) { tr.StreamTimeout = 7 * time.Minute }, "text/event-stream", "Transport.StreamTimeout", 7 * time.Minute, nil},
		{"deadline", func(*l7.Transport) {}, "", "", 3 * time.Second, context.DeadlineExceeded},
		{"cancel", func(*l7.Transport) {}, "", "", 3 * time.Second, context.Canceled},
	} {
		for _, proto := range []string{"1", "h2c"} {
			t.Run(tc.name+"/"+proto, func(t *testing.T) {
				withTransport(t, []string{one}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
					tr.Upstream.Protocols = protocols(proto)
					tc.set(tr)
					var recorded error
					tr.OnDone = func(r *l7.Record) { recorded = r.Err }
					startOrigin(t, n, one, nil, proto == "h2c", func(w http.ResponseWriter, r *http.Request) {
						if tc.typ != "" {
							w.Header().Set("Content-Type", tc.typ)
						}
						io.WriteString(w, "hello")
						w.(http.Flusher).Flush()
						<-r.Context().Done()
					})
					ctx, cancel := context.WithCancelCause(t.Context())
					defer cancel(nil)
					switch tc.want {
					case context.Canceled:
						time.AfterFunc(tc.limit, func() { cancel(gone) })
					case context.DeadlineExceeded:
						var stop context.CancelFunc
						ctx, stop = context.WithTimeoutCause(ctx, tc.limit, gone)
						defer stop()
					}
					res, err := tr.RoundTrip(get("http://a.test/").WithContext(ctx))
					if err != nil {
						t.Fatal(err)
					}
					start := time.Now()
					got, err := io.ReadAll(res.Body)
					if d := time.Since(start); string(got) != "hello" || d < tc.limit || d > tc.limit+tc.limit/2 {
						t.Errorf("read %q, %v after %v; want the end after %v", got, err, d, tc.limit)
					}
					wantLate(t, err, tc.field, tc.limit, tc.want, gone)
					_, again := res.Body.Read(make([]byte, 1))
					wantLate(t, again, tc.field, tc.limit, tc.want, gone)
					if tc.want == nil {
						wantTimeout(t, recorded, tc.field, tc.limit)
					}
					res.Body.Close()
				})
			})
		}
	}
}

func wantLate(t *testing.T, err error, field string, limit time.Duration, of, cause error) {
	t.Helper()
	if of == nil {
		wantTimeout(t, err, field, limit)
	} else if _, named := errors.AsType[*l7.TimeoutError](err); named || !errors.Is(err, of) || !errors.Is(err, cause) {
		t.Errorf("error %v; want that of the context and its cause", err)
	}
}

// So is a program that reads or writes behind a 101, and so is its record.
func TestTransportTunnelTimeoutsSayWhichTheyAre(t *testing.T) {
	gone := errors.New("the user went home")
	for _, write := range []bool{false, true} {
		for _, canceled := range []bool{false, true} {
			withTransport(t, []string{one}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
				tr.StreamTimeout = 7 * time.Minute
				var rec l7.Record
				tr.OnDone = func(r *l7.Record) { rec = *r }
				over := make(chan struct{})
				defer close(over)
				serveHTTP(t, n, one, func(w http.ResponseWriter, r *http.Request) {
					c, _, err := w.(http.Hijacker).Hijack()
					if err != nil {
						panic(err)
					}
					defer c.Close()
					io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
					<-over
				})
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				req := get("http://a.test/").WithContext(ctx)
				req.Header.Set("Connection", "Upgrade")
				req.Header.Set("Upgrade", "echo")
				res, err := tr.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				want := error(nil)
				if canceled {
					want = context.Canceled
					time.AfterFunc(time.Minute, func() { cancel(gone) })
				}
				sent := 0
				if write {
					for err == nil {
						var m int
						m, err = res.Body.(io.Writer).Write(make([]byte, 256<<10))
						sent += m
					}
				} else {
					_, err = res.Body.Read(make([]byte, 1))
				}
				wantLate(t, err, "Transport.StreamTimeout", 7*time.Minute, want, gone)
				res.Body.Close()
				cause := l4.ServerTimeout
				if canceled {
					cause = l4.ClientAborted
				}
				if rec.Termination.Cause != cause || rec.Termination.Phase != l4.PhaseData || rec.BytesIn != int64(sent) {
					t.Errorf("recorded %v, %d bytes; want %v, %d", rec.Termination, rec.BytesIn, cause, sent)
				}
				wantLate(t, rec.Err, "Transport.StreamTimeout", 7*time.Minute, want, gone)
			})
		}
	}
}

// The reply of a member of this process ends with the context as well, though its
// handler goes on.
func TestTransportCancelEndsReadOfMember(t *testing.T) {
	withTransport(t, nil, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
		over := make(chan struct{})
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			<-over
			if _, err := io.WriteString(w, "late"); err == nil {
				t.Error("a reply that nobody reads was taken")
			}
		})
		if err := tr.Pool.Set(balance.Endpoint{Name: "local", Value: h}); err != nil {
			t.Fatal(err)
		}
		gone := errors.New("the user went home")
		ctx, cancel := context.WithCancelCause(t.Context())
		res, err := tr.RoundTrip(get("http://a.test/").WithContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() {
			_, err := res.Body.Read(make([]byte, 1))
			ended <- err
		}()
		synctest.Wait()
		cancel(gone)
		synctest.Wait()
		select {
		case err := <-ended:
			wantLate(t, err, "", 0, context.Canceled, gone)
		default:
			t.Error("the read goes on")
		}
		close(over)
		synctest.Wait()
		res.Body.Close()
	})
}

// If a server is cut during a reply, the reader is told so, and the
// record: no time limit is over.
func TestTransportCutSaysSo(t *testing.T) {
	for _, proto := range []string{"1", "h2c"} {
		withTransport(t, []string{one}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
			tr.Upstream.Protocols = protocols(proto)
			var recorded error
			tr.OnDone = func(r *l7.Record) { recorded = r.Err }
			startOrigin(t, n, one, nil, proto == "h2c", func(w http.ResponseWriter, r *http.Request) {
				w.(http.Flusher).Flush()
				<-r.Context().Done()
			})
			res, err := tr.RoundTrip(get("http://a.test/"))
			if err != nil {
				t.Fatal(err)
			}
			time.AfterFunc(time.Second, func() { tr.Pool.Server(one).Cut(true, "test") })
			_, err = res.Body.Read(make([]byte, 1))
			for _, err := range []error{err, recorded} {
				if errors.Is(err, os.ErrDeadlineExceeded) || err == nil || !strings.Contains(err.Error(), "server was cut") {
					t.Errorf("over %s: %v; want the reason of the cut", proto, err)
				}
			}
			res.Body.Close()
		})
	}
}

// A read that Close breaks off says so, and the record has no fault.
func TestTransportCloseOfTunnelIsNoTimeout(t *testing.T) {
	withTransport(t, []string{one}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
		var rec l7.Record
		tr.OnDone = func(r *l7.Record) { rec = *r }
		origin(t, n, one, l7test.Script{l7test.Tunnel("echo")})
		req := get("http://a.test/")
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "echo")
		res, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() {
			_, err := res.Body.Read(make([]byte, 1))
			ended <- err
		}()
		synctest.Wait()
		res.Body.Close()
		if err := <-ended; err == nil || !strings.Contains(err.Error(), "closed body") {
			t.Errorf("read: %v", err)
		}
		if rec.Err != nil || rec.Termination.Cause != l4.Normal {
			t.Errorf("recorded %v, %v", rec.Termination, rec.Err)
		}
	})
}
