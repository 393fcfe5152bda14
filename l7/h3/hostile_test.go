// SPDX-License-Identifier: Apache-2.0

package h3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7"
)

// raw is a client that writes frames itself.
type raw struct {
	*world
	*quic.Conn
	ctrl *quic.SendStream
}

// raw opens a connection. Control is what its control stream begins with; nil means an
// empty SETTINGS.
func (w *world) raw(control []byte) *raw {
	w.Helper()
	c := &raw{w, w.dial(), nil}
	var err error
	c.ctrl, err = c.OpenUniStream()
	require.NoError(w, err)
	if control == nil {
		control = frame(frameSettings, "")
	}
	_, err = c.ctrl.Write(append([]byte{streamControl}, control...))
	require.NoError(w, err)
	return c
}

// frame returns a frame.
func frame(kind uint64, payload string) []byte {
	return append(appendFrame(nil, kind, uint64(len(payload))), payload...)
}

// head returns HEADERS; fields are names and values.
func head(fields ...string) []byte { return frame(frameHeaders, block(fields...)) }

func block(fields ...string) string {
	var b strings.Builder
	e := qpack.NewEncoder(&b)
	for i := 0; i < len(fields); i += 2 {
		_ = e.WriteField(qpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return b.String()
}

// get is a GET, with more fields.
func get(fields ...string) []byte {
	return head(append([]string{":method", "GET", ":scheme", "https", ":authority", "gateway.example", ":path", "/"}, fields...)...)
}

func post(fields ...string) []byte {
	return head(append([]string{":method", "POST", ":scheme", "https", ":authority", "gateway.example", ":path", "/"}, fields...)...)
}

// send opens a stream, and ends it if fin is set.
func (c *raw) send(fin bool, frames ...[]byte) *quic.Stream {
	c.Helper()
	str, err := c.OpenStreamSync(c.world.Context())
	require.NoError(c, err)
	for _, f := range frames {
		if _, err = str.Write(f); err != nil { // the server may have stopped it already
			return str
		}
	}
	if fin {
		require.NoError(c, str.Close())
	}
	return str
}

// reset returns the code with which the server has reset a stream, or 0 if it has ended
// well.
func reset(str *quic.Stream) code {
	_, err := io.ReadAll(str)
	if e, ok := errors.AsType[*quic.StreamError](err); ok && e.Remote {
		return code(e.ErrorCode)
	}
	if e, ok := errors.AsType[*quic.ApplicationError](err); ok && e.Remote {
		return code(e.ErrorCode)
	}
	return 0
}

// gone returns the code with which the server has closed the connection.
func (c *raw) gone() code {
	c.Helper()
	select {
	case <-c.Conn.Context().Done():
	case <-time.After(5 * time.Second):
		return 0
	}
	if e, ok := errors.AsType[*quic.ApplicationError](context.Cause(c.Conn.Context())); ok && e.Remote {
		return code(e.ErrorCode)
	}
	return 0
}

// status reads a reply and returns its status.
func status(t *world, str *quic.Stream) string {
	t.Helper()
	in := &input{from: str, buf: make([]byte, inputSize)}
	kind, n, err := in.frame()
	require.NoError(t, err)
	require.Equal(t, uint64(frameHeaders), kind)
	b, err := in.block(int(n))
	require.NoError(t, err)
	f, err := qpack.NewDecoder().Decode(b)()
	require.NoError(t, err)
	require.Equal(t, ":status", f.Name)
	return f.Value
}

// What RFC 9114 calls an error ends the stream, or the connection, with that code.
func TestErrors(t *testing.T) {
	settingsTwice := append(frame(frameSettings, ""), frame(frameSettings, "")...)
	control := func(kind uint64, payload string) []byte {
		return append(frame(frameSettings, ""), frame(kind, payload)...)
	}
	type story struct {
		name    string
		control []byte
		request []byte // ends its stream
		uni     []byte
		code    code
		whole   bool
	}
	inWorld(t, echo, nil, func(w *world) {
		for _, s := range []story{
			{name: "good", request: get(), code: 0},
			{name: "unknown frame", request: append(frame(0x21, "grease"), get()...)},
			{name: "DATA first", request: frame(frameData, "x"), code: codeFrameUnexpected, whole: true},
			{name: "PUSH_PROMISE", request: frame(framePushPromise, "x"), code: codeFrameUnexpected, whole: true},
			{name: "CANCEL_PUSH in a request", request: frame(frameCancelPush, "\x00"), code: codeFrameUnexpected, whole: true},
			{name: "SETTINGS in a request", request: frame(frameSettings, ""), code: codeFrameUnexpected, whole: true},
			{name: "PING of HTTP/2", request: frame(0x6, ""), code: codeFrameUnexpected, whole: true},
			{name: "empty", request: nil, code: codeIncomplete},
			{name: "half a head", request: get()[:5], code: codeIncomplete},
			{name: "bad QPACK", request: frame(frameHeaders, "\x00\x00\xff\xff\xff"), code: codeQPACK, whole: true},
			{name: "dynamic table", request: frame(frameHeaders, "\x05\x00\x80"), code: codeQPACK, whole: true},
			{name: "no method", request: head(":scheme", "https", ":authority", "a", ":path", "/"), code: codeMessage},
			{name: "no path", request: head(":method", "GET", ":scheme", "https", ":authority", "a"), code: codeMessage},
			{name: "no authority", request: head(":method", "GET", ":scheme", "https", ":path", "/"), code: codeMessage},
			{name: "status", request: get(":status", "200"), code: codeMessage},
			{name: "method twice", request: head(":method", "GET", ":method", "GET", ":scheme", "https", ":authority", "a", ":path", "/"), code: codeMessage},
			{name: "unknown pseudo field", request: head(":method", "GET", ":odd", "x"), code: codeMessage},
			{name: "pseudo field late", request: head(":method", "GET", "a", "b", ":scheme", "https", ":authority", "a", ":path", "/"), code: codeMessage},
			{name: "upper case", request: get("Upper", "x"), code: codeMessage},
			{name: "bad name", request: get("a b", "x"), code: codeMessage},
			{name: "line end", request: get("a", "b\r\nc"), code: codeMessage},
			{name: "space", request: get("a", " b"), code: codeMessage},
			{name: "Connection", request: get("connection", "close"), code: codeMessage},
			{name: "Transfer-Encoding", request: get("transfer-encoding", "chunked"), code: codeMessage},
			{name: "TE", request: get("te", "gzip"), code: codeMessage},
			{name: "TE trailers", request: get("te", "trailers")},
			{name: "two lengths", request: append(post("content-length", "1", "content-length", "2"), frame(frameData, "x")...), code: codeMessage},
			{name: "negative length", request: post("content-length", "-1"), code: codeMessage},
			{name: "body missing", request: post("content-length", "3"), code: codeMessage},
			{name: "body short", request: append(post("content-length", "3"), frame(frameData, "x")...), code: codeMessage},
			{name: "body long", request: append(post("content-length", "1"), frame(frameData, "xx")...), code: codeMessage},
			{name: "body where none is", request: append(post("content-length", "0"), frame(frameData, "x")...), code: codeMessage},
			{name: "no body", request: append(post("content-length", "0"), frame(frameData, "")...)},
			{name: "body", request: append(post("content-length", "2"), frame(frameData, "xx")...)},
			{name: "other host", request: get("host", "other.example"), code: codeMessage},
			{name: "same host", request: get("host", "gateway.example")},
			{name: "protocol without CONNECT", request: get(":protocol", "websocket"), code: codeMessage},
			{name: "CONNECT with a path", request: head(":method", "CONNECT", ":authority", "a:1", ":path", "/"), code: codeMessage},
			{name: "trailer", request: append(append(post(), frame(frameData, "x")...), head("x-sum", "1")...)},
			{name: "trailer with a pseudo field", request: append(append(post(), frame(frameData, "x")...), head(":path", "/")...), code: codeMessage},
			{name: "DATA after the trailer", request: append(append(post(), head("x-sum", "1")...), frame(frameData, "x")...), code: codeFrameUnexpected, whole: true},
			{name: "no SETTINGS", control: frame(frameGoAway, "\x00"), code: codeMissingSettings, whole: true},
			{name: "SETTINGS twice", control: settingsTwice, code: codeFrameUnexpected, whole: true},
			{name: "a setting twice", control: frame(frameSettings, "\x06\x01\x06\x01"), code: codeSettings, whole: true},
			{name: "setting of HTTP/2", control: frame(frameSettings, "\x04\x01"), code: codeSettings, whole: true},
			{name: "setting out of range", control: frame(frameSettings, "\x08\x02"), code: codeSettings, whole: true},
			{name: "half a setting", control: frame(frameSettings, "\x08"), code: codeFrame, whole: true},
			{name: "long SETTINGS", control: appendFrame(nil, frameSettings, 1<<30), code: codeExcessiveLoad, whole: true},
			{name: "DATA in control", control: control(frameData, "x"), code: codeFrameUnexpected, whole: true},
			{name: "HEADERS in control", control: control(frameHeaders, "x"), code: codeFrameUnexpected, whole: true},
			{name: "CANCEL_PUSH", control: control(frameCancelPush, "\x00"), code: codeID, whole: true},
			{name: "GOAWAY", control: control(frameGoAway, "\x00"), request: get()},
			{name: "malformed GOAWAY", control: control(frameGoAway, ""), code: codeFrame, whole: true},
			{name: "MAX_PUSH_ID", control: append(control(frameMaxPushID, "\x05"), frame(frameMaxPushID, "\x04")...), code: codeID, whole: true},
			{name: "PRIORITY_UPDATE", control: control(framePriority, "\x00u=1"), request: get()},
			{name: "PRIORITY_UPDATE of a control stream", control: control(framePriority, "\x02u=1"), code: codeID, whole: true},
			{name: "PRIORITY_UPDATE of a push", control: control(framePriorityOfPush, "\x00u=1"), code: codeID, whole: true},
			{name: "second control stream", uni: []byte{streamControl}, code: codeStreamCreation, whole: true},
			{name: "push stream", uni: []byte{streamPush}, code: codeStreamCreation, whole: true},
			{name: "unknown stream", uni: []byte{0x21}, request: get()},
			{name: "encoder", uni: []byte{streamEncoder, 0x20}, code: codeClosedCritical, whole: true},
			{name: "encoder with a table", uni: []byte{streamEncoder, 0x3f, 0x81, 0x1f}, code: codeQPACKEncoder, whole: true},
			{name: "decoder cancels", uni: []byte{streamDecoder, 0x7f, 0x81, 0x01, 0x44}, code: codeClosedCritical, whole: true},
			{name: "decoder acknowledges", uni: []byte{streamDecoder, 0x84}, code: codeQPACKDecoder, whole: true},
			{name: "decoder counts", uni: []byte{streamDecoder, 0x01}, code: codeQPACKDecoder, whole: true},
		} {
			c := w.raw(s.control)
			time.Sleep(time.Second)
			if s.uni != nil {
				str, err := c.OpenUniStream()
				require.NoError(w, err)
				_, err = str.Write(s.uni)
				require.NoError(w, err)
				require.NoError(w, str.Close())
			}
			if s.whole {
				if s.request != nil {
					_, _ = io.ReadAll(c.send(true, s.request))
				}
				require.Equal(w, s.code, c.gone(), s.name)
				continue
			}
			if s.request == nil && s.code == 0 {
				continue
			}
			require.Equal(w, s.code, reset(c.send(true, s.request)), s.name)
			require.NoError(w, c.Conn.Context().Err(), s.name)
			require.NoError(w, c.CloseWithError(0, ""))
		}
		require.Equal(w, "no method", strings.TrimPrefix(w.recordOf(400).Err.Error(), "l7: "))
	})
}

// recordOf returns the first record with a status.
func (w *world) recordOf(status int) l7.Record {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.records {
		if r.Status == status {
			return r
		}
	}
	require.Fail(w, "no such record", status)
	return l7.Record{}
}

// A client that stalls is let go of when its time is up.
func TestStalls(t *testing.T) {
	h := func(w *world) http.Handler {
		long := w.proxy(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 4<<20)) }))
		return l7.HandlerFunc(func(x *l7.Exchange) {
			if x.Method == "POST" {
				_, err := io.ReadAll(x.Body())
				x.Record.Err = err
				x.Error(http.StatusRequestTimeout, l4.Termination{Cause: l4.ClientTimeout})
				return
			}
			l7.Serve(long, x)
		})
	}
	inWorld(t, h, nil, func(w *world) {
		c := w.raw(nil)
		begin := time.Now()
		require.Equal(w, codeRejected, reset(c.send(false, get()[:3])))
		require.InDelta(w, 10, time.Since(begin).Seconds(), 1, "ReadHeaderTimeout")

		begin = time.Now()
		str := c.send(false, append(post("content-length", "10"), frame(frameData, "x")...))
		require.Equal(w, "408", status(w, str))
		require.InDelta(w, 30, time.Since(begin).Seconds(), 9, "BodyTimeout")
		require.ErrorContains(w, w.recordOf(408).Err, "Server.BodyTimeout")

		str = c.send(true, get()) // and does not read
		require.Equal(w, codeCancelled, func() code { time.Sleep(time.Minute); return reset(str) }())
		r := w.recordOf(200)
		require.InDelta(w, 30, r.Total.Seconds(), 9, "SendTimeout")
		require.Equal(w, l4.ClientTimeout, r.Termination.Cause)
	})
}

