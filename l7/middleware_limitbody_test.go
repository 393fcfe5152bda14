// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4"
)

// dripping is a body that comes a byte at a time.
type dripping struct {
	n     int
	pause time.Duration
}

func (b *dripping) Read(p []byte) (int, error) {
	if b.n == 0 {
		return 0, io.EOF
	}
	b.n--
	time.Sleep(b.pause)
	p[0] = 'a'
	return 1, nil
}

func TestLimitBody(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		s.origin("10.1.0.1:80", echo)
		s.origin("10.1.0.2:80", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Length", strconv.FormatInt(r.ContentLength, 10))
			echo(w, r)
		})
		to := s.proxy("10.1.0.1:80")
		return NewRouter(
			Route{Match: Path("/size"), Handler: &LimitBody{MaxBytes: 1000, Next: to}},
			Route{Match: Path("/any"), Handler: &LimitBody{MaxBytes: -1, Next: to}},
			Route{Match: Path("/rate"), Handler: &LimitBody{MinRate: 100, Grace: time.Second, Next: s.proxy("10.1.0.2:80")}},
			Route{Match: Path("/buffered"), Handler: &BufferBody{Next: &LimitBody{MaxBytes: 1000, Next: to}}},
		)
	}, func(s *site) {
		t := s.T
		var header http.Header
		post := func(path string, body io.Reader, length int64) (int, string) {
			req, err := http.NewRequestWithContext(t.Context(), "POST", "http://10.0.0.1"+path, body)
			require.NoError(t, err)
			req.ContentLength = length
			resp, err := s.client.Do(req)
			require.NoError(t, err)
			defer resp.Body.Close()
			header = resp.Header
			text, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			return resp.StatusCode, string(text)
		}
		full := strings.Repeat("a", 1000)
		for _, path := range []string{"/size", "/buffered"} {
			for _, length := range []int64{0, -1} {
				of := func(n int64) int64 {
					if length < 0 {
						return -1
					}
					return n
				}
				status, text := post(path, strings.NewReader(full), of(1000))
				require.Equal(t, 200, status, path)
				require.True(t, strings.HasSuffix(text, "\n"+full))
				status, _ = post(path, strings.NewReader(full+"b"), of(1001))
				require.Equal(t, 413, status, "%s %d", path, length)
			}
		}
		status, text := post("/any", strings.NewReader(full+full), -1)
		require.Equal(t, 200, status)
		require.True(t, strings.HasSuffix(text, full+full))

		for _, known := range []bool{true, false} {
			of := func(n int64) int64 {
				if !known {
					return -1
				}
				return n
			}
			status, text = post("/rate", &dripping{400, 5 * time.Millisecond}, of(400)) // 200 a second
			require.Equal(t, 200, status)
			require.True(t, strings.HasSuffix(text, strings.Repeat("a", 400)))
			require.Equal(t, strconv.FormatInt(of(400), 10), header.Get("Length"), "the framing stays")
			status, _ = post("/rate", &dripping{90, 10100 * time.Microsecond}, of(90)) // too slow, but within Grace
			require.Equal(t, 200, status)
			status, _ = post("/rate", &dripping{400, 20 * time.Millisecond}, of(400)) // 50 a second
			require.Equal(t, 408, status)
			silent, w := io.Pipe() // it sends for a second and a half, and then nothing
			go func() { _, _ = w.Write(make([]byte, 150)) }()
			start := time.Now()
			if s.byByte {
				status, _ = post("/rate", silent, of(400))
			} else { // http.Server may close before its reply is read
				time.AfterFunc(10*time.Second, func() { _ = w.Close() })
				req, err := http.NewRequestWithContext(t.Context(), "POST", "http://10.0.0.1/rate", silent)
				require.NoError(t, err)
				req.ContentLength = of(400)
				if resp, err := s.client.Do(req); err == nil {
					status = resp.StatusCode
					_ = resp.Body.Close()
				} else {
					start = start.Add(8500 * time.Millisecond)
				}
			}
			require.Equal(t, 408, status)
			require.InDelta(t, 1.5, time.Since(start).Seconds(), 0.1)
			_ = w.Close()
		}
		time.Sleep(20 * time.Second) // for what the client still sends
	})
}

// A body of more bytes than there are nanoseconds in an int64 at its rate is allowed all the
// time there is.
func TestLimitBodyOfBodiesWithoutEnd(t *testing.T) {
	for _, h := range []*LimitBody{{MinRate: 1}, {MinRate: 1, Grace: -1}, {MinRate: 10, Grace: math.MaxInt64}} {
		before := time.Duration(0)
		for _, n := range []int64{1, 1 << 30, 9_223_372_036, 9_223_372_037, 1 << 40, math.MaxInt64} {
			b := limitedBody{h: h, n: n}
			require.GreaterOrEqual(t, b.allowed(), before, "%+v: %d bytes", h, n)
			before = b.allowed()
		}
		require.Equal(t, time.Duration(math.MaxInt64), before)
	}
}

// What is too long by its own word never reaches a server, and the record says which
// limit it was.
func TestLimitBodyIsTold(t *testing.T) {
	var told []Record
	asked := 0
	h := &LimitBody{MaxBytes: 10, Next: HandlerFunc(func(x *Exchange) { asked++; x.Respond(200, nil, "") })}
	onBoth(t, func(s *site) http.Handler {
		told, asked = nil, 0
		return HandlerFunc(func(x *Exchange) {
			Serve(h, x)
			told = append(told, x.Record)
		})
	}, func(s *site) {
		resp, err := s.client.Post("http://10.0.0.1/", "", strings.NewReader("12345678901"))
		require.NoError(s.T, err)
		resp.Body.Close()
		require.Equal(s.T, 413, resp.StatusCode)
		synctest.Wait() // another goroutine may have sent the reply while the handler still runs
		require.Zero(s.T, asked)
		require.Len(s.T, told, 1)
		require.ErrorContains(s.T, told[0].Err, "too large")
		require.Equal(s.T, endOf(l4.Denied, l4.PhaseRequest), told[0].Termination)
	})
}
