// SPDX-License-Identifier: Apache-2.0

package h3

import (
	"bytes"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go/http3"
	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7"
)

// Early data is served where the host allows it, and otherwise answered 425.
func TestEarlyData(t *testing.T) {
	h := foreign(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Method+" "+r.Header.Get("Early-Data"))
	})
	for _, on := range []bool{true, false} {
		inWorld(t, h, func(_ *l7.Server, f *Front) {
			if on {
				f.Early = Safe
			}
		}, func(w *world) {
			cfg := w.tls()
			cfg.ClientSessionCache = tls.NewLRUClientSessionCache(10)
			tr := &http3.Transport{DisableCompression: true}
			qc, err := w.socket().Dial(w.Context(), gateway, cfg, nil)
			require.NoError(w, err)
			w.get(tr.NewClientConn(qc), "/")
			time.Sleep(time.Second) // for the ticket
			require.NoError(w, qc.CloseWithError(0, ""))

			ask := func(method string) (string, string, bool) {
				qc, err := w.socket().DialEarly(w.Context(), gateway, cfg, nil)
				require.NoError(w, err)
				defer qc.CloseWithError(0, "")
				c := &raw{w, qc, nil}
				request := head(":method", method, ":scheme", "https", ":authority", "gateway.example", ":path", "/")
				str, err := qc.OpenStream()
				require.NoError(w, err)
				_, err = str.Write(request)
				require.NoError(w, err)
				require.NoError(w, str.Close())
				if !on {
					<-qc.HandshakeComplete()
					return "", "", qc.ConnectionState().Used0RTT
				}
				in := &input{from: str, buf: make([]byte, inputSize)}
				_, n, err := in.frame()
				require.NoError(w, err)
				b, err := in.block(int(n))
				require.NoError(w, err)
				f, err := qpack.NewDecoder().Decode(b)()
				require.NoError(w, err)
				_, n, err = in.frame()
				require.NoError(w, err)
				b, err = in.block(int(n))
				require.NoError(w, err)
				_ = c
				return f.Value, string(b), qc.ConnectionState().Used0RTT
			}
			status, body, early := ask("GET")
			require.Equal(w, on, early)
			if !on {
				return
			}
			require.Equal(w, "200", status)
			require.Equal(w, "GET 1", body)
			status, _, _ = ask("POST")
			require.Equal(w, "425", status)
			st := w.front.Stats()
			require.Equal(w, [2]uint64{1, 1}, [2]uint64{st.Early, st.TooEarly})
			require.Equal(w, "POST", w.recordOf(425).Method)
		})
	}
}

// A client that changes its address keeps its connection, and its requests their Remote.
func TestMigration(t *testing.T) {
	h := foreign(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.RemoteAddr) })
	inWorld(t, h, nil, func(w *world) {
		qc := w.dial()
		c := (&http3.Transport{DisableCompression: true}).NewClientConn(qc)
		_, body := w.get(c, "/")
		require.Equal(w, "10.0.1.1:5000", body)
		path, err := qc.AddPath(w.socket())
		require.NoError(w, err)
		require.NoError(w, path.Probe(w.Context()))
		require.NoError(w, path.Switch())
		w.get(c, "/")
		time.Sleep(time.Second)
		_, body = w.get(c, "/")
		require.Equal(w, "10.0.1.2:5000", body)
		require.Equal(w, uint64(1), w.front.Stats().Migrations)
	})
}

// A WebSocket goes to a server of HTTP/1, and CONNECT to where it says.
func TestTunnels(t *testing.T) {
	origin := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { // echoes lines
		c, brw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		l7test := acceptOf(r.Header.Get("Sec-Websocket-Key"))
		_, _ = fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\nX-Odd: yes\r\n\r\n", l7test)
		_, _ = io.Copy(c, brw)
	})
	for _, native := range []bool{true, false} {
		inWorld(t, func(w *world) http.Handler {
			if native {
				return w.proxy(origin)
			}
			return origin
		}, nil, func(w *world) {
			c := w.client()
			str, err := c.OpenRequestStream(w.Context())
			require.NoError(w, err)
			req := w.request("CONNECT", "/chat", nil)
			req.Proto = "websocket"
			require.NoError(w, str.SendRequestHeader(req))
			res, err := str.ReadResponse()
			require.NoError(w, err)
			require.Equal(w, 200, res.StatusCode)
			require.Equal(w, "yes", res.Header.Get("X-Odd"))
			require.Empty(w, res.Header.Get("Sec-Websocket-Accept"))
			long := bytes.Repeat([]byte("x"), 200<<10)
			go func() { _, _ = str.Write(long) }()
			got := make([]byte, len(long))
			_, err = io.ReadFull(str, got)
			require.NoError(w, err)
			require.Equal(w, long, got)
			require.NoError(w, str.Close())
			_, err = str.Read(got)
			require.Equal(w, io.EOF, err)
			time.Sleep(time.Second)
			require.Equal(w, 200+(101-200), w.record(0).Status)
		})
	}
	inWorld(t, func(w *world) http.Handler { return &l7.FixedReply{Status: 200} }, nil, func(w *world) {
		c := w.client()
		str, err := c.OpenRequestStream(w.Context())
		require.NoError(w, err)
		req := w.request("CONNECT", "/chat", nil)
		req.Proto = "websocket"
		require.NoError(w, str.SendRequestHeader(req))
		res, err := str.ReadResponse()
		require.NoError(w, err)
		require.Equal(w, 501, res.StatusCode, "200 would open the tunnel")
	})
}