// A head that is too long is answered 431, however it is compressed.
func TestHeaderBombs(t *testing.T) {
	inWorld(t, echo, nil, func(w *world) {
		c := w.raw(nil)
		require.Equal(w, "431", status(w, c.send(false, appendFrame(nil, frameHeaders, 1<<40))), "announced")
		require.Equal(w, "431", status(w, c.send(false, get("a", strings.Repeat("~", 40<<10)))), "bytes")
		var many []string
		for range 200 {
			many = append(many, "a", "b")
		}
		require.Equal(w, "431", status(w, c.send(true, get(many...))), "fields")
		indexed := "\x00\x00" + strings.Repeat("\xd1", 30_000) // :method GET, by one byte
		require.Equal(w, codeMessage, reset(c.send(true, frame(frameHeaders, indexed))), "pseudo fields")
		indexed = block(":method", "GET", ":scheme", "https", ":authority", "a", ":path", "/") + strings.Repeat("\xc2", 30_000) // age: 0
		require.Equal(w, "431", status(w, c.send(true, frame(frameHeaders, indexed))), "indexed")
		long := append(append(post(), frame(frameData, "x")...), appendFrame(nil, frameHeaders, 1<<40)...)
		require.Equal(w, codeExcessiveLoad, reset(c.send(false, long)), "trailer")
		require.Equal(w, "431", func() string { r := w.recordOf(431); return "431"[:len(r.Proto)-5] }())
		require.Equal(w, "200", status(w, c.send(true, get())))
	})
}

