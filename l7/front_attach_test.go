// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
)

// fakeFront notes how it was stopped.
type fakeFront struct {
	shutdown func(ctx context.Context) error
	closed   int
}

func (f *fakeFront) Shutdown(ctx context.Context) error { return f.shutdown(ctx) }
func (f *fakeFront) Close() error                       { f.closed++; return errors.New("odd") }

// Shutdown waits for attached fronts, and Close closes them.
func TestAttachStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &Server{Handler: &FixedReply{}}
		f := &fakeFront{shutdown: func(context.Context) error { time.Sleep(time.Minute); return nil }}
		a, err := srv.Attach(f)
		require.NoError(t, err)
		begin := time.Now()
		require.NoError(t, srv.Shutdown(t.Context()))
		require.Equal(t, time.Minute, time.Since(begin))

		f.shutdown = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, srv.Shutdown(ctx), context.DeadlineExceeded)
		require.ErrorContains(t, srv.Close(), "odd")
		require.Equal(t, 1, f.closed)

		a.Detach()
		a.Detach()
		require.NoError(t, srv.Close())
		require.Equal(t, 1, f.closed)
		_, err = srv.Attach(f)
		require.ErrorIs(t, err, ErrServerClosed)
		_, err = (&Server{Handler: &Proxy{}}).Attach(f)
		require.ErrorContains(t, err, "Server.Handler.Proxy.Pool")

		srv = new(Server)
		f.shutdown = func(context.Context) error { panic("odd") }
		_, err = srv.Attach(f)
		require.NoError(t, err)
		require.ErrorContains(t, srv.Shutdown(t.Context()), "panic: odd")
	})
}

// The replies over TLS say where else the server is, as long as a front says so.
func TestAnnounce(t *testing.T) {
	own := HandlerFunc(func(x *Exchange) {
		f := MakeFields("Alt-Svc", "clear")
		x.Respond(200, &f, "")
	})
	foreign := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("foreign")) })
	h := NewRouter(Route{Match: Path("/own"), Handler: own}, Route{Match: Path("/foreign"), Handler: foreign}, Route{Handler: &FixedReply{}})
	srv := &Server{Handler: h}
	a, err := srv.Attach(&fakeFront{shutdown: func(context.Context) error { return nil }})
	require.NoError(t, err)
	b, err := srv.Attach(&fakeFront{shutdown: func(context.Context) error { return nil }})
	require.NoError(t, err)
	ts := httptest.NewUnstartedServer(nil)
	ts.StartTLS()
	defer ts.Close()
	srv.TLSConfig = ts.TLS.Clone()
	srv.TLSConfig.NextProtos = nil
	network := l4test.NewNetwork()
	ln, err := network.Listen("tcp", "10.0.0.1:443")
	require.NoError(t, err)
	bare, err := network.Listen("tcp", "10.0.0.1:80")
	require.NoError(t, err)
	go func() { _ = srv.ServeTLS(ln, "", "") }()
	go func() { _ = srv.Serve(bare) }()
	defer srv.Close()
	for _, http2 := range []bool{true, false} {
		tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return network.DialContext(ctx, "tcp", "10.0.0.1:443")
		}, TLSClientConfig: ts.Client().Transport.(*http.Transport).TLSClientConfig.Clone(), ForceAttemptHTTP2: http2}
		tr.TLSClientConfig.ServerName = "example.com"
		c := &http.Client{Transport: tr}
		altSvc := func(path string) []string {
			res, err := c.Get("https://example.com" + path)
			require.NoError(t, err)
			require.NoError(t, res.Body.Close())
			require.Equal(t, http2, res.ProtoMajor == 2)
			return res.Header["Alt-Svc"]
		}
		require.Empty(t, altSvc("/"))
		a.Announce(`h3=":443"`)
		b.Announce(`h3=":444"`)
		plain, err := (&http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return network.DialContext(ctx, "tcp", "10.0.0.1:80")
		}, DisableKeepAlives: true}}).Get("http://example.com/")
		require.NoError(t, err)
		require.NoError(t, plain.Body.Close())
		require.NotContains(t, plain.Header, "Alt-Svc")
		for range 2 { // the second goes to the standard front from its beginning
			require.Equal(t, []string{`h3=":443", h3=":444"`}, altSvc("/foreign"))
		}
		require.Equal(t, []string{`h3=":443", h3=":444"`}, altSvc("/"))
		require.Equal(t, []string{"clear"}, altSvc("/own"))
		b.Announce("")
		require.Equal(t, []string{`h3=":443"`}, altSvc("/"))
		a.Announce("")
		require.Empty(t, altSvc("/"))
		tr.CloseIdleConnections()
	}
	a.Announce(`h3=":443"`)
	a.Detach()
	require.Nil(t, srv.altSvc.Load())
}

