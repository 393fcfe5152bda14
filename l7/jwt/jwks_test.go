// SPDX-License-Identifier: Apache-2.0

package jwt

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A publisher is what answers at the URL of a set.
type publisher struct {
	mu     sync.Mutex
	asked  int
	keys   []map[string]any
	status int
	err    error
	wait   time.Duration
	more   string // behind the set
	panics bool
}

func (p *publisher) RoundTrip(r *http.Request) (*http.Response, error) {
	p.mu.Lock()
	p.asked++
	wait, err, status, panics := p.wait, p.err, p.status, p.panics
	body, _ := json.Marshal(map[string]any{"keys": p.keys})
	body = append(body, p.more...)
	p.mu.Unlock()
	if panics {
		panic("boom")
	}
	select {
	case <-time.After(wait):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	if err != nil {
		return nil, err
	}
	if status == 0 {
		status = 200
	}
	return &http.Response{StatusCode: status, Status: fmt.Sprint(status), Body: io.NopCloser(bytes.NewReader(body))}, nil
}

func (p *publisher) set(change func()) (asked int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	asked, p.asked = p.asked, 0
	return asked
}

func (p *publisher) requests() int { return p.set(func() {}) }

var b64 = base64.RawURLEncoding.EncodeToString

func (i *issuer) jwk(kid string) map[string]any {
	return map[string]any{"kty": "OKP", "crv": "Ed25519", "kid": kid, "use": "sig", "x": b64(i.key.Public.(ed25519.PublicKey))}
}

func jwks(p *publisher) *JWKS {
	return &JWKS{URL: "https://id.example/keys", Transport: p, Logger: slog.New(slog.DiscardHandler)}
}

func TestJWKSRotates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, next := newIssuer(t), newIssuer(t)
		p := &publisher{keys: []map[string]any{old.jwk("1")}}
		h := old.verifier()
		h.Keys, h.KeepFor = jwks(p), -1
		require.NoError(t, h.Check())
		for range 3 {
			require.Equal(t, 200, ask(h, "/", bearerOf(old.token())...).status)
		}
		require.Equal(t, 1, p.requests())

		byNext := func() string { return sign("EdDSA", next.private, "2", next.claims()) }
		require.Equal(t, 401, ask(h, "/", bearerOf(byNext())...).status, "not published")
		require.Equal(t, 0, p.requests(), "so soon after the last fetch")
		p.set(func() { p.keys = append(p.keys, next.jwk("2")) })
		time.Sleep(10 * time.Second)
		require.Equal(t, 200, ask(h, "/", bearerOf(byNext())...).status, "a kid that is not known has the set fetched")
		require.Equal(t, 1, p.requests())

		p.set(func() { p.keys = p.keys[1:] })
		time.Sleep(15 * time.Minute)
		require.Equal(t, 401, ask(h, "/", bearerOf(old.token())...).status, "taken back")
		require.Equal(t, 1, p.requests())
		for n := range 100 { // made-up kids are no flood
			require.Equal(t, 401, ask(h, "/", bearerOf(sign("EdDSA", old.private, fmt.Sprint("x", n), old.claims()))...).status)
			time.Sleep(100 * time.Millisecond)
		}
		require.LessOrEqual(t, p.requests(), 1)
	})
}

func TestJWKSOutage(t *testing.T) {
	for name, fail := range map[string]func(p *publisher){
		"error":    func(p *publisher) { p.err = errors.New("refused") },
		"500":      func(p *publisher) { p.status = 500 },
		"redirect": func(p *publisher) { p.status = 302 },
		"slow":     func(p *publisher) { p.wait = time.Hour },
		"no keys":  func(p *publisher) { p.keys = nil },
		"no JSON":  func(p *publisher) { p.more = "x" },
		"long":     func(p *publisher) { p.more = strings.Repeat(" ", 256<<10) },
		"panic":    func(p *publisher) { p.panics = true },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := newIssuer(t)
				p := &publisher{keys: []map[string]any{i.jwk("1")}}
				h := i.verifier()
				h.Keys, h.KeepFor = jwks(p), -1
				h.Timeout = time.Minute
				require.Equal(t, 200, ask(h, "/", bearerOf(i.token())...).status)
				p.set(func() { fail(p) })
				for range 20 { // as long as MaxAge says
					time.Sleep(time.Hour)
					require.Equal(t, 200, ask(h, "/", bearerOf(i.token())...).status)
				}
				require.Equal(t, 20, p.requests())
				time.Sleep(5 * time.Hour)
				a := ask(h, "/", bearerOf(i.token())...)
				require.Equal(t, 503, a.status)
				require.ErrorIs(t, a.record.Err, ErrNoKeys)

				fresh := jwks(p)
				h.Keys = fresh
				require.Equal(t, 503, ask(h, "/", bearerOf(i.token())...).status)
				p.set(func() {
					p.err, p.status, p.wait, p.more, p.panics, p.keys = nil, 0, 0, "", false, []map[string]any{i.jwk("1")}
				})
				require.Equal(t, 503, ask(h, "/", bearerOf(i.token())...).status, "MinWait")
				time.Sleep(10 * time.Second)
				require.Equal(t, 200, ask(h, "/", bearerOf(i.token())...).status)
			})
		})
	}
}