// Browsers send each cookie in a field of its own (RFC 9114, section 4.2.1), and may have
// more cookies than a head may have fields. Together they are one field.
func TestManyCookies(t *testing.T) {
	for _, tc := range []struct {
		cookies, most int // MaxHeaderBytes
		want          string
	}{{180, 0, "200"}, {2000, 0, "431"}, {180, -1, "431"}} {
		var got string
		h := foreign(func(_ http.ResponseWriter, r *http.Request) { got = r.Header.Get("Cookie") })
		inWorld(t, h, func(s *l7.Server, _ *Front) { s.MaxHeaderBytes = tc.most }, func(w *world) {
			var fields, crumbs []string
			for i := range tc.cookies {
				crumbs = append(crumbs, fmt.Sprintf("c%d=1", i))
				fields = append(fields, "cookie", crumbs[i])
			}
			require.Equal(w, tc.want, status(w, w.raw(nil).send(true, get(fields...))), tc.cookies)
			if tc.want == "200" {
				require.Equal(w, strings.Join(crumbs, "; "), got)
			}
		})
	}
}

// Rapid resets (CVE-2023-44487) do not run more handlers at once than MaxStreams, and end
// the connection when they go on.
func TestRapidResets(t *testing.T) {
	var running, most atomic.Int64
	h := foreign(func(_ http.ResponseWriter, r *http.Request) {
		if n := running.Add(1); n > most.Load() {
			most.Store(n)
		}
		<-r.Context().Done()
		time.Sleep(time.Second)
		running.Add(-1)
	})
	var abused atomic.Int64
	change := func(s *l7.Server, _ *Front) {
		s.MaxStreams = 20
		s.OnAbuse = func(client netip.AddrPort, err error) {
			abused.Add(1)
			require.Equal(t, "10.0.1.1:5000", client.String())
			require.ErrorContains(t, err, "too much needless work")
		}
	}
	inWorld(t, h, change, func(w *world) {
		c := w.raw(nil)
		for range 10_000 {
			str, err := c.OpenStreamSync(w.Context())
			if err != nil {
				break
			}
			if _, err := str.Write(get()); err != nil {
				break
			}
			time.Sleep(10 * time.Microsecond)
			str.CancelWrite(quic.StreamErrorCode(codeCancelled))
			str.CancelRead(quic.StreamErrorCode(codeCancelled))
		}
		// Handlers end after a second: 20 a second are within what the bucket lets through.
		require.LessOrEqual(w, most.Load(), int64(20))
		require.Positive(w, most.Load())
	})
	inWorld(t, foreign(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }), change, func(w *world) {
		c := w.raw(nil)
		for range 10_000 {
			str, err := c.OpenStreamSync(w.Context())
			if err != nil {
				break
			}
			if _, err := str.Write(get()); err != nil {
				break
			}
			str.CancelWrite(quic.StreamErrorCode(codeCancelled))
			str.CancelRead(quic.StreamErrorCode(codeCancelled))
		}
		require.Equal(w, codeExcessiveLoad, c.gone())
		require.Equal(w, int64(1), abused.Load())
	})
}

