// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// stalling is a body that stops for long after some bytes.
type stalling struct {
	first string
	stop  time.Duration
	last  string
}

func (b *stalling) Read(p []byte) (int, error) {
	switch {
	case b.first != "":
		n := copy(p, b.first)
		b.first = b.first[n:]
		return n, nil
	case b.last == "":
		return 0, io.EOF
	}
	time.Sleep(b.stop)
	b.stop = 0
	n := copy(p, b.last)
	b.last = b.last[n:]
	return n, nil
}

// H12: a body is waited for, up to a time and a size; with a threshold it is
// passed on when that is there.
func TestH12_BufferBody(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		s.origin("10.1.0.1:80", echo)
		to := s.proxy("10.1.0.1:80")
		return NewRouter(
			Route{Match: Path("/all"), Handler: &BufferBody{MaxBytes: 2000, Timeout: 100 * time.Millisecond, Next: to}},
			Route{Match: Path("/some"), Handler: &BufferBody{AtLeast: 1000, Timeout: 100 * time.Millisecond, Next: to}},
		)
	}, func(s *site) {
		t := s.T
		post := func(path string, body io.Reader, length int64) (int, string) {
			req, err := http.NewRequestWithContext(t.Context(), "POST", "http://10.0.0.1"+path, body)
			require.NoError(t, err)
			req.ContentLength = length
			resp, err := s.client.Do(req)
			require.NoError(t, err)
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			return resp.StatusCode, string(text)
		}
		first, last := strings.Repeat("a", 1000), "b"
		for _, length := range []int64{1001, -1} {
			status, text := post("/all", &stalling{first, 10 * time.Millisecond, last}, length)
			require.Equal(t, 200, status)
			require.True(t, strings.HasSuffix(text, first+last))
			status, _ = post("/all", &stalling{first, time.Second, last}, length)
			require.Equal(t, 408, status)
			status, text = post("/some", &stalling{first, time.Second, last}, length)
			require.Equal(t, 200, status)
			require.True(t, strings.HasSuffix(text, first+last))
			status, _ = post("/some", &stalling{first[1:], time.Second, last}, length)
			require.Equal(t, 408, status)
			long, short := int64(2001), int64(5)
			if length < 0 {
				long, short = -1, -1
			}
			status, _ = post("/all", strings.NewReader(strings.Repeat("a", 2001)), long)
			require.Equal(t, 413, status)
			status, text = post("/some", strings.NewReader("short"), short)
			require.Equal(t, 200, status)
			require.True(t, strings.HasSuffix(text, "\nshort"))
		}
		time.Sleep(time.Second) // for the client's stalled writes
	})
}
