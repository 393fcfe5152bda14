// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// A field that one side keeps out of compression tables is kept out of them on the
// other side too, in heads and trailers both ways (RFC 7541, section 7.1.3). The
// others enter them.
func TestSensitiveFieldsStayOutOfTables(t *testing.T) {
	secret := func(name, value string) hpack.HeaderField {
		return hpack.HeaderField{Name: name, Value: value, Sensitive: true}
	}
	plain := func(name, value string) hpack.HeaderField { return hpack.HeaderField{Name: name, Value: value} }
	onHTTP2(t, new(l7.Server), func(n *l4test.Network) http.Handler {
		p := newProxy(n, one)
		p.Upstream.Protocols = protocols("h2c")
		return p
	}, func(t *testing.T, f *front) {
		asked := make(chan []hpack.HeaderField, 2)
		serveOrigin(t, f.network, one, func(c *l4test.Conn, br *bufio.Reader) {
			_, _ = io.ReadFull(br, make([]byte, len(http2.ClientPreface)))
			fr := http2.NewFramer(c, br)
			fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
			_ = fr.WriteSettings()
			var b bytes.Buffer
			enc := hpack.NewEncoder(&b)
			block := func(fields ...hpack.HeaderField) []byte {
				b.Reset()
				for _, f := range fields {
					_ = enc.WriteField(f)
				}
				return b.Bytes()
			}
			for {
				fm, err := fr.ReadFrame()
				if err != nil {
					return
				}
				h, ok := fm.(*http2.MetaHeadersFrame)
				if !ok {
					continue
				}
				asked <- h.Fields
				if h.StreamEnded() {
					_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: h.StreamID, EndHeaders: true, BlockFragment: block(plain(":status", "200"), secret("x-key", "reply"), plain("x-open", "reply"))})
					_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: h.StreamID, EndHeaders: true, EndStream: true, BlockFragment: block(secret("x-sum", "trailer"))})
				}
			}
		})
		c := newH2Client(t, f.network)
		for id := uint32(1); id < 6; id += 2 {
			c.buf.Reset()
			for _, f := range []hpack.HeaderField{plain(":method", "POST"), plain(":scheme", "http"), plain(":authority", "a.test"), plain(":path", "/"), secret("x-key", "request"), plain("x-open", "request"), plain("cookie", "a=b"), secret("cookie", "c=d")} {
				require.NoError(t, c.enc.WriteField(f))
			}
			require.NoError(t, c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.buf.Bytes(), EndHeaders: true}))
			c.buf.Reset()
			require.NoError(t, c.enc.WriteField(secret("x-sum", "trailer")))
			require.NoError(t, c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.buf.Bytes(), EndHeaders: true, EndStream: true}))
			c.read(time.Second, func() bool { return c.ended[id] && c.status[id] != "" })

			head, trailer := <-asked, <-asked
			require.Contains(t, head, secret("x-key", "request"))
			require.Contains(t, head, plain("x-open", "request"))
			require.Contains(t, head, secret("cookie", "a=b; c=d"))
			require.Contains(t, trailer, secret("x-sum", "trailer"))
			require.Contains(t, c.fields[id], secret("x-key", "reply"))
			require.Contains(t, c.fields[id], plain("x-open", "reply"))
			require.Contains(t, c.fields[id], secret("x-sum", "trailer"))
		}
	})
}

// The target is kept out of tables as well, whose query may be a secret, and all of
// that in a mirrored copy too.
func TestSensitiveTargetsAndCopies(t *testing.T) {
	mirror := new(l7.Mirror)
	onHTTP2(t, new(l7.Server), func(n *l4test.Network) http.Handler {
		p, copies := newProxy(n, one), newProxy(n, two)
		p.Upstream.Protocols, copies.Upstream.Protocols = protocols("h2c"), protocols("h2c")
		mirror.To = copies
		p.Mirror = mirror
		return l7.HandlerFunc(func(x *l7.Exchange) {
			x.Header.Set("X-Set", "by a handler")
			p.ServeExchange(x)
		})
	}, func(t *testing.T, f *front) {
		asked := make(chan []hpack.HeaderField, 2)
		for _, addr := range []string{one, two} {
			serveOrigin(t, f.network, addr, func(c *l4test.Conn, br *bufio.Reader) {
				_, _ = io.ReadFull(br, make([]byte, len(http2.ClientPreface)))
				fr := http2.NewFramer(c, br)
				fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
				_ = fr.WriteSettings()
				for {
					fm, err := fr.ReadFrame()
					if err != nil {
						return
					}
					if h, ok := fm.(*http2.MetaHeadersFrame); ok {
						asked <- h.Fields
						_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: h.StreamID, EndHeaders: true, EndStream: true, BlockFragment: []byte{0x88}}) // :status 200
					}
				}
			})
		}
		field := func(sensitive bool, name, value string) hpack.HeaderField {
			return hpack.HeaderField{Name: name, Value: value, Sensitive: sensitive}
		}
		c := newH2Client(t, f.network)
		for i, sensitive := range []bool{true, false, true} {
			id := uint32(1 + 2*i)
			c.buf.Reset()
			for _, f := range []hpack.HeaderField{field(false, ":method", "GET"), field(false, ":scheme", "http"), field(false, ":authority", "a.test"), field(sensitive, ":path", "/?key=secret"), field(sensitive, "x-key", "secret"), field(sensitive, "x-set", "secret")} {
				require.NoError(t, c.enc.WriteField(f))
			}
			require.NoError(t, c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.buf.Bytes(), EndHeaders: true, EndStream: true}))
			c.read(time.Second, func() bool { return c.ended[id] })
			for range 2 {
				head := <-asked
				require.Contains(t, head, field(sensitive, ":path", "/?key=secret"))
				require.Contains(t, head, field(sensitive, "x-key", "secret"))
				require.Contains(t, head, field(sensitive, "x-set", "by a handler"))
			}
		}
		mirror.Wait()
	})
}
