// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4/l4test"
)

const (
	sslRequest = "\x00\x00\x00\x08\x04\xd2\x16\x2f"
	gssRequest = "\x00\x00\x00\x08\x04\xd2\x16\x30"
	cancelKey  = "\x00\x00\x00\x10\x04\xd2\x16\x2e\x00\x00\x00\x01\x00\x00\x00\x02"
)

var annStarts = startup(3<<16, "user\x00ann\x00\x00")

// names is a handler that sends name and what it reads until the client's end.
func names(name string) Handler {
	return HandlerFunc(func(_ context.Context, c net.Conn) error {
		defer c.Close()
		io.WriteString(c, name+" ")
		b, err := io.ReadAll(c)
		c.Write(b)
		return err
	})
}

// TestAcceptPostgreSQL plays clients: texts in turn are what they send and what they
// must read next. "-" is a good second of silence, "end" the end of the stream.
func TestAcceptPostgreSQL(t *testing.T) {
	const refused = "E\x00\x00\x00\x49SFATAL\x00VFATAL\x00C28000\x00Mconnections without TLS are not accepted here\x00\x00"
	direct := string(clientHello(t, &tls.Config{ServerName: "a.test", NextProtos: []string{"x", "postgresql"}}))
	other := string(clientHello(t, &tls.Config{ServerName: "a.test", NextProtos: []string{"http/1.1"}}))
	none := string(clientHello(t, &tls.Config{ServerName: "a.test"}))
	endless := ("\x16\x03\x01\x00\x04\x01\x00\xff\xff" + strings.Repeat("\x16\x03\x01\x00\x01\x00", 11000))[:64<<10]
	plain, silence := names("plain"), strings.Fields("- - - - - -")
	for _, tt := range []struct {
		why   string
		plain Handler
		send  []string
		want  string // all that the client reads
		end   string // the letters of the record
		err   error
	}{
		{why: "SSLRequest", send: []string{sslRequest, "-", none, "end"}, want: "Stls " + none, end: "--"},
		{why: "GSSENCRequest before it", send: []string{gssRequest, "-", sslRequest, "-", none, "end"}, want: "NStls " + none, end: "--"},
		{why: "TLS at once", send: []string{direct, "end"}, want: "tls " + direct, end: "--"},
		{why: "TLS at once, in pieces", send: []string{direct[:1], "-", direct[1:40], "-", direct[40:], "end"}, want: "tls " + direct, end: "--"},
		{why: "TLS at once for another protocol", send: []string{other}, end: "PR", err: ErrRejected},
		{why: "TLS at once without ALPN", send: []string{none}, end: "PR", err: ErrRejected},
		{why: "TLS at once, broken", send: []string{"\x16\x03\x01\x00\x00"}, end: "PR", err: ErrClientHello},
		{why: "no end of ClientHello", send: []string{endless}, end: "PR", err: ErrRejected},

		{why: "a session behind SSLRequest", plain: plain, send: []string{sslRequest + annStarts}, end: "PR", err: ErrRejected},
		{why: "one byte behind SSLRequest", send: []string{sslRequest + "\x16"}, end: "PR", err: ErrRejected},
		{why: "a session behind GSSENCRequest", plain: plain, send: []string{gssRequest + annStarts}, end: "PR", err: ErrRejected},
		{why: "a session after the answer", plain: plain, send: []string{sslRequest, "-", annStarts}, want: "S", end: "PR", err: ErrRejected},
		{why: "SSLRequest again", plain: plain, send: []string{sslRequest, "-", sslRequest}, want: "S", end: "PR", err: ErrRejected},
		{why: "GSSENCRequest again", plain: plain, send: []string{gssRequest, "-", gssRequest}, want: "N", end: "PR", err: ErrRejected},
		{why: "TLS after GSSENCRequest", plain: plain, send: []string{gssRequest, "-", direct[:5]}, want: "N", end: "PR", err: ErrRejected},
		{why: "another protocol", plain: plain, send: []string{"GET / HTTP/1.1\r\n\r\n"}, end: "PR", err: ErrRejected},

		{why: "no TLS", send: []string{annStarts}, want: refused, end: "PR", err: ErrRejected},
		{why: "no TLS, in pieces", send: []string{annStarts[:9], "-", annStarts[9:]}, want: refused, end: "PR", err: ErrRejected},
		{why: "no TLS after GSSENCRequest", send: []string{gssRequest, "-", annStarts}, want: "N" + refused, end: "PR", err: ErrRejected},
		{why: "a cancel without TLS", send: []string{cancelKey}, end: "PR", err: ErrRejected},
		{why: "no TLS, by choice", plain: plain, send: []string{annStarts + "more", "end"}, want: "plain " + annStarts + "more", end: "--"},
		{why: "no TLS after GSSENCRequest, by choice", plain: plain, send: []string{gssRequest, "-", annStarts, "end"}, want: "Nplain " + annStarts, end: "--"},
		{why: "a cancel without TLS, by choice", plain: plain, send: []string{cancelKey, "end"}, want: "plain " + cancelKey, end: "--"},

		{why: "a look at the port", send: []string{"end"}, end: "CR"},
		{why: "half a request", send: []string{sslRequest[:7], "end"}, end: "CR", err: io.EOF},
		{why: "has seen the answer", send: []string{sslRequest, "-", "end"}, want: "S", end: "CR", err: io.EOF},
		{why: "half a session", send: []string{annStarts[:9], "end"}, end: "CR", err: io.EOF},
		{why: "silence", send: silence, end: "cR", err: os.ErrDeadlineExceeded},
		{why: "silence after the answer", send: append([]string{"-", sslRequest}, silence[:5]...), want: "S", end: "cR", err: os.ErrDeadlineExceeded},
		{why: "byte by byte", send: strings.Split(strings.Join(strings.Split(sslRequest, ""), " - "), " ")[:10], end: "cR", err: os.ErrDeadlineExceeded},
	} {
		t.Run(tt.why, func(t *testing.T) {
			world(t, func(t *testing.T, n *l4test.Network) {
				h := &AcceptPostgreSQL{Next: names("tls"), Plain: tt.plain}
				records, errs := make(chan *Record, 1), make(chan error, 1)
				var serves HandlerFunc = func(ctx context.Context, c net.Conn) error { errs <- h.ServeConn(ctx, c); return nil }
				s := &Server{Handler: serves, Logger: quiet, OnDone: func(r *Record) { records <- &Record{Termination: r.Termination, Err: r.Err} }}
				ended := serve(s, listen(t, n, "10.0.0.1:5432"))
				c := dial(t, n, "10.0.0.1:5432")
				for _, text := range tt.send {
					switch text {
					case "-":
						time.Sleep(1100 * time.Millisecond) // never when Timeout is over
					case "end":
						c.CloseWrite()
					default:
						io.WriteString(c, text) // it may be closed by now
						synctest.Wait()
					}
				}
				got, err := io.ReadAll(c)
				require.NoError(t, err, "closed, not reset")
				require.Equal(t, tt.want, string(got))
				r := <-records
				require.Equal(t, tt.end, r.Termination.String(), r.Err)
				if err := <-errs; tt.err == nil {
					require.NoError(t, err)
				} else {
					require.ErrorIs(t, err, tt.err)
					require.ErrorIs(t, r.Err, tt.err)
				}
				require.NoError(t, s.Close())
				require.ErrorIs(t, ended(), ErrServerClosed)
			})
		})
	}
}