// A front's connections count for MaxConns, its exchanges have a record, and what Cut
// ends is not blamed on clients.
func TestFrontConn(t *testing.T) {
	var records []Record
	srv := &Server{
		MaxConns: 1, IdleTimeout: -1, MaxRequests: -1,
		OnDone: func(r *Record) { records = append(records, *r) },
		Handler: HandlerFunc(func(x *Exchange) {
			switch x.Path {
			case "/gone":
				<-x.Context().Done()
				x.Drop(endOf(l4.ClientAborted, l4.PhaseRequest))
			case "/returned": // before a write fails
				Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					_ = http.NewResponseController(w).Flush()
					<-r.Context().Done()
				}), x)
			default:
				x.Respond(200, nil, x.Method+" "+x.Upgrade())
			}
		}),
	}
	a, err := srv.Attach(&fakeFront{})
	require.NoError(t, err)
	l := a.Limits()
	require.Equal(t, FrontLimits{ReadHeaderTimeout: 10 * time.Second, SendTimeout: 30 * time.Second, StreamTimeout: time.Hour,
		HandshakeTimeout: 10 * time.Second, MaxHeaderBytes: 32 << 10, MaxFields: 128, MaxStreams: 100}, l)
	c, ok := a.NewConn()
	require.True(t, ok)
	_, ok = a.NewConn()
	require.False(t, ok)
	require.Equal(t, 1, srv.Open())
	require.EqualValues(t, 1, srv.Stats().AtLimit, "what is refused is counted")
	c.Handshaken(true)
	c.Handshaken(false)

	request := func(method, target string) *http.Request {
		r := httptest.NewRequest(method, target, nil)
		r.Proto, r.ProtoMajor, r.ProtoMinor, r.RequestURI = "HTTP/3.0", 3, 0, r.URL.RequestURI()
		return r
	}
	w := httptest.NewRecorder()
	c.ServeHTTP(w, request("GET", "https://a.example/x"))
	require.Equal(t, "GET ", w.Body.String())
	w = httptest.NewRecorder()
	c.Refuse(w, request("GET", "https://a.example/early"), http.StatusTooEarly, "early")
	require.Equal(t, http.StatusTooEarly, w.Code)
	w = httptest.NewRecorder()
	c.Refuse(w, &http.Request{ProtoMajor: 3, URL: new(url.URL), RemoteAddr: "192.0.2.1:5"}, http.StatusBadRequest, "no method")
	require.Equal(t, http.StatusBadRequest, w.Code)

	ctx, cancel := context.WithCancel(t.Context())
	a.Cut()
	cancel()
	require.PanicsWithValue(t, http.ErrAbortHandler, func() {
		c.ServeHTTP(httptest.NewRecorder(), request("GET", "https://a.example/gone").WithContext(ctx))
	})

	c.ServeHTTP(httptest.NewRecorder(), request("GET", "https://a.example/returned").WithContext(ctx))

	require.Len(t, records, 5)
	require.Equal(t, FrontHTTP3, records[0].Front)
	require.Equal(t, "http3", records[0].Front.String())
	require.Equal(t, "HTTP/3.0", records[0].Proto)
	require.Equal(t, l4.Denied, records[1].Termination.Cause)
	require.Equal(t, "/early", records[1].Path)
	require.Equal(t, "192.0.2.1:5", records[2].Remote.String())
	require.ErrorContains(t, records[2].Err, "no method")
	require.Equal(t, l4.Killed, records[3].Termination.Cause)
	require.Equal(t, endOf(l4.Killed, l4.PhaseData), records[4].Termination)
	st := srv.Stats()
	require.Equal(t, uint64(1), st.Accepted)
	require.Equal(t, [2]uint64{1, 1}, [2]uint64{st.Handshakes, st.HandshakeErrors})
	require.Equal(t, uint64(5), st.Requests.Total())
	c.End()
	c.End()
	require.Zero(t, srv.Open())
	_, ok = a.NewConn()
	require.True(t, ok)
}
