// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
)

func TestBufferReply(t *testing.T) {
	var kept latest
	var h *BufferReply
	var p *Proxy
	var arrived atomic.Int32
	onBoth(t, func(s *site) http.Handler {
		s.origin("10.1.0.1:80", func(w http.ResponseWriter, r *http.Request) {
			flush := w.(http.Flusher).Flush
			n, _ := strconv.Atoi(r.URL.Query().Get("n"))
			if r.URL.Query().Has("known") {
				w.Header().Set("Content-Length", strconv.Itoa(n))
			}
			w.Header().Set("X-A", "b")
			switch r.URL.Path {
			case "/events":
				w.Header().Set("Content-Type", "text/event-stream")
			case "/unbuffered":
				w.Header().Set("X-Accel-Buffering", "no")
			case "/trailer":
				w.Header().Set("Trailer", "X-End")
				defer w.Header().Set("X-End", "yes")
			}
			for left := n; left > 0; {
				m := min(left, 10_000)
				_, _ = io.WriteString(w, strings.Repeat("a", m))
				flush()
				left -= m
				if left > 0 {
					time.Sleep(time.Second)
				}
			}
			switch r.URL.Path {
			case "/stalled":
				time.Sleep(time.Hour)
			case "/cut":
				panic(http.ErrAbortHandler)
			}
			arrived.Add(1)
		})
		p = s.proxy("10.1.0.1:80")
		h = &BufferReply{MaxBytes: 100_000, Next: p}
		return HandlerFunc(func(x *Exchange) {
			x.OnReply(ReplyFunc(func(_ *Exchange, r *Reply) {
				r.Header.Set("X-Edited", r.Header.Get("X-A"))
				if x.Path == "/filtered" {
					r.FilterBody(func(b io.Reader) io.Reader { return io.MultiReader(strings.NewReader("<"), b, strings.NewReader(">")) })
				}
			}))
			Serve(h, x)
			kept.set(x.Record)
		})
	}, func(s *site) {
		t := s.T
		first := func(path string) (*http.Response, time.Duration) { // and when its first byte came
			start := time.Now()
			resp, err := s.client.Get("http://10.0.0.1" + path)
			require.NoError(t, err)
			_, err = resp.Body.Read(make([]byte, 1))
			require.NoError(t, err)
			return resp, time.Since(start)
		}
		whole := func(path string, n int, after time.Duration) *http.Response {
			t.Helper()
			resp, took := first(path)
			rest, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			resp.Body.Close()
			require.Equal(t, 200, resp.StatusCode)
			require.Equal(t, "b", resp.Header.Get("X-Edited"))
			require.Len(t, rest, n-1)
			require.Equal(t, after, took)
			synctest.Wait()
			require.Zero(t, h.Held())
			require.True(t, completed(kept.get().Termination))
			require.Equal(t, int64(n), kept.get().BytesOut)
			return resp
		}
		resp := whole("/?n=50000", 50_000, 4*time.Second)
		require.Equal(t, int64(50_000), resp.ContentLength, "it is known now")
		whole("/?n=50000&known", 50_000, 4*time.Second)
		whole("/?n=100000", 100_000, 9*time.Second)
		whole("/?n=150000", 150_000, 10*time.Second) // as soon as the bound is reached
		whole("/?n=150000&known", 150_000, 0)
		whole("/events?n=50000", 50_000, 0)
		whole("/unbuffered?n=50000", 50_000, 0)
		whole("/filtered?n=20000", 20_002, time.Second)
		whole("/filtered?n=150000", 150_002, 10*time.Second)
		resp = whole("/trailer?n=20000", 20_000, time.Second)
		require.Equal(t, "yes", resp.Trailer.Get("X-End"))
		a := s.get("/?n=50000&known", "Method", "HEAD")
		require.Equal(t, 200, a.StatusCode)
		require.Equal(t, int64(50_000), a.ContentLength)

		for _, known := range []string{"", "&known"} {
			start := time.Now()
			a = s.get("/stalled?n=50000" + known)
			took := time.Since(start)
			synctest.Wait()
			if known == "" {
				require.Equal(t, 504, a.StatusCode)
				require.InDelta(t, 38, took.Seconds(), 8) // deadlines are coarse
				require.Equal(t, endOf(l4.ServerTimeout, l4.PhaseData), kept.get().Termination)
				require.ErrorContains(t, kept.get().Err, "BufferReply.Timeout of 30s")
			} else {
				require.Equal(t, 200, a.StatusCode, "all is there")
			}
			if known == "" {
				a = s.get("/cut?n=50000")
				synctest.Wait()
				require.Equal(t, 502, a.StatusCode)
				require.Equal(t, endOf(l4.ServerAborted, l4.PhaseData), kept.get().Termination)
			}
			require.Zero(t, h.Held())
			for sv := range p.Pool.All() {
				require.Zero(t, sv.InFlight())
			}
		}
		time.Sleep(2 * time.Hour) // for the handlers
	})
}

