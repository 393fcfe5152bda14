// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
)

// TestBufferBodyTellsWhatIsTooLong has bodies of unknown length that are too long
// for the server, not for BufferBody.
func TestBufferBodyTellsWhatIsTooLong(t *testing.T) {
	for name, serve := range map[string]func(h http.Handler) (*Server, *http.Server){
		"byte":  func(h http.Handler) (*Server, *http.Server) { return &Server{Handler: h, MaxBodyBytes: 100}, nil },
		"http2": func(h http.Handler) (*Server, *http.Server) { return &Server{Handler: h, MaxBodyBytes: 100}, nil },
		"standard": func(h http.Handler) (*Server, *http.Server) {
			return nil, &http.Server{Handler: http.MaxBytesHandler(h, 100)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &site{T: t, net: l4test.NewNetwork()}
				s.origin("10.1.0.1:80", echo)
				ours, theirs := serve(&BufferBody{Next: s.proxy("10.1.0.1:80")})
				ln, err := s.net.Listen("tcp", "10.0.0.1:80")
				require.NoError(t, err)
				done := make(chan error, 1)
				if ours != nil {
					go func() { done <- ours.Serve(ln) }()
					defer func() { ours.Close(); <-done }()
				} else {
					go func() { done <- theirs.Serve(ln) }()
					defer func() { theirs.Close(); <-done }()
				}
				client := s.from("10.9.9.9")
				if name == "http2" {
					p := new(http.Protocols)
					p.SetUnencryptedHTTP2(true)
					client.Transport.(*http.Transport).Protocols = p
				}
				for _, test := range []struct{ n, status int }{{100, 200}, {101, 413}} {
					req, err := http.NewRequestWithContext(t.Context(), "POST", "http://10.0.0.1/", struct{ io.Reader }{strings.NewReader(strings.Repeat("x", test.n))})
					require.NoError(t, err)
					resp, err := client.Do(req)
					require.NoError(t, err)
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
					require.Equal(t, test.status, resp.StatusCode, "%d bytes", test.n)
				}
				client.CloseIdleConnections()
				time.Sleep(time.Second) // net/http lingers with a connection that it closes
			})
		})
	}
}

// TestBufferBodyTellsItsLimit: the record names it, whether the length was announced or not.
func TestBufferBodyTellsItsLimit(t *testing.T) {
	var told Record
	onBoth(t, func(*site) http.Handler {
		h := &BufferBody{MaxBytes: 10, Next: &Deny{}}
		return HandlerFunc(func(x *Exchange) {
			Serve(h, x)
			told = x.Record
		})
	}, func(s *site) {
		for _, body := range []io.Reader{strings.NewReader("12345678901"), struct{ io.Reader }{strings.NewReader("12345678901")}} {
			told = Record{}
			resp, err := s.client.Post("http://10.0.0.1/", "", body)
			require.NoError(s, err)
			resp.Body.Close()
			require.Equal(s, 413, resp.StatusCode)
			var limit *http.MaxBytesError
			require.ErrorAs(s, told.Err, &limit)
			require.EqualValues(s, 10, limit.Limit)
			require.Equal(s, endOf(l4.Denied, l4.PhaseRequest), told.Termination)
		}
	})
}

