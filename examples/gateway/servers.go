// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// A webServer is one of the three HTTP servers behind the gateway. It says who
// it is and what reached it, and can be made to fail for a while.
type webServer struct {
	name   string
	broken time.Duration // how long POST /break lasts

	until atomic.Int64 // broken until then, in Unix nanoseconds
}

func (s *webServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Server", s.name)
	switch {
	case r.URL.Path == "/break" && r.Method == http.MethodPost:
		s.until.Store(time.Now().Add(s.broken).UnixNano())
		fmt.Fprintf(w, "%s: I fail for %v from now on\n", s.name, s.broken)
	case time.Now().UnixNano() < s.until.Load():
		http.Error(w, s.name+": I am broken", http.StatusServiceUnavailable)
	case r.URL.Path == "/healthy":
		fmt.Fprintln(w, "yes")
	default:
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%s: %s %s%s, %d bytes, for %s\n", s.name, r.Method, r.Host, r.URL, n, r.Header.Get("X-Forwarded-For"))
	}
}

// A lineServer is the TCP server behind the gateway: it greets, sends each line
// back, and hangs up after "bye".
type lineServer struct{ name string }

// Serve serves ln until ctx is done, and returns when its connections are closed.
func (s lineServer) Serve(ctx context.Context, ln net.Listener) {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		wg.Go(func() {
			defer c.Close()
			defer context.AfterFunc(ctx, func() { c.Close() })()
			fmt.Fprintf(c, "%s: say something, or bye\n", s.name)
			for lines := bufio.NewScanner(c); lines.Scan(); {
				fmt.Fprintf(c, "%s: %s\n", s.name, lines.Text())
				if lines.Text() == "bye" {
					return
				}
			}
		})
	}
}