// One fetch for all that wait, and none of them for longer than it likes.
func TestJWKSIsFetchedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t)
		p := &publisher{keys: []map[string]any{i.jwk("1")}, wait: 2 * time.Second}
		h := i.verifier()
		h.Keys, h.KeepFor = jwks(p), -1
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if s := ask(h, "/", bearerOf(i.token())...).status; s != 200 {
					t.Errorf("status %d", s)
				}
			})
		}
		wg.Wait()
		require.Equal(t, 1, p.requests())

		time.Sleep(time.Hour) // old: one request fetches, others do not wait
		start := time.Now()
		wg.Go(func() { ask(h, "/", bearerOf(i.token())...) })
		synctest.Wait()
		require.Equal(t, 200, ask(h, "/", bearerOf(i.token())...).status)
		require.Zero(t, time.Since(start))
		wg.Wait()
		require.Equal(t, 1, p.requests())

		j := jwks(p) // the first one is gone, the fetch goes on
		ctx, cancel := context.WithCancel(t.Context())
		wg.Go(func() { _, _ = j.Keys(ctx, "1") })
		synctest.Wait()
		short, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		_, err := j.Keys(short, "1")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		cancel()
		wg.Wait()
		keys, err := j.Keys(t.Context(), "1")
		require.NoError(t, err)
		require.Len(t, keys, 1)
		require.Equal(t, 1, p.requests())
	})
}

func TestJWKSRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t)
		p := &publisher{keys: []map[string]any{i.jwk("1")}, wait: time.Second}
		j := jwks(p)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- j.Run(ctx) }()
		time.Sleep(2 * time.Second)
		h := i.verifier()
		h.Keys, h.KeepFor = j, -1
		start := time.Now()
		for range 24 {
			time.Sleep(time.Hour)
			require.Equal(t, 200, ask(h, "/", bearerOf(i.token())...).status)
		}
		require.Equal(t, 24*time.Hour, time.Since(start), "no request has waited")
		n := p.set(func() { p.err = errors.New("refused") })
		require.InDelta(t, 24*60/11.25, n, 10)
		time.Sleep(time.Hour)
		require.Equal(t, 200, ask(h, "/", bearerOf(i.token())...).status)
		require.LessOrEqual(t, p.requests(), 3600/10+10)
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
	})
}