// TestBufferBodyTellsWhatIsTooSlow has bodies that are too slow for another limit before
// they are for BufferBody.
func TestBufferBodyTellsWhatIsTooSlow(t *testing.T) {
	var told Record
	onBoth(t, func(s *site) http.Handler {
		h := &LimitBody{MinRate: 100, Grace: time.Second, Next: &BufferBody{Timeout: -1, Next: &Deny{}}}
		return HandlerFunc(func(x *Exchange) {
			if x.Path == "/silent" { // the limit is the server's own, as http.Server has none
				Serve(h.Next, x)
			} else {
				Serve(h, x)
			}
			told = x.Record
		})
	}, func(s *site) {
		for path, limit := range map[string]string{"/slow": "LimitBody.MinRate", "/silent": "Server.BodyTimeout"} {
			if path == "/silent" && !s.byByte {
				continue
			}
			for _, length := range []int64{400, -1} {
				body, w := io.Pipe()
				go func() { _, _ = w.Write(make([]byte, 150)) }()
				time.AfterFunc(time.Minute, func() { _ = w.Close() })
				req, err := http.NewRequestWithContext(s.Context(), "POST", "http://10.0.0.1"+path, body)
				require.NoError(s, err)
				req.ContentLength = length
				if resp, err := s.client.Do(req); err == nil { // else http.Server has closed before the reply was read
					resp.Body.Close()
					require.Equal(s, 408, resp.StatusCode, path)
				}
				time.Sleep(time.Minute)
				require.Equal(s, 408, told.Status, path)
				require.Equal(s, endOf(l4.ClientTimeout, l4.PhaseRequest), told.Termination, path)
				require.ErrorContains(s, told.Err, limit)
			}
		}
	})
}

// TestBufferedBodyIsTriedAgain has bodies that are longer than Retry.BodyBytes,
// and at hand, go to a second server.
func TestBufferedBodyIsTriedAgain(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		s.origin("10.1.0.1:80", func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(503)
		})
		s.origin("10.1.0.2:80", echo)
		p := s.proxy("10.1.0.1:80", "10.1.0.2:80")
		p.Retry = Retry{Statuses: []int{503}, BodyBytes: 10, Backoff: -1, Repeatable: func(*Exchange) bool { return true }}
		return &BufferBody{MaxBytes: 1 << 20, Next: p}
	}, func(s *site) {
		for _, n := range []int{1, 10, 11, 5000, 200_000} {
			for range 2 {
				body := strings.Repeat("x", n)
				a, err := s.ask(s.client, "/", body)
				require.NoError(s, err)
				require.Equal(s, 200, a.StatusCode, "%d bytes", n)
				require.True(s, strings.HasSuffix(a.body, "\n"+body))
			}
		}
	})
}

// TestBufferedBodyAndItsTrailer has a trailer go on, and no announcement of one
// that does not.
func TestBufferedBodyAndItsTrailer(t *testing.T) {
	type seen struct {
		announced string
		length    int64
		trailer   http.Header
	}
	var got seen
	onBoth(t, func(s *site) http.Handler {
		s.origin("10.1.0.1:80", func(w http.ResponseWriter, r *http.Request) {
			got = seen{strings.Join(r.Header.Values("Trailer"), ","), r.ContentLength, nil}
			for name := range r.Trailer {
				got.announced += name
			}
			_, _ = io.Copy(io.Discard, r.Body)
			got.trailer = r.Trailer.Clone()
		})
		return &BufferBody{Next: s.proxy("10.1.0.1:80")}
	}, func(s *site) {
		post := func(send bool) {
			req, err := http.NewRequestWithContext(s.Context(), "POST", "http://10.0.0.1/", struct{ io.Reader }{strings.NewReader("body")})
			require.NoError(s, err)
			if send {
				req.Trailer = http.Header{"X-Sum": {"42"}}
			} else {
				req.Header.Set("Trailer", "X-Sum")
			}
			resp, err := s.client.Do(req)
			require.NoError(s, err)
			resp.Body.Close()
			require.Equal(s, 200, resp.StatusCode)
		}
		post(true)
		require.Equal(s, "42", got.trailer.Get("X-Sum"))
		post(false)
		require.Equal(s, seen{"", 4, nil}, got)
	})
}

// broken is a body that breaks off before its first byte.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("left") }

// TestBufferBodyBelievesNoLength counts what a request costs that announces a
// long body and sends nothing of it.
func TestBufferBodyBelievesNoLength(t *testing.T) {
	h := &BufferBody{MaxBytes: 64 << 20, Timeout: -1, Next: &Deny{}}
	for _, length := range []int64{1, 1 << 20, 64 << 20} {
		x := &Exchange{ContentLength: length}
		buf, _, _, err := h.read(x, broken{}, 64<<20)
		require.Error(t, err)
		require.LessOrEqual(t, cap(buf), 4<<10)
	}
}
