// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4/l4test"
)

// TestOwnWriterAnswersAsNetHTTP has what a random search has found: each handler's reply,
// what its calls return and whether another request follows are those of an http.Server.
func TestOwnWriterAnswersAsNetHTTP(t *testing.T) {
	const get, post, again = "GET /a HTTP/1.1\r\nHost: a.test\r\n\r\n", "POST /a HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello", "GET /b HTTP/1.1\r\nHost: a.test\r\n\r\n"
	cases := map[string]struct {
		request string
		handler func(w http.ResponseWriter, r *http.Request) string // what it returns is compared, too
	}{
		"a body cannot be read after a flush": {post, func(w http.ResponseWriter, r *http.Request) string {
			_ = http.NewResponseController(w).Flush()
			b, err := io.ReadAll(r.Body)
			return fmt.Sprint(string(b), err)
		}},
		"nor after more than is buffered": {post, func(w http.ResponseWriter, r *http.Request) string {
			_, _ = r.Body.Read(make([]byte, 2))
			_, _ = w.Write(make([]byte, 3000))
			b, err := io.ReadAll(r.Body)
			return fmt.Sprint(string(b), err)
		}},
		"but before that": {post, func(w http.ResponseWriter, r *http.Request) string {
			_, _ = w.Write(make([]byte, 2000))
			b, err := io.ReadAll(r.Body)
			return fmt.Sprint(string(b), err)
		}},
		"and with EnableFullDuplex": {post, func(w http.ResponseWriter, r *http.Request) string {
			rc := http.NewResponseController(w)
			_ = rc.EnableFullDuplex()
			_ = rc.Flush()
			b, err := io.ReadAll(r.Body)
			return fmt.Sprint(string(b), err)
		}},
		"and if the connection ends": {post, func(w http.ResponseWriter, r *http.Request) string {
			w.Header().Set("Connection", "close")
			_ = http.NewResponseController(w).Flush()
			b, err := io.ReadAll(r.Body)
			return fmt.Sprint(string(b), err)
		}},
		"and with HTTP/1.0 and no length": {strings.Replace(post, "1.1\r\n", "1.0\r\nConnection: keep-alive\r\n", 1), func(w http.ResponseWriter, r *http.Request) string {
			_ = http.NewResponseController(w).Flush()
			b, err := io.ReadAll(r.Body)
			return fmt.Sprint(string(b), err)
		}},
		"a prefixed trailer set after the first Write": {get, func(w http.ResponseWriter, r *http.Request) string {
			_, _ = io.WriteString(w, "body")
			w.Header().Set(http.TrailerPrefix+"X-Late", "8")
			return ""
		}},
		"a prefixed trailer set before": {get, func(w http.ResponseWriter, r *http.Request) string {
			w.Header().Set(http.TrailerPrefix+"X-Late", "8")
			_, _ = io.WriteString(w, "body")
			return ""
		}},
		"identity": {get, func(w http.ResponseWriter, r *http.Request) string {
			w.Header().Set("Transfer-Encoding", "identity")
			_, _ = io.WriteString(w, "body")
			return ""
		}},
		"a coding of transfer, and no body": {get, func(w http.ResponseWriter, r *http.Request) string {
			w.Header().Set("Transfer-Encoding", "gzip")
			return ""
		}},
		"a length next to a coding of transfer": {get, func(w http.ResponseWriter, r *http.Request) string {
			w.Header().Set("Transfer-Encoding", "chunked")
			w.Header().Set("Content-Length", "9")
			_, err := io.WriteString(w, "body")
			return fmt.Sprint(err)
		}},
		"more than the length": {get, func(w http.ResponseWriter, r *http.Request) string {
			w.Header().Set("Content-Length", "4")
			_, err := io.WriteString(w, "body")
			_, err2 := io.WriteString(w, "more")
			return fmt.Sprint(err, err2)
		}},
		"more than the length, to HEAD": {strings.Replace(get, "GET", "HEAD", 1), func(w http.ResponseWriter, r *http.Request) string {
			w.Header().Set("Content-Length", "2")
			_, err := io.WriteString(w, "body")
			return fmt.Sprint(err)
		}},
		"nothing, where there is no body": {get, func(w http.ResponseWriter, r *http.Request) string {
			w.WriteHeader(204)
			_, err := w.Write(nil)
			_, err2 := w.Write([]byte("x"))
			return fmt.Sprint(err, err2)
		}},
		"a status without a name": {get, func(w http.ResponseWriter, r *http.Request) string {
			w.WriteHeader(199)
			w.WriteHeader(599)
			return ""
		}},
		"Pragma": {"GET /a HTTP/1.1\r\nHost: a.test\r\nPragma: no-cache\r\n\r\n", func(w http.ResponseWriter, r *http.Request) string {
			return fmt.Sprint(r.Header)
		}},
		"an absolute target": {"GET http://b.test/a%20c?d=e HTTP/1.1\r\nHost: a.test\r\n\r\n", func(w http.ResponseWriter, r *http.Request) string {
			return fmt.Sprint(r.URL, r.Host)
		}},
		"Hijack after Write": {get, func(w http.ResponseWriter, r *http.Request) string {
			_, _ = io.WriteString(w, "lost")
			c, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_, _ = io.WriteString(c, "raw")
				_ = c.Close()
			}
			return fmt.Sprint(err)
		}},
		"Hijack after the body was closed": {post, func(w http.ResponseWriter, r *http.Request) string {
			_ = r.Body.Close()
			c, brw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return err.Error()
			}
			b := make([]byte, 5)
			_, err = io.ReadFull(brw, b)
			_ = c.Close()
			return fmt.Sprint(string(b), err)
		}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var said [2]bytes.Buffer
			var replies [2]string
			for i, native := range []bool{false, true} {
				replies[i], _ = rawReply(t, tc.request+again, func(*l4test.Network) (http.Handler, bool) {
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if r.URL.Path == "/b" {
							_, _ = io.WriteString(w, "again")
							return
						}
						said[i].WriteString(tc.handler(w, r))
					}), native
				})
			}
			require.Equal(t, replies[0], replies[1])
			require.Equal(t, said[0].String(), said[1].String())
		})
	}
}