func TestParseJWKS(t *testing.T) {
	i := newIssuer(t)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	point, err := p384.PublicKey.Bytes()
	require.NoError(t, err)
	n := b64(rsaKey.N.Bytes())
	set := []map[string]any{
		i.jwk("ed"),
		{"kty": "RSA", "kid": "rsa", "n": n, "e": "AQAB"},
		{"kty": "RSA", "kid": "pss", "n": n, "e": "AQAB", "alg": "PS512"},
		{"kty": "EC", "kid": "ec", "crv": "P-384", "x": b64(point[1:49]), "y": b64(point[49:]), "key_ops": []string{"verify"}},
	}
	good := len(set)
	set = append(set,
		map[string]any{"kty": "oct", "k": b64(make([]byte, 64)), "alg": "HS256"},
		map[string]any{"kty": "RSA", "n": n, "e": "AQAB", "use": "enc"},
		map[string]any{"kty": "RSA", "n": n, "e": "AQAB", "alg": "RSA-OAEP"},
		map[string]any{"kty": "RSA", "n": n, "e": "AQAB", "alg": "HS256"},
		map[string]any{"kty": "RSA", "n": n, "e": "AQAB", "alg": "none"},
		map[string]any{"kty": "RSA", "n": n, "e": "Ag"},
		map[string]any{"kty": "RSA", "n": n, "e": "AQAAAAAAAAAAAAAB"},
		map[string]any{"kty": "RSA", "n": n[:170], "e": "AQAB"},
		map[string]any{"kty": "RSA", "n": "", "e": "AQAB"},
		map[string]any{"kty": "RSA", "n": strings.Repeat(n, 20), "e": "AQAB"},
		map[string]any{"kty": "EC", "crv": "P-384", "x": b64(point[1:49]), "y": b64(point[1:49])}, // not on the curve
		map[string]any{"kty": "EC", "crv": "P-384", "x": b64(point[1:40]), "y": b64(point[49:])},
		map[string]any{"kty": "EC", "crv": "P-384", "x": b64(point[1:49]), "y": b64(point[49:]), "key_ops": []string{"sign"}},
		map[string]any{"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"},
		map[string]any{"kty": "OKP", "crv": "X25519", "x": b64(make([]byte, 32))},
		map[string]any{"kty": "OKP", "crv": "Ed25519", "x": "AA"},
		map[string]any{"kty": 1},
	)
	file, err := json.Marshal(map[string]any{"keys": set})
	require.NoError(t, err)
	keys, skipped, err := ParseJWKS(file)
	require.NoError(t, err)
	require.Len(t, skipped, len(set)-good)
	for n, want := range []string{"ed EdDSA", "rsa RS256", "pss PS512", "ec ES384"} {
		require.Equal(t, want, keys[n].ID+" "+keys[n].Algorithm)
	}
	require.NoError(t, keys.Check())
	_, _, err = ParseJWKS([]byte(`{"keys":[{"kty":"oct"}]}`))
	require.ErrorContains(t, err, "no key")
	require.Equal(t, 0, len(mustFail(t, []byte(`[]`))))
}

func mustFail(t *testing.T, file []byte) Static {
	keys, _, err := ParseJWKS(file)
	require.Error(t, err)
	return keys
}

func FuzzParseJWKS(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"},{"kty":"RSA","n":"AA","e":"AQAB"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`)) // RFC 8037, appendix A.2
	f.Fuzz(func(t *testing.T, file []byte) {
		keys, _, err := ParseJWKS(file)
		if err == nil && keys.Check() != nil {
			t.Errorf("%v", keys.Check())
		}
	})
}

// lineLog keeps lines of a log, from any goroutine.
type lineLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lineLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// count counts the lines with a text since it was called last.
func (l *lineLog) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.text.Reset()
	return strings.Count(l.text.String(), text)
}

// While the URL does not answer, the log has a line at once and then one a minute, and
// again at once after a fetch that succeeded.
func TestJWKSOutageIsLoggedOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t)
		var log lineLog
		p := &publisher{keys: []map[string]any{i.jwk("1")}, err: errors.New("refused")}
		j := jwks(p)
		j.Refresh = 20 * time.Second
		j.Logger = slog.New(slog.NewTextHandler(&log, nil))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- j.Run(ctx) }()
		lines := func(after time.Duration, want int) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			require.Equal(t, want, log.count("not fetched"))
		}
		lines(5*time.Second, 1)
		lines(5*time.Minute, 5)
		for n := range 10 { // each from another port
			p.set(func() { p.err = fmt.Errorf("read tcp 10.0.0.1:%d->10.0.0.2:443: reset", 40000+n) })
			time.Sleep(3 * time.Second)
		}
		lines(0, 1)
		p.set(func() { p.err = nil })
		lines(15*time.Second, 0)
		p.set(func() { p.err = errors.New("read tcp 10.0.0.1:50000->10.0.0.2:443: reset") })
		lines(20*time.Second, 1)
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
	})
}

// A key that is left out is logged once, however often the set is fetched.
func TestJWKSKeysLeftOutAreLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t)
		var log lineLog
		enc, other := i.jwk("2"), i.jwk("3")
		enc["use"], other["kty"] = "enc", "other"
		p := &publisher{keys: []map[string]any{i.jwk("1"), enc}}
		j := jwks(p)
		j.MinWait = -1
		j.Logger = slog.New(slog.NewTextHandler(&log, nil))
		told := func() int {
			for range 10 {
				_, err := j.Keys(t.Context(), "made up")
				require.NoError(t, err)
			}
			return log.count("left out")
		}
		require.Equal(t, 1, told())
		require.Equal(t, 10, p.requests())
		p.set(func() { p.keys = append(p.keys, other) })
		require.Equal(t, 2, told())
		p.set(func() { p.keys = p.keys[:1] })
		require.Equal(t, 0, told())
		p.set(func() { p.keys = append(p.keys, enc) })
		require.Equal(t, 1, told())
	})
}
