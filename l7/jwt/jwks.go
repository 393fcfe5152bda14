// SPDX-License-Identifier: Apache-2.0

package jwt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/penstock-lb/penstock"
)

// A JWKS are the keys of a JWK Set that is fetched by its URL and kept. A request that
// finds no key, or none of the kid that its token names, fetches the set, or waits for
// the fetch under way. One that finds keys older than Refresh fetches it too, and others
// go on with the old ones meanwhile. There is one fetch at a time, and none sooner than
// MinWait after the last one, so that made-up kids do not make us a flood. While the URL
// does not answer the keys stay, for MaxAge.
//
// Run keeps the keys new, so that no request has to; it need not run. The zero value
// with a URL is ready to use. Its fields must not change once it is used; all methods
// may be called at once.
type JWKS struct {
	URL string // https, unless Transport is set

	// Transport fetches; nil means http.DefaultTransport. An l7.Transport has a pool,
	// with its retries. No redirect is followed.
	Transport http.RoundTripper

	Refresh time.Duration // age at which keys are fetched anew; 0 means 15m, negative means none: only for kids that are not known
	MinWait time.Duration // between two fetches; 0 means 10s, negative means none
	MaxAge  time.Duration // of keys that could not be fetched anew; 0 means 24h, negative means no limit
	Timeout time.Duration // of a fetch; 0 means 5s, negative means none

	MaxBytes int // of a set; 0 means 256 KiB
	MaxKeys  int // of a set, the first ones; 0 means 100

	Logger *slog.Logger // is told of fetches that failed, once a minute while they fail alike, and of keys that were left out, if others were before; nil means slog.Default()

	mu       sync.Mutex
	keys     Static
	fetched  time.Time     // when keys were; zero if never
	tried    time.Time     // when the last fetch ended; zero if none has
	err      error         // of the last fetch
	fetching chan struct{} // closed at the end of the fetch under way; nil if there is none

	// Of the fetch under way.
	said string    // why the last one failed, as it was logged; empty if it did not
	at   time.Time // when
	left string    // why keys of the last set were left out, as it was logged
}

// ErrNoKeys is why a token could not be verified where there is no key at all: the
// set was never fetched, or is too old.
var ErrNoKeys = errors.New("jwt: no keys")

// Keys implements [Keys].
func (j *JWKS) Keys(ctx context.Context, kid string) ([]Key, error) {
	keys, fetch := j.look(kid, time.Now())
	if fetch {
		if err := j.fetch(ctx, keys == nil || !keys.named(kid)); err != nil {
			return nil, err
		}
		keys, _ = j.look(kid, time.Now())
	}
	if keys == nil {
		j.mu.Lock()
		defer j.mu.Unlock()
		return nil, errors.Join(ErrNoKeys, j.err)
	}
	return keys, nil
}

// look returns the keys, nil if there are none that may be used, and whether they are
// to be fetched.
func (j *JWKS) look(kid string, now time.Time) (keys Static, fetch bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	age := now.Sub(j.fetched)
	if maxAge := orDefault(j.MaxAge, 24*time.Hour); j.keys != nil && (maxAge <= 0 || age < maxAge) {
		keys = j.keys
	}
	if keys == nil || !keys.named(kid) {
		return keys, j.fetching != nil || j.due(now)
	}
	refresh := orDefault(j.Refresh, 15*time.Minute)
	return keys, refresh > 0 && age >= refresh && j.fetching == nil && j.due(now)
}

// due reports whether the last fetch is long enough ago. The lock is held.
func (j *JWKS) due(now time.Time) bool {
	return j.tried.IsZero() || now.Sub(j.tried) >= orDefault(j.MinWait, 10*time.Second)
}

// named reports whether a token with that kid may be signed by one of the keys.
func (s Static) named(kid string) bool {
	for i := range s {
		if kid == "" || s[i].ID == kid || s[i].ID == "" {
			return true
		}
	}
	return false
}