// Frames that cost work and say nothing end the connection.
func TestNeedlessFrames(t *testing.T) {
	inWorld(t, echo, nil, func(w *world) {
		c := w.raw(nil)
		str := c.send(false, post())
		for range 2000 {
			if _, err := str.Write(frame(frameData, "")); err != nil {
				break
			}
		}
		require.Equal(w, codeExcessiveLoad, c.gone(), "empty DATA")
		c = w.raw(nil)
		for range 2000 {
			if _, err := c.ctrl.Write(frame(0x21, "x")); err != nil {
				break
			}
		}
		require.Equal(w, codeExcessiveLoad, c.gone(), "unknown frames")
		c = w.raw(nil)
		for range 2000 {
			s, err := c.OpenUniStreamSync(w.Context())
			if err != nil {
				break
			}
			_, _ = s.Write([]byte{0x21})
			_ = s.Close()
		}
		require.Equal(w, codeExcessiveLoad, c.gone(), "unknown streams")
	})
}

// A client that takes its request back ends the exchange, whatever it is at.
func TestResets(t *testing.T) {
	var phase chan string
	slow := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/body" {
			_, _ = io.ReadAll(r.Body)
		}
		if r.URL.Path == "/reply" {
			_, _ = w.Write(make([]byte, 64<<10))
			_ = http.NewResponseController(w).Flush()
		}
		phase <- "reached"
		<-r.Context().Done()
		phase <- "ended"
	})
	inWorld(t, func(w *world) http.Handler { phase = make(chan string, 1); return w.proxy(slow) }, nil, func(w *world) {
		c := w.raw(nil)
		for i, path := range []string{"/wait", "/reply", "/body"} {
			request := head(":method", "POST", ":scheme", "https", ":authority", "gateway.example", ":path", path)
			str := c.send(path != "/body", request)
			if path == "/body" {
				_, err := str.Write(frame(frameData, "x"))
				require.NoError(w, err)
				time.Sleep(time.Second)
				str.CancelWrite(quic.StreamErrorCode(codeCancelled))
			} else {
				require.Equal(w, "reached", <-phase)
			}
			str.CancelRead(quic.StreamErrorCode(codeCancelled))
			if path == "/body" {
				require.Equal(w, "reached", <-phase)
			}
			require.Equal(w, "ended", <-phase)
			time.Sleep(time.Second)
			r := w.record(i)
			require.Equal(w, l4.ClientAborted, r.Termination.Cause, path)
			for s := range w.pool.All() {
				require.Zero(w, s.InFlight(), path)
			}
		}
		require.NoError(w, c.Conn.Context().Err())
	})
}

// Above RetryAbove handshakes, a client has to show its address; nobody is refused.
func TestRetry(t *testing.T) {
	inWorld(t, echo, func(_ *l7.Server, f *Front) { f.RetryAbove = 1 }, func(w *world) {
		w.get(w.client(), "/")
		require.Zero(w, w.front.Stats().Retries)
		ctx, cancel := context.WithTimeout(w.Context(), 7*time.Millisecond) // the ClientHello arrives, the rest does not
		_, err := w.socket().Dial(ctx, gateway, w.tls(), nil)
		cancel()
		require.Error(w, err)
		require.Equal(w, 1, w.front.Stats().Handshaking)
		w.get(w.client(), "/")
		require.Positive(w, w.front.Stats().Retries)
		time.Sleep(time.Minute)
		require.Zero(w, w.front.Stats().Handshaking)
		require.Equal(w, uint64(1), w.srv.Stats().HandshakeErrors)
	})
}