// A server may end its direction of a tunnel first, and still gets what the client sends.
func TestTunnelHalfClose(t *testing.T) {
	var late chan string
	origin := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, brw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\nbye", acceptOf(r.Header.Get("Sec-Websocket-Key")))
		_ = c.(interface{ CloseWrite() error }).CloseWrite()
		b, _ := io.ReadAll(brw)
		late <- string(b)
	})
	inWorld(t, func(w *world) http.Handler { late = make(chan string, 1); return w.proxy(origin) }, nil, func(w *world) {
		str, err := w.client().OpenRequestStream(w.Context())
		require.NoError(w, err)
		req := w.request("CONNECT", "/chat", nil)
		req.Proto = "websocket"
		require.NoError(w, str.SendRequestHeader(req))
		_, err = str.ReadResponse()
		require.NoError(w, err)
		got, err := io.ReadAll(str)
		require.NoError(w, err)
		require.Equal(w, "bye", string(got))
		time.Sleep(time.Second)
		_, err = str.Write([]byte("late"))
		require.NoError(w, err)
		require.NoError(w, str.Close())
		require.Equal(w, "late", <-late)
		time.Sleep(time.Second)
		require.Equal(w, l4.Normal, w.record(0).Termination.Cause)
	})
}

// Whatever is in flight at once, each request gets its own reply.
func TestMixUp(t *testing.T) {
	origin := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Token", r.Header.Get("X-Token"))
		_, _ = w.Write([]byte(r.URL.Path + string(b)))
	})
	inWorld(t, func(w *world) http.Handler { return w.proxy(origin) }, nil, func(w *world) {
		var clients sync.WaitGroup
		for i := range 6 {
			c := w.client()
			for j := range 8 {
				clients.Go(func() {
					for n := range 10 {
						token := fmt.Sprintf("%d-%d-%d", i, j, n)
						body := strings.Repeat(token+";", 1+n*50)
						req := w.request("POST", "/"+token, strings.NewReader(body))
						req.Header.Set("X-Token", token)
						res, got := w.do(c, req)
						require.Equal(w, token, res.Header.Get("X-Token"))
						require.Equal(w, "/"+token+body, got)
					}
				})
			}
		}
		clients.Wait()
		require.Equal(w, uint64(480), w.srv.Stats().Requests.Total())
	})
}

func TestCheck(t *testing.T) {
	var e *penstock.ConfigError
	require.ErrorAs(t, (&Front{}).ListenAndServeTLS("", ""), &e)
	require.Equal(t, "Front.Server", e.Field)
	require.ErrorAs(t, (&Front{Server: &l7.Server{Handler: &l7.Proxy{}}}).Check(), &e)
	require.Equal(t, "Front.Server.Handler.Proxy.Pool", e.Field)
	require.ErrorContains(t, (&Front{Server: &l7.Server{}, Addr: "127.0.0.1:0"}).ListenAndServeTLS("", ""), "no certificate")
}

// The parsers take any bytes, and what they accept is well-formed.
func FuzzRequest(f *testing.F) {
	f.Add([]byte(block(":method", "GET", ":scheme", "https", ":authority", "a", ":path", "/?q", "cookie", "a=b", "cookie", "c=d")))
	f.Add([]byte(block(":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":authority", "a", ":path", "/")))
	f.Add([]byte(block(":method", "POST", ":scheme", "https", ":authority", "a", ":path", "/%zz", "content-length", "5", "trailer", "x")))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s section
		if s.decode(b, sizes{4 << 10, 64}) != nil {
			return
		}
		r, upgrade, bad := s.request()
		require.NotNil(t, r.URL)
		if bad != nil {
			return
		}
		require.NotEmpty(t, r.Method)
		require.NotEmpty(t, r.Host)
		require.Equal(t, upgrade, r.Header.Get("Upgrade") != "")
		require.LessOrEqual(t, len(r.Header["Cookie"]), 1)
		for _, name := range []string{"Transfer-Encoding", "Keep-Alive", "Trailer"} {
			require.NotContains(t, r.Header, name)
		}
		for _, values := range r.Header {
			for _, v := range values {
				require.NotContains(t, v, "\n")
			}
		}
	})
}

// A body is what its DATA frames hold, however it is cut.
func FuzzFrames(f *testing.F) {
	f.Add(append(frame(frameData, "hello"), frame(0x21, "x")...), 3)
	f.Add(append(frame(frameSettings, "\x06\x01"), 0x40), 1)
	f.Fuzz(func(t *testing.T, b []byte, piece int) {
		read := func(r io.Reader) (out []byte, err error) {
			in := &input{from: r, buf: make([]byte, 64)}
			for {
				kind, n, err := in.frame()
				if err != nil {
					return out, err
				}
				if n > 1<<16 {
					return out, io.ErrShortBuffer
				}
				if kind == frameData {
					p, err := in.block(int(n))
					if err != nil {
						return out, err
					}
					out = append(out, p...)
				} else if err := in.discard(n); err != nil {
					return out, err
				}
			}
		}
		whole, err1 := read(bytes.NewReader(b))
		cut, err2 := read(&pieces{b, 1 + int(uint(piece)%7)})
		require.Equal(t, whole, cut)
		require.Equal(t, err1, err2)
		in := &input{from: bytes.NewReader(b), buf: make([]byte, 64)}
		_ = readSettings(in, uint64(len(b)))
		_ = readEncoder(&input{from: bytes.NewReader(b), buf: make([]byte, 64)})
		_ = readDecoder(&input{from: bytes.NewReader(b), buf: make([]byte, 64)})
	})
}

type pieces struct {
	b []byte
	n int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.b) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), p.n)], p.b)
	p.b = p.b[n:]
	return n, nil
}

// acceptOf answers a key (RFC 6455, section 4.2.2).
func acceptOf(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}