// A client that does not read holds no server.
func TestBufferReplyFreesTheServer(t *testing.T) {
	var h *BufferReply
	var p *Proxy
	body := bytes.Repeat([]byte("0123456789abcdef"), 6<<20/16) // more than a client of HTTP/2 takes unasked
	onBoth(t, func(s *site) http.Handler {
		s.origin("10.1.0.1:80", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
			_, _ = w.Write(body)
		})
		p = s.proxy("10.1.0.1:80")
		h = &BufferReply{MaxBytes: 32 << 20, TotalBytes: 9 << 20, Next: p}
		return h
	}, func(s *site) {
		t := s.T
		load := func() (n int) {
			for sv := range p.Pool.All() {
				n += int(sv.InFlight())
			}
			return n
		}
		resp, err := s.client.Get("http://10.0.0.1/")
		require.NoError(t, err)
		synctest.Wait()
		require.Zero(t, load())
		require.EqualValues(t, len(body), h.Held(), "no more than it is")

		other, err := s.client.Get("http://10.0.0.1/") // for which there is no room
		require.NoError(t, err)
		synctest.Wait()
		require.Equal(t, 1, load())
		for _, r := range []*http.Response{resp, other} {
			got, err := io.ReadAll(r.Body)
			require.NoError(t, err)
			require.True(t, bytes.Equal(body, got))
			r.Body.Close()
		}
		synctest.Wait()
		require.Zero(t, load())
		require.Zero(t, h.Held())
	})
}

// The record says the same of a reply that was held back as of one that streamed by: a
// filter that fails is no fault of the client's, and what a client has not taken was not
// sent to it.
func TestBufferReplyRecord(t *testing.T) {
	const n = 8 << 20
	var kept latest
	onBoth(t, func(s *site) http.Handler {
		s.origin("10.1.0.1:80", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(n))
			_, _ = w.Write(make([]byte, n))
		})
		plain := s.proxy("10.1.0.1:80")
		held := &BufferReply{MaxBytes: n, Next: plain}
		return HandlerFunc(func(x *Exchange) {
			if strings.Contains(x.Query, "fails") {
				x.OnReply(ReplyFunc(func(_ *Exchange, r *Reply) {
					r.FilterBody(func(b io.Reader) io.Reader { return io.MultiReader(io.LimitReader(b, 2), failingReader{}) })
				}))
			}
			if strings.Contains(x.Query, "held") {
				Serve(held, x)
			} else {
				Serve(plain, x)
			}
			kept.set(x.Record)
		})
	}, func(s *site) {
		t := s.T
		for _, how := range []string{"plain", "held"} {
			resp, err := s.client.Get("http://10.0.0.1/?fails&" + how)
			if err == nil {
				_, err = io.ReadAll(resp.Body)
				resp.Body.Close()
			}
			require.Error(t, err)
			require.Equal(t, endOf(l4.ServerAborted, l4.PhaseData), kept.get().Termination, how)
			require.ErrorIs(t, kept.get().Err, errFilter, how)

			resp, err = s.client.Get("http://10.0.0.1/?" + how)
			require.NoError(t, err)
			time.Sleep(3 * time.Minute) // of a client that does not read
			resp.Body.Close()
			r := kept.get()
			require.Equal(t, l4.ClientTimeout, r.Termination.Cause, how)
			require.ErrorContains(t, r.Err, "Timeout of 30s exceeded: ", how)
			require.NotContains(t, r.Err.Error(), "\n", how)
			require.Less(t, r.BytesOut, int64(n)*3/4, how)
		}
	})
}

var errFilter = errors.New("the filter fails")

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errFilter }

// Replies that grow at the same time do not share the room so that none becomes whole: as
// many as there is room for free their servers, though their clients read nothing.
func TestBufferReplyGrowingTogether(t *testing.T) {
	const n, asked, room = 6 << 20, 8, 4
	var h *BufferReply
	var p *Proxy
	onBoth(t, func(s *site) http.Handler {
		s.origin("10.1.0.1:80", func(w http.ResponseWriter, _ *http.Request) {
			for range n / (64 << 10) {
				_, _ = w.Write(make([]byte, 64<<10))
				w.(http.Flusher).Flush()
				time.Sleep(10 * time.Millisecond)
			}
		})
		p = s.proxy("10.1.0.1:80")
		h = &BufferReply{MaxBytes: 8 << 20, TotalBytes: room*(8<<20) + asked*smallReply, Next: p}
		return h
	}, func(s *site) {
		t := s.T
		replies := make(chan *http.Response, asked)
		for range asked {
			go func() {
				resp, err := s.client.Get("http://10.0.0.1/")
				if err == nil {
					replies <- resp
				}
			}()
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		busy := 0
		for sv := range p.Pool.All() {
			busy += int(sv.InFlight())
		}
		require.Equal(t, asked-room, busy)
		for range asked {
			resp := <-replies
			got, err := io.Copy(io.Discard, resp.Body)
			require.NoError(t, err)
			require.EqualValues(t, n, got)
			resp.Body.Close()
		}
		synctest.Wait()
		require.Zero(t, h.Held())
	})
}

// A reply that breaks off after its head is not tried again, though nothing of it has
// reached the client.
func TestBufferedReplyIsNotTriedAgain(t *testing.T) {
	var asked atomic.Int32
	onBoth(t, func(s *site) http.Handler {
		asked.Store(0)
		half := func(w http.ResponseWriter, _ *http.Request) {
			asked.Add(1)
			w.Header().Set("Content-Length", "10")
			_, _ = io.WriteString(w, "half")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		s.origin("10.1.0.1:80", half)
		s.origin("10.1.0.2:80", half)
		p := s.proxy("10.1.0.1:80", "10.1.0.2:80")
		p.Retry = Retry{Tries: 3, Classes: append(DefaultRetryClasses(), balance.Protocol)}
		return &BufferReply{Next: p}
	}, func(s *site) {
		require.Equal(s, 502, s.get("/").StatusCode)
		require.EqualValues(s, 1, asked.Swap(0))
	})
}
