// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// The log names a func, and not only the type that most middleware has.
func TestHandlersAreNamed(t *testing.T) {
	middleware := func(http.Handler) http.Handler {
		return http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	}
	require.Contains(t, handlerName(middleware(nil)), "http.HandlerFunc github.com/penstock-lb/penstock/l7.TestHandlersAreNamed")
	require.Equal(t, "http.HandlerFunc net/http.NotFound", handlerName(http.HandlerFunc(http.NotFound)))
	require.Equal(t, "*http.ServeMux", handlerName(http.NewServeMux()))
}

// Middleware that is in a Wrap already is not told to go there: the log says why the
// connection moves all the same, and what helps. A long body that native handlers inside
// read is no reason, whatever the middleware does with the ResponseWriter.
func TestLogSaysWhyAWrappedHandlerMoves(t *testing.T) {
	logger := middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(struct{ http.ResponseWriter }{w}, r)
	})
	read := func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }
	native := HandlerFunc(func(x *Exchange) {
		_, _ = io.Copy(io.Discard, x.Body())
		x.Respond(200, nil, "")
	})
	mux := http.NewServeMux()
	mux.HandleFunc("/", read)
	for _, test := range []struct {
		name    string
		h       http.Handler
		expect  bool
		want    []string // none: it stays
		handler string
	}{
		{"foreign", http.HandlerFunc(read), false, []string{"long body", "l7.Wrap"}, "TestLogSays"},
		{"around the tree", logger(native), false, []string{"long body", "l7.Wrap"}, "middleware"},
		{"in a Wrap", &Wrap{With: logger, Next: native}, false, nil, ""},
		{"in a Wrap, waiting for 100", &Wrap{With: logger, Next: native}, true, []string{"in a Wrap is not native", "waits for a 100", "Server.OnDone", "l7.LogTo"}, "middleware"},
		{"two", &Wrap{With: logger, Next: &Wrap{With: logger, Next: mux}}, true, []string{"in a Wrap is not native", "waits for a 100", "l7.LogTo"}, "middleware"},
		{"before a ServeMux", &Wrap{With: logger, Next: mux}, false, []string{"Next that is not native", "long body"}, "middleware"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				s := newSite(t, false)
				s.serve(&Server{Handler: test.h, Logger: slog.New(slog.NewTextHandler(&log, nil))})
				req, err := http.NewRequest("POST", "http://10.0.0.1/", strings.NewReader(strings.Repeat("x", 1<<20)))
				require.NoError(t, err)
				if test.expect {
					req.Header.Set("Expect", "100-continue")
				}
				resp, err := s.client.Do(req)
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
				require.Equal(t, 200, resp.StatusCode)
				synctest.Wait()
				if test.want == nil {
					require.Empty(t, log.String())
					return
				}
				for _, part := range append(test.want, test.handler) {
					require.Contains(t, log.String(), part)
				}
			})
		})
	}
}

// Check cannot see into a ServeMux; what is wrong there is answered with 500.
func TestCheckDoesNotSeeIntoAServeMux(t *testing.T) {
	mux := http.NewServeMux()
	mux.Handle("/", &Proxy{})
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, false)
		srv := &Server{Handler: mux, Logger: slog.New(slog.DiscardHandler)}
		require.NoError(t, srv.Check())
		s.serve(srv)
		require.Equal(t, 500, s.get("/").StatusCode)
	})
	require.Error(t, new(Proxy).Check())
}
