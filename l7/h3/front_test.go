// SPDX-License-Identifier: Apache-2.0

package h3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7"
)

func TestRequest(t *testing.T) {
	inWorld(t, echo, nil, func(w *world) {
		c := w.client()
		res, body := w.get(c, "/a?b=c")
		require.Equal(t, 200, res.StatusCode)
		require.Equal(t, "HTTP/3.0", res.Proto)
		require.Equal(t, int64(len(body)), res.ContentLength)
		require.Equal(t, "GET gateway.example/a?b=c ", body)
		_, body = w.do(c, w.request("POST", "/p", strings.NewReader("hello")))
		require.Equal(t, "POST gateway.example/p hello", body)
		r := w.record(0)
		require.Equal(t, l7.FrontHTTP3, r.Front)
		require.Equal(t, "HTTP/3.0", r.Proto)
		require.Equal(t, "/a", r.Path)
		require.Equal(t, "10.0.1.1:5000", r.Remote.String())
		require.Equal(t, "10.0.0.1:443", r.Local.String())
		require.Equal(t, int64(len("GET gateway.example/a?b=c ")), r.BytesOut)
		require.Equal(t, int64(5), w.record(1).BytesIn)
		line := string(r.AppendCLF(nil))
		require.Contains(t, line, `"GET /a?b=c HTTP/3.0" 200 26`)
		st := w.srv.Stats()
		require.Equal(t, uint64(1), st.Handshakes)
		require.Equal(t, 1, st.Open)
		require.Equal(t, uint64(2), st.Requests.Total())
	})
}

// What a server sends arrives: interim replies, body, trailer, each way.
func TestProxy(t *testing.T) {
	long := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
	origin := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("Trailer", "X-Sum")
		b, err := io.ReadAll(r.Body)
		if err != nil {
			panic(err)
		}
		_, _ = w.Write(b)
		w.Header().Set("X-Sum", r.Trailer.Get("X-Check")+" "+r.Header.Get("X-Forwarded-For")+" "+r.Proto)
	})
	inWorld(t, func(w *world) http.Handler { return w.proxy(origin) }, nil, func(w *world) {
		req := w.request("POST", "/", struct{ io.Reader }{bytes.NewReader(long)})
		req.Trailer = http.Header{"X-Check": {"checked"}}
		var hints textproto.MIMEHeader
		req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			require.Equal(t, 103, code)
			hints = h
			return nil
		}}))
		res, body := w.do(w.client(), req)
		require.Equal(t, string(long), body)
		require.Equal(t, "</style.css>", hints.Get("Link"))
		require.Equal(t, "checked 10.0.1.1 HTTP/1.1", res.Trailer.Get("X-Sum"))
		r := w.record(0)
		require.Equal(t, int64(len(long)), r.BytesIn)
		require.Equal(t, int64(len(long)), r.BytesOut)
		require.Positive(t, r.FirstByte)
		require.Equal(t, "10.0.0.2:80", r.Server)
	})
}

// A handler of net/http sees what it would see under net/http.
func TestForeign(t *testing.T) {
	h := func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/guess":
			_, _ = io.WriteString(w, "<html>")
		case "/nothing":
			w.WriteHeader(http.StatusNoContent)
		case "/short":
			w.Header().Set("Content-Length", "10")
			_, _ = io.WriteString(w, "few")
		case "/panic":
			_, _ = io.WriteString(w, strings.Repeat("x", 10_000))
			panic(http.ErrAbortHandler)
		case "/trailer":
			_, _ = io.WriteString(w, "body")
			w.Header().Set(http.TrailerPrefix+"X-Late", "late")
		case "/connection":
			w.Header().Set("Connection", "close")
			w.Header().Set("X-Odd", "a\r\nb")
			w.Header().Set("X-Good", "good")
		case "/expect":
			b, _ := io.ReadAll(r.Body)
			_, _ = w.Write(b)
		case "/duplex":
			require.NoError(t, http.NewResponseController(w).EnableFullDuplex())
			b := make([]byte, 1)
			for {
				if _, err := io.ReadFull(r.Body, b); err != nil {
					return
				}
				_, _ = w.Write(b)
				_ = http.NewResponseController(w).Flush()
			}
		}
	}
	inWorld(t, foreign(h), nil, func(w *world) {
		c := w.client()
		res, body := w.get(c, "/guess")
		require.Equal(t, "text/html; charset=utf-8", res.Header.Get("Content-Type"))
		require.NotEmpty(t, res.Header.Get("Date"))
		require.Equal(t, "<html>", body)
		res, _ = w.do(c, w.request("HEAD", "/guess", nil))
		require.Equal(t, 200, res.StatusCode)
		res, _ = w.get(c, "/nothing")
		require.Equal(t, 204, res.StatusCode)
		require.Empty(t, res.Header["Content-Length"])
		res, _ = w.get(c, "/trailer")
		require.Equal(t, "late", res.Trailer.Get("X-Late"))
		res, _ = w.get(c, "/connection")
		require.Empty(t, res.Header["Connection"])
		require.Equal(t, "good", res.Header.Get("X-Good"))
		for _, path := range []string{"/short", "/panic"} {
			res, err := c.RoundTrip(w.request("GET", path, nil))
			if err == nil {
				_, err = io.ReadAll(res.Body)
			}
			var e *http3.Error
			require.ErrorAs(t, err, &e, path)
			require.Equal(t, http3.ErrCodeInternalError, e.ErrorCode, path)
		}
		req := w.request("POST", "/expect", strings.NewReader("expected"))
		req.Header.Set("Expect", "100-continue")
		_, body = w.do(c, req)
		require.Equal(t, "expected", body)

		str, err := c.OpenRequestStream(w.Context())
		require.NoError(t, err)
		duplex := w.request("REPORT", "/duplex", nil) // a POST would say that its length is 0
		require.NoError(t, str.SendRequestHeader(duplex))
		for i, b := range []byte("abc") {
			_, err = str.Write([]byte{b})
			require.NoError(t, err)
			if i == 0 {
				_, err = str.ReadResponse()
				require.NoError(t, err)
			}
			got := make([]byte, 1)
			_, err = io.ReadFull(str, got)
			require.NoError(t, err)
			require.Equal(t, b, got[0])
		}
		require.NoError(t, str.Close())
		_, err = str.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err)
	})
}

