// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// What a foreign handler's writer is asked behind the handler reaches no other
// exchange.
func TestWriterIsNotUsedBehindItsHandler(t *testing.T) {
	var kept http.ResponseWriter
	onBoth(t, func(s *site) http.Handler {
		kept = nil
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if u, ok := w.(interface{ Unwrap() http.ResponseWriter }); ok && kept == nil {
				kept = u.Unwrap()
				return
			}
			if own, ok := kept.(*ownWriter); ok {
				_, err := own.Write([]byte("secret of another"))
				require.ErrorIs(s, err, errReturned)
				_, err = own.WriteString("x")
				require.ErrorIs(s, err, errReturned)
				require.ErrorIs(s, own.FlushError(), errReturned)
				require.ErrorIs(s, own.SetReadDeadline(past), errReturned)
				require.ErrorIs(s, own.SetWriteDeadline(past), errReturned)
				_, _, err = own.Hijack()
				require.ErrorIs(s, err, errReturned)
				own.WriteHeader(103)
				own.Flush()
			}
			_, _ = io.WriteString(w, "mine")
		})
	}, func(s *site) {
		require.Equal(s, 200, s.get("/").StatusCode)
		require.Equal(s, "mine", s.get("/").body)
	})
}

// The goroutine of an http.Transport that still reads the body of Exchange.Request
// is out of the way when the reply begins, in whose framing the body has a part.
func TestReplyEndsReadsOfTheBody(t *testing.T) {
	for _, filtered := range []bool{false, true} {
		onBoth(t, func(s *site) http.Handler {
			return HandlerFunc(func(x *Exchange) {
				if filtered {
					x.FilterBody(func(r io.Reader) io.Reader { return r })
				}
				body := x.Request().Body
				read := make(chan error, 1)
				go func() {
					_, err := io.ReadAll(body)
					read <- err
				}()
				time.Sleep(time.Second)
				require.Empty(s, read)
				x.Respond(200, nil, "early")
				if s.byByte {
					require.False(s, x.lent.begin(), "the loan has ended")
					require.Error(s, <-read)
					n, err := body.Read(make([]byte, 1))
					require.Zero(s, n)
					require.Error(s, err)
				}
			})
		}, func(s *site) {
			pr, pw := io.Pipe()
			defer pw.Close()
			go func() { _, _ = pw.Write([]byte("some")) }()
			req, err := http.NewRequest("POST", "http://10.0.0.1/", pr)
			require.NoError(s, err)
			resp, err := s.client.Do(req)
			require.NoError(s, err)
			b, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			require.Equal(s, "early", string(b))
			_ = pw.Close()
			synctest.Wait()
		})
	}
}

// A body filter may answer as it is read.
func TestFilterAnswersAsItIsRead(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		return HandlerFunc(func(x *Exchange) {
			x.FilterBody(func(r io.Reader) io.Reader {
				return readerFunc(func(p []byte) (int, error) {
					n, err := r.Read(p)
					x.Respond(http.StatusForbidden, nil, "no")
					return n, err
				})
			})
			_, _ = io.Copy(io.Discard, x.Request().Body)
		})
	}, func(s *site) {
		a, err := s.ask(s.client, "/", "body")
		require.NoError(s, err)
		require.Equal(s, http.StatusForbidden, a.StatusCode)
	})
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