// TestAcceptPostgreSQLLeavesNoDeadline: the timeout is over with the beginning.
func TestAcceptPostgreSQLLeavesNoDeadline(t *testing.T) {
	for _, first := range []string{sslRequest, annStarts} {
		synctest.Test(t, func(t *testing.T) {
			client, server := l4test.Pipe()
			h := &AcceptPostgreSQL{Next: echo, Plain: echo}
			done := make(chan error, 1)
			go func() { done <- h.ServeConn(t.Context(), server) }()
			send(t, client, first)
			if first == sslRequest {
				wantRead(t, client, "S")
				first = "\x16"
				send(t, client, first)
			}
			wantRead(t, client, first)
			time.Sleep(time.Hour)
			wantEcho(t, client, "x")
			client.Close()
			require.NoError(t, <-done)
		})
	}
}

// TestRequestPostgreSQLReadsOneByte: what follows the answer is of TLS, which fails if it
// is not.
func TestRequestPostgreSQLReadsOneByte(t *testing.T) {
	for _, tt := range []struct {
		answer string
		err    error
	}{
		{"S", nil}, {"N", ErrTLS}, {"E", ErrTLS}, {"", io.EOF},
	} {
		client, server := l4test.Pipe()
		send(t, server, tt.answer)
		if tt.answer != "" {
			send(t, server, "more")
		}
		server.CloseWrite()
		c, err := RequestPostgreSQL(t.Context(), nil, client, nil)
		wantRead(t, server, sslRequest)
		if tt.err != nil {
			require.ErrorIs(t, err, tt.err)
			continue
		}
		require.NoError(t, err)
		wantRead(t, c, "more")
	}
}

// FuzzAcceptPostgreSQL: whatever comes, in one segment or byte by byte, Next sees nothing
// but TLS, Plain nothing but a session or a cancel, and neither less than what was sent.
func FuzzAcceptPostgreSQL(f *testing.F) {
	hello := string(clientHello(f, &tls.Config{ServerName: "a.test", NextProtos: []string{"postgresql"}}))
	for _, s := range []string{
		sslRequest + hello, gssRequest + sslRequest + hello, hello, sslRequest + annStarts, gssRequest + annStarts, annStarts,
		cancelKey, gssRequest + gssRequest, sslRequest + sslRequest, "GET /", "",
	} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, b []byte, bytewise bool) {
		c := &scriptConn{}
		var in io.Reader = bytes.NewReader(b)
		if bytewise {
			in = iotest.OneByteReader(in)
		}
		by, got := "", []byte(nil)
		takes := func(name string) Handler {
			return HandlerFunc(func(_ context.Context, c net.Conn) (err error) {
				by = name
				got, err = io.ReadAll(c)
				return errors.Join(err, c.Close())
			})
		}
		h := &AcceptPostgreSQL{Next: takes("next"), Plain: takes("plain"), Timeout: -1}
		err := h.ServeConn(t.Context(), readsFrom{c, in})
		out, rest := c.out.String(), b
		require.Contains(t, []string{"", "N", "S", "NS"}, out)
		for _, answer := range out {
			request := map[rune]string{'S': sslRequest, 'N': gssRequest}[answer]
			require.True(t, bytes.HasPrefix(rest, []byte(request)))
			rest = rest[len(request):]
		}
		switch {
		case by == "":
			require.True(t, err != nil || len(b) == 0, "%q is dropped without a word", b)
			return
		case by == "next":
			require.EqualValues(t, recordHandshake, got[0])
			require.True(t, bytewise || out == "", "%q: bytes ahead of an answer", b)
		default:
			version := binary.BigEndian.Uint32(got[4:])
			require.True(t, version>>16 == 3 || version == 1234<<16|5678, "%x", version)
			require.NotContains(t, out, "S")
		}
		require.Equal(t, rest, got)
	})
}

// readsFrom is a scriptConn that reads from elsewhere.
type readsFrom struct {
	*scriptConn
	in io.Reader
}

func (c readsFrom) Read(p []byte) (int, error) { return c.in.Read(p) }