// An idle connection ends by GOAWAY, and a long one keeps going by PING.
func TestTimeouts(t *testing.T) {
	h := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/long" {
			time.Sleep(10 * time.Minute)
		}
	}
	inWorld(t, foreign(h), nil, func(w *world) {
		c := w.client()
		begin := time.Now()
		w.get(c, "/long")
		require.Less(t, time.Since(begin), 11*time.Minute)
		begin = time.Now()
		<-c.Context().Done()
		require.InDelta(t, 60, time.Since(begin).Seconds(), 2)
		require.Equal(t, uint64(1), w.front.Stats().GoAways)
		time.Sleep(time.Second)
		require.Zero(t, w.srv.Open())
	})
}

// Shutdown lets every request that it has accepted end, and tells clients which it has
// not.
func TestShutdownUnderLoad(t *testing.T) {
	h := func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(100 * time.Millisecond)
		_, _ = io.WriteString(w, r.URL.Path)
	}
	for _, lame := range []time.Duration{0, time.Second} {
		inWorld(t, foreign(h), func(s *l7.Server, _ *Front) { s.LameDuck = lame }, func(w *world) {
			var clients sync.WaitGroup
			var mu sync.Mutex
			served, refused := 0, 0
			for range 5 {
				c := w.client()
				for i := range 4 {
					clients.Go(func() {
						time.Sleep(time.Duration(i) * 13 * time.Millisecond)
						for n := 0; ; n++ {
							path := fmt.Sprintf("/%d/%d", i, n)
							res, err := c.RoundTrip(w.request("GET", path, nil))
							var body []byte
							if err == nil {
								body, err = io.ReadAll(res.Body)
							}
							mu.Lock()
							if err == nil {
								require.Equal(t, path, string(body))
								served++
							} else {
								refused++
							}
							mu.Unlock()
							if err != nil {
								var e *http3.Error
								var app *quic.ApplicationError
								switch {
								case errors.As(err, &e):
									require.Contains(t, []http3.ErrCode{http3.ErrCodeRequestRejected, http3.ErrCodeNoError}, e.ErrorCode)
								case errors.As(err, &app):
									require.Equal(t, quic.ApplicationErrorCode(codeNoError), app.ErrorCode)
								default:
									require.ErrorContains(t, err, "graceful shutdown")
								}
								return
							}
						}
					})
				}
			}
			time.Sleep(time.Second)
			begin := time.Now()
			require.NoError(t, w.srv.Shutdown(w.context(time.Minute)))
			require.Less(t, time.Since(begin), lame+2*time.Second)
			clients.Wait()
			require.Equal(t, 20, refused)
			require.Equal(t, uint64(served), w.srv.Stats().Requests.Total())
			require.Zero(t, w.srv.Open())
		})
	}
}

// When the context of Shutdown ends, what is left is cut, and recorded so.
func TestShutdownCuts(t *testing.T) {
	h := func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	inWorld(t, foreign(h), nil, func(w *world) {
		res, err := w.client().RoundTrip(w.request("GET", "/", nil))
		require.NoError(t, err)
		require.ErrorIs(t, w.srv.Shutdown(w.context(time.Second)), context.DeadlineExceeded)
		_, err = io.ReadAll(res.Body)
		require.Error(t, err)
		require.Equal(t, l4.Killed, w.record(0).Termination.Cause)
	})
}

// A front that stops alone leaves its Server serving, and is not announced any more.
func TestFrontStopsAlone(t *testing.T) {
	inWorld(t, echo, nil, func(w *world) {
		c := w.client()
		w.get(c, "/")
		require.NoError(t, w.front.Shutdown(w.Context()))
		require.ErrorIs(t, <-w.ended, l7.ErrServerClosed)
		w.ended <- l7.ErrServerClosed
		require.ErrorIs(t, w.front.ServeTLS(w.endpoint(gateway), "", ""), l7.ErrServerClosed)
		require.NoError(t, w.front.Close())
	})
}

func TestMaxRequests(t *testing.T) {
	inWorld(t, echo, func(s *l7.Server, _ *Front) { s.MaxRequests = 2 }, func(w *world) {
		c := w.client()
		w.get(c, "/1")
		w.get(c, "/2")
		time.Sleep(100 * time.Millisecond) // for the GOAWAY
		_, err := c.RoundTrip(w.request("GET", "/3", nil))
		require.ErrorContains(t, err, "graceful shutdown")
		<-c.Context().Done()
		require.Equal(t, uint64(2), w.srv.Stats().Requests.Total())
	})
}

func TestMaxConns(t *testing.T) {
	inWorld(t, echo, func(s *l7.Server, _ *Front) { s.MaxConns = 1 }, func(w *world) {
		c := w.client()
		_, err := w.socket().Dial(w.Context(), gateway, w.tls(), nil)
		var te *quic.TransportError
		require.ErrorAs(t, err, &te)
		require.Equal(t, quic.ConnectionRefused, te.ErrorCode)
		require.Positive(t, w.front.Stats().Refused)
		_ = c.CloseWithError(0, "")
		time.Sleep(time.Second)
		w.get(w.client(), "/")
	})
}
