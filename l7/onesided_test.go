// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"io"
	"net/http"
	"testing"
	"time"
)

// A call of gRPC on which only one side speaks is not quiet, and what the other side
// says later arrives.
func TestOneSidedCalls(t *testing.T) {
	const pause = 40 * time.Minute
	speak := func(w io.Writer, s string) {
		for i := range len(s) {
			time.Sleep(pause)
			_, _ = io.WriteString(w, s[i:i+1])
			if f, ok := w.(http.Flusher); ok {
				f.Flush()
			}
		}
	}
	for _, tc := range []struct{ name, client, server string }{
		{"the client speaks", "abcd", ""},
		{"the server speaks", "", "abcd"},
		{"each in turn", "a", "abc"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			callers(t, nil, func(t *testing.T, f *front) {
				heard := make(chan string, 1)
				startOrigin(t, f.network, one, nil, true, func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Content-Type", "application/grpc")
					w.Header().Set("Trailer", "Grpc-Status")
					w.(http.Flusher).Flush()
					speak(w, tc.server)
					b, err := io.ReadAll(r.Body)
					if err != nil {
						t.Errorf("the server has read %q: %v", b, err)
					}
					heard <- string(b)
					w.Header().Set("Grpc-Status", "0")
				})
				body, write := io.Pipe()
				go func() {
					speak(write, tc.client)
					time.Sleep(time.Duration(len(tc.server)) * pause)
					_, _ = io.WriteString(write, ".")
					write.Close()
				}()
				a := f.call(t, body)
				if a.body != tc.server || a.code != "0" || a.err != nil {
					t.Errorf("the client got %+v; want %q", a, tc.server)
				}
				if got := <-heard; got != tc.client+"." {
					t.Errorf("the server got %q; want %q", got, tc.client+".")
				}
				time.Sleep(time.Hour)
			})
		})
	}
}

// Both sides of a call are silent: that ends it, however the last word came.
func TestSilentCalls(t *testing.T) {
	for _, client := range []bool{false, true} {
		callers(t, nil, func(t *testing.T, f *front) {
			startOrigin(t, f.network, one, nil, true, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/grpc")
				w.(http.Flusher).Flush()
				if !client {
					time.Sleep(30 * time.Minute)
					_, _ = io.WriteString(w, "x")
					w.(http.Flusher).Flush()
				}
				<-r.Context().Done()
			})
			body, write := io.Pipe()
			go func() {
				if client {
					time.Sleep(30 * time.Minute)
					_, _ = io.WriteString(write, "x")
				}
			}()
			start := time.Now()
			a := f.call(t, body)
			write.Close()
			if d := time.Since(start); a.code == "0" || d < 90*time.Minute || d > 2*time.Hour {
				t.Errorf("client %v: %+v after %v", client, a, d)
			}
			time.Sleep(time.Hour)
		})
	}
}

// A request body that fails behind the head of the reply ends the exchange: what the
// client sends later would be lost.
func TestRequestFailsBehindTheHead(t *testing.T) {
	everyWay(t, nil, func(t *testing.T, f *front, h2server bool) {
		startOrigin(t, f.network, one, nil, h2server, func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).EnableFullDuplex()
			w.(http.Flusher).Flush()
			for range 20 {
				time.Sleep(10 * time.Second)
				if _, err := io.WriteString(w, "x"); err != nil {
					return
				}
				w.(http.Flusher).Flush()
			}
		})
		body, write := io.Pipe()
		go func() { _, _ = io.WriteString(write, "one") }()
		req, _ := http.NewRequest("POST", "http://a.test/", body)
		res, err := f.client.Do(req)
		if err == nil {
			var b []byte
			b, err = io.ReadAll(res.Body)
			res.Body.Close()
			if err == nil {
				t.Errorf("got %d %q as if all was well", res.StatusCode, b)
			}
		}
		write.Close()
		if r := f.last(t); r.Termination.String() != "cD" {
			t.Errorf("ended with %v, %v; want cD", r.Termination, r.Err)
		}
		time.Sleep(time.Minute)
	})
}