// A trailer is there once, however often the end of the body is read.
func TestOwnBodyTellsTheTrailerOnce(t *testing.T) {
	onBoth(t, func(*site) http.Handler {
		return &Wrap{Next: &FixedReply{}, With: func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				for range 3 {
					_, _ = io.Copy(io.Discard, r.Body)
				}
				fmt.Fprint(w, r.Trailer)
			})
		}}
	}, func(s *site) {
		req, err := http.NewRequest("POST", "http://10.0.0.1/", io.MultiReader(strings.NewReader("body")))
		require.NoError(s, err)
		req.Trailer = http.Header{"X-Sum": {"7"}}
		resp, err := s.client.Do(req)
		require.NoError(s, err)
		b, err := io.ReadAll(resp.Body)
		require.NoError(s, err)
		resp.Body.Close()
		require.Equal(s, "map[X-Sum:[7]]", string(b))
	})
}

// A goroutine of the middleware may read the body while the handler inside does, as with
// net/http: each byte goes to one of the two, and the next request is whole.
func TestOwnBodyIsReadByTwo(t *testing.T) {
	body := strings.Repeat("0123456789", 1000)
	var inside, outside int
	reply, _ := rawReply(t, fmt.Sprintf("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: %d\r\n\r\n%sGET /next HTTP/1.1\r\nHost: a.test\r\n\r\n", len(body), body), func(*l4test.Network) (http.Handler, bool) {
		begun := make(chan struct{}, 2)
		next := HandlerFunc(func(x *Exchange) {
			begun <- struct{}{}
			b := make([]byte, 7)
			for n, err := 0, error(nil); err == nil; inside += n {
				n, err = x.Body().Read(b)
			}
			x.Respond(200, nil, x.Path)
		})
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var wg sync.WaitGroup
			if r.ContentLength > 0 {
				wg.Go(func() {
					<-begun
					b := make([]byte, 5)
					for {
						n, err := r.Body.Read(b)
						if outside += n; err != nil {
							return
						}
					}
				})
			}
			next.ServeHTTP(w, r)
			wg.Wait()
		}), true
	})
	require.Equal(t, len(body), inside+outside)
	require.Contains(t, reply, "\r\n\r\n/next")
}

// What a goroutine of the handler still calls when that has returned touches nothing; until
// then it is the handler's.
func TestOwnWriterIsOverWhenTheHandlerReturns(t *testing.T) {
	name := filepath.Join(t.TempDir(), "late")
	require.NoError(t, os.WriteFile(name, []byte("late"), 0o600))
	const requests = 200
	reply, _ := rawReply(t, strings.Repeat("GET /a HTTP/1.1\r\nHost: a.test\r\n\r\n", requests), func(*l4test.Network) (http.Handler, bool) {
		n := 0
		return &EditHeader{Reply: []FieldEdit{SetField{Name: "X-Edit", Value: "1"}}, Next: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n++
			times := n
			go func() {
				for range times {
					runtime.Gosched()
				}
				f, err := os.Open(name)
				if err != nil {
					return
				}
				defer f.Close()
				_, _ = w.(io.ReaderFrom).ReadFrom(f)
				_, _ = io.WriteString(w, "late")
			}()
		})}, true
	})
	br := bufio.NewReader(strings.NewReader(reply))
	for range requests {
		resp, err := http.ReadResponse(br, nil)
		require.NoError(t, err)
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Contains(t, []string{"", "late", "latelate"}, string(b))
	}
	require.Zero(t, br.Buffered())
}
