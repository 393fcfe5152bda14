// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/penstock-lb/penstock"
)

// A Player asks for what is in a file. The fields must not change while it runs; it may
// run several times, one after the other.
type Player struct {
	To     http.RoundTripper // an *l7.Transport over the pool that is tried
	Scheme string            // of the requests; "" means http
	Header http.Header       // of all requests, such as a field that marks them

	Speed float64 // 2 is twice as fast as recorded; 0 means 1, negative means none: without pauses

	MaxInFlight int           // requests at once, further ones wait; 0 means 100
	Timeout     time.Duration // of a request with its body; 0 means 30s, negative means none

	// OnResult is told of each reply: of the request, its status, 0 if there was none, how
	// long it took, and why there was none. It may be called by several goroutines at once,
	// and must not block. If it panics, that ends Run, with an error.
	OnResult func(r *Request, status int, took time.Duration, err error)
}

// A Result is what has become of the requests of a file.
type Result struct {
	Played  int // requests sent
	Left    int // requests left out: other methods than GET and HEAD, and targets that no URL can hold
	Same    int // replies with the recorded status
	Other   int // replies with another one
	Failed  int // requests without a reply
	Late    int // requests that began more than 100ms after their turn, as too many were under way
	Longest time.Duration
}

// maxLine is the longest line of a file.
const maxLine = 256 << 10

// Run plays the file once, and returns when all replies have come. A line is written when
// its request has ended, so one that took long is played that much after its time. A line
// that is no request ends it with an error; a ctx that is done ends it with that of ctx.
// The result is that of what was played.
func (p *Player) Run(ctx context.Context, file io.Reader) (Result, error) {
	if err := p.Check(); err != nil {
		return Result{}, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	run := &run{p: p, places: make(chan struct{}, p.maxInFlight()), fail: cancel}
	err := run.read(ctx, file)
	run.wg.Wait()
	if err == nil {
		err = run.panicked
	}
	return run.result, err
}

func (p *Player) maxInFlight() int {
	if p.MaxInFlight <= 0 {
		return 100
	}
	return p.MaxInFlight
}

// Check returns what is wrong with p, a [*penstock.ConfigError].
func (p *Player) Check() error {
	var m penstock.Mistakes
	m.Need("Player.To", p.To, "must be a RoundTripper, such as an l7.Transport")
	m.In("Player.To", p.To)
	m.If(p.Scheme != "" && p.Scheme != "http" && p.Scheme != "https", "Player.Scheme", p.Scheme, "must be http or https")
	m.If(math.IsNaN(p.Speed), "Player.Speed", p.Speed, "must be a number")
	m.If(p.MaxInFlight < 0, "Player.MaxInFlight", p.MaxInFlight, "must not be negative")
	return m.Err()
}

// run is one Run.
type run struct {
	p      *Player
	places chan struct{}
	wg     sync.WaitGroup
	fail   context.CancelCauseFunc

	mu       sync.Mutex
	result   Result
	panicked error // of OnResult, the first one
}

func (r *run) read(ctx context.Context, file io.Reader) error {
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, maxLine)
	var first, start, due time.Time
	for n := 1; lines.Scan(); n++ {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		q := new(Request)
		if err := json.Unmarshal(lines.Bytes(), q); err != nil {
			return fmt.Errorf("replay: line %d: %w", n, err)
		}
		if q.Method != http.MethodGet && q.Method != http.MethodHead {
			r.result.Left++
			continue
		}
		req, err := r.p.request(q)
		if err != nil {
			return fmt.Errorf("replay: line %d: %w", n, err)
		}
		if req == nil {
			r.result.Left++
			continue
		}
		if start.IsZero() {
			first, start = q.At, time.Now()
		}
		if at := start.Add(r.p.offset(q.At.Sub(first))); at.After(due) {
			due = at
		} // else its turn is after that of the line before
		if err := r.await(ctx, due); err != nil {
			return err
		}
		r.wg.Go(func() {
			defer func() { <-r.places }()
			r.send(ctx, q, req)
		})
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("replay: %w", err)
	}
	return nil
}

// offset returns when a request is due that was recorded so long after the first.
func (p *Player) offset(d time.Duration) time.Duration {
	switch {
	case p.Speed < 0:
		return 0
	case p.Speed == 0:
		return d
	}
	after := float64(d) / p.Speed
	if math.Abs(after) > longest { // a conversion of more than an int64 has no defined value
		after = math.Copysign(longest, after)
	}
	return time.Duration(after)
}

const longest = 1 << 60 // ns, 36 years: added to a time, it stays one

// await waits for the time of a request, and for a place.
func (r *run) await(ctx context.Context, due time.Time) error {
	t := time.NewTimer(time.Until(due))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case r.places <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.result.Played++
	if r.p.Speed >= 0 && time.Since(due) > 100*time.Millisecond {
		r.result.Late++
	}
	return nil
}

// request returns what a line asks for, nil if no URL can hold its target.
func (p *Player) request(q *Request) (*http.Request, error) {
	if !validTarget(q.Target) {
		return nil, fmt.Errorf("%q is no target of a request", q.Target)
	}
	u, err := url.ParseRequestURI(q.Target)
	if err != nil || u.RequestURI() != q.Target { // net/url knows fewer, or would encode it
		if strings.HasPrefix(q.Target, "//") {
			return nil, nil // it would be taken for a host
		}
		u = &url.URL{Opaque: q.Target}
	}
	u.Scheme, u.Host = p.Scheme, q.Host
	if u.Scheme == "" {
		u.Scheme = "http"
	}
	h := p.Header.Clone()
	if h == nil {
		h = make(http.Header)
	}
	return &http.Request{Method: q.Method, URL: u, Host: q.Host, Header: h, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}, nil
}

// validTarget reports whether s can be a path and query, as a gateway accepts them.
func validTarget(s string) bool {
	return strings.HasPrefix(s, "/") && strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '#' }) < 0
}

// send sends a request and reads its reply.
func (r *run) send(ctx context.Context, q *Request, req *http.Request) {
	timeout := r.p.Timeout
	if timeout == 0 {
		timeout = 30 * time.Second
	}
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	start := time.Now()
	status, err := r.p.ask(req.WithContext(ctx))
	took := time.Since(start)
	r.mu.Lock()
	switch {
	case err != nil:
		r.result.Failed++
	case status == q.Status:
		r.result.Same++
	default:
		r.result.Other++
	}
	r.result.Longest = max(r.result.Longest, took)
	r.mu.Unlock()
	if r.p.OnResult != nil {
		r.tell(q, status, took, err)
	}
}

// ask sends a request, and reads its reply to the end. A panic is a failure of the request.
func (p *Player) ask(req *http.Request) (status int, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("replay: panic in Player.To: %v", v)
		}
	}()
	resp, err := p.To.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// tell calls OnResult.
func (r *run) tell(q *Request, status int, took time.Duration, err error) {
	defer func() {
		if v := recover(); v != nil {
			err := fmt.Errorf("replay: panic in Player.OnResult: %v", v)
			r.mu.Lock()
			if r.panicked == nil {
				r.panicked = err
			}
			r.mu.Unlock()
			r.fail(err)
		}
	}()
	r.p.OnResult(q, status, took, err)
}