// fetch fetches the set, whatever becomes of ctx, unless it is being fetched: then it
// waits for that, if wait says so, until ctx ends, whose error it returns.
func (j *JWKS) fetch(ctx context.Context, wait bool) error {
	j.mu.Lock()
	under := j.fetching
	if under != nil {
		j.mu.Unlock()
		if !wait {
			return nil
		}
		select {
		case <-under:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	done := make(chan struct{})
	j.fetching = done
	j.mu.Unlock()
	keys, err := j.load(context.WithoutCancel(ctx))
	j.mu.Lock()
	defer j.mu.Unlock()
	j.tried, j.err, j.fetching = time.Now(), err, nil
	if err == nil {
		j.keys, j.fetched = keys, j.tried
	}
	close(done)
	return nil
}

// load fetches the set once.
func (j *JWKS) load(ctx context.Context) (keys Static, err error) {
	defer func() {
		if p := recover(); p != nil { // the Transport is the host's
			err = fmt.Errorf("jwt: fetching %s panicked: %v", j.URL, p)
		}
		j.tell(err, time.Now())
	}()
	if d := orDefault(j.Timeout, 5*time.Second); d > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d)
		defer cancel()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, j.URL, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	t := j.Transport
	if t == nil {
		t = http.DefaultTransport
	}
	resp, err := t.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("jwt: %s answered %s", j.URL, resp.Status)
	}
	limit := positive(j.MaxBytes, 256<<10)
	body, err := io.ReadAll(io.LimitReader(resp.Body, int64(limit)+1))
	if err != nil {
		return nil, err
	}
	if len(body) > limit {
		return nil, fmt.Errorf("jwt: the set of %s is longer than MaxBytes", j.URL)
	}
	keys, skipped, err := ParseJWKS(body)
	if err != nil {
		return nil, err
	}
	if left := fmt.Sprint(skipped); left != j.left {
		j.left = left
		for _, why := range skipped {
			j.logger().Info("jwt: a key was left out", "url", j.URL, "reason", why)
		}
	}
	return keys[:min(len(keys), positive(j.MaxKeys, 100))], nil
}

// tell logs why a fetch failed, unless it was logged less than a minute ago and none has
// succeeded since.
func (j *JWKS) tell(err error, now time.Time) {
	if err == nil {
		j.said = ""
		return
	}
	text := err.Error()
	if local, rest, ok := strings.Cut(text, "->"); ok { // of a net.OpError: another port each time
		text = strings.TrimRight(local, "0123456789") + "->" + rest
	}
	if text == j.said && now.Sub(j.at) < time.Minute {
		return
	}
	j.said, j.at = text, now
	j.logger().Warn("jwt: keys were not fetched", "url", j.URL, "error", err)
}

// Run fetches the keys at once, and whenever they are to be fetched anew, until ctx
// ends, whose error it returns.
func (j *JWKS) Run(ctx context.Context) error {
	for {
		if err := j.fetch(ctx, true); err != nil {
			return err
		}
		wait := max(orDefault(j.MinWait, 10*time.Second), time.Second)
		j.mu.Lock()
		if j.err == nil {
			// Somewhat before a request would see to it.
			if refresh := orDefault(j.Refresh, 15*time.Minute); refresh > 0 {
				wait = max(wait, refresh*3/4)
			} else {
				wait = max(wait, time.Hour)
			}
		}
		j.mu.Unlock()
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
	}
}

func (j *JWKS) logger() *slog.Logger {
	if j.Logger == nil {
		return slog.Default()
	}
	return j.Logger
}

// Check returns what is wrong with j, a [*penstock.ConfigError].
func (j *JWKS) Check() error {
	var m penstock.Mistakes
	u, err := url.Parse(j.URL)
	m.If(err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http", "JWKS.URL", j.URL, "must be a URL of https")
	m.If(err == nil && u.Scheme == "http" && j.Transport == nil, "JWKS.URL", j.URL, "must be https: an attacker who can change the keys in transit can forge tokens. With a Transport it may be http")
	m.If(j.MaxBytes < 0, "JWKS.MaxBytes", j.MaxBytes, "must not be negative")
	m.If(j.MaxKeys < 0, "JWKS.MaxKeys", j.MaxKeys, "must not be negative")
	return m.Err()
}

// orDefault implements "0 means def, negative means none", none being 0.
func orDefault[T int | time.Duration](v, def T) T {
	switch {
	case v == 0:
		return def
	case v < 0:
		return 0
	}
	return v
}

func positive(v, def int) int {
	if v <= 0 {
		return def
	}
	return v
}
