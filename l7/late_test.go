// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// slowBody gives its pieces a second apart.
type slowBody struct{ pieces []string }

func (b *slowBody) Read(p []byte) (int, error) {
	if len(b.pieces) == 0 {
		return 0, io.EOF
	}
	time.Sleep(time.Second)
	n := copy(p, b.pieces[0])
	b.pieces = b.pieces[1:]
	return n, nil
}

// The goroutine of an http.Transport that reads a request body can outlive its
// handler. It gets an error then, and nothing of a later request.
func TestBodyIsNotReadBehindItsHandler(t *testing.T) {
	for _, native := range []bool{false, true} {
		name := map[bool]string{true: "native", false: "foreign"}[native]
		t.Run(name, func(t *testing.T) {
			var got chan string
			var late chan struct{}
			first, inFlight := true, false
			serve := func(s *site, r *http.Request) {
				if !first {
					b, _ := io.ReadAll(r.Body)
					got <- "second " + string(b)
					return
				}
				first = false
				reading := make(chan struct{})
				go func() {
					b := make([]byte, 100)
					n, _ := r.Body.Read(b)
					close(reading)
					m, err := 0, io.EOF
					if inFlight {
						m, err = r.Body.Read(b[n:]) // under way as the handler returns
					}
					<-late
					k, err2 := r.Body.Read(b[n+m:]) // behind it
					if !s.byByte && native {
						k, err2 = 0, io.EOF // net/http's own
					}
					if err == nil || err2 == nil {
						got <- "late " + string(b[:n+m+k])
					}
					got <- "ended " + string(b[:n])
				}()
				<-reading
			}
			onBoth(t, func(s *site) http.Handler {
				got, late, first = make(chan string, 3), make(chan struct{}), true
				inFlight = s.byByte && s.http2 // else the connection is busy with the read
				if native {
					return HandlerFunc(func(x *Exchange) {
						serve(s, x.Request())
						x.Respond(200, nil, "")
					})
				}
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { serve(s, r) })
			}, func(s *site) {
				send := func(b io.Reader) {
					req, err := http.NewRequest("POST", "http://10.0.0.1/", b)
					require.NoError(s, err)
					resp, err := s.client.Do(req)
					if err == nil {
						_, _ = io.Copy(io.Discard, resp.Body)
						_ = resp.Body.Close()
					}
				}
				send(&slowBody{[]string{"first", "rest", "more", "end"}})
				synctest.Wait()
				close(late)
				send(strings.NewReader("secret"))
				for range 2 {
					select {
					case g := <-got:
						require.Contains(s, []string{"second secret", "ended first"}, g)
					case <-time.After(time.Minute):
						s.Fatal("the reader hangs")
					}
				}
				time.Sleep(10 * time.Second) // until the client's own body has ended
			})
		})
	}
}
