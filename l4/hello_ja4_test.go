// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4/l4test"
)

// chrome is what Chrome 143 offers, in its order, with values for GREASE added.
func chrome() *ClientHello {
	return &ClientHello{
		ServerName: "a.test", ALPN: []string{"h2", "http/1.1"}, Versions: []uint16{0x3a3a, tls.VersionTLS13, tls.VersionTLS12},
		CipherSuites: []uint16{
			0x8a8a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x009c, 0x009d, 0x002f, 0x0035,
		},
		Extensions: []uint16{
			0xfafa, 0x002d, 0x0033, 0x0010, 0xfe0d, 0x0017, 0x44cd, 0x0000, 0x000b, 0x000a, 0x002b, 0xff01, 0x0023, 0x0012, 0x0005, 0x000d, 0x001b, 0x1a1a,
		},
		SignatureSchemes: []tls.SignatureScheme{0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601},
	}
}

func TestJA4(t *testing.T) {
	with := func(edit func(*ClientHello)) *ClientHello {
		h := chrome()
		edit(h)
		return h
	}
	for _, tt := range []struct {
		why   string
		hello *ClientHello
		want  string
	}{
		{"a browser", chrome(), "t13d1516h2_8daaf6152771_d8a2da3f94cd"}, // as browserleaks.com says of it
		{"in another order", with(func(h *ClientHello) { slices.Reverse(h.Extensions); slices.Reverse(h.CipherSuites) }), "t13d1516h2_8daaf6152771_d8a2da3f94cd"},
		{"its older relative", with(func(h *ClientHello) {
			h.Extensions = []uint16{0, 5, 0xa, 0xb, 0xd, 0x10, 0x12, 0x15, 0x17, 0x1b, 0x23, 0x2b, 0x2d, 0x33, 0x4469, 0xff01}
		}), "t13d1516h2_8daaf6152771_e5627efa2ab1"}, // the example of the specification
		{"signatures in another order", with(func(h *ClientHello) { slices.Reverse(h.SignatureSchemes) }), "t13d1516h2_8daaf6152771_0a9cbcc21676"},
		{"no name, no protocol", with(func(h *ClientHello) {
			h.Extensions = []uint16{0x2b}
			h.ALPN, h.SignatureSchemes = nil, nil
		}), "t13i150100_8daaf6152771_"},
		{"QUIC", with(func(h *ClientHello) { h.Extensions = append(h.Extensions, 0x39); h.ALPN = []string{"h3"} }), "q13d1517h3_8daaf6152771_"},
		{"nothing", &ClientHello{legacy: 0x0300}, "ts3i000000_000000000000_000000000000"},
		{"only GREASE", &ClientHello{legacy: tls.VersionTLS12, CipherSuites: []uint16{0x0a0a}, Extensions: []uint16{0xeaea}}, "t12i000000_000000000000_000000000000"},
		{"too many", &ClientHello{CipherSuites: make([]uint16, 120), Extensions: make([]uint16, 120)}, "t00d999900_"},
		{"TLS 1.0", &ClientHello{Versions: []uint16{tls.VersionTLS10}}, "t10i000000_"},
		{"SSL 2.0", &ClientHello{legacy: 2}, "ts2i"}, {"what is to come", &ClientHello{legacy: 0x0305}, "t00i"},
		{"one letter", &ClientHello{ALPN: []string{"h"}}, "t00i0000hh_"}, {"an empty protocol", &ClientHello{ALPN: []string{""}}, "t00i000000_"},
		{"no letter", &ClientHello{ALPN: []string{"\xab"}}, "t00i0000ab_"}, {"none at the end", &ClientHello{ALPN: []string{"\x30\xab"}}, "t00i00003b_"},
		{"none at the beginning", &ClientHello{ALPN: []string{"\xab\xcd"}}, "t00i0000ad_"}, {"none between", &ClientHello{ALPN: []string{"\x30\xab\xcd\x31"}}, "t00i000001_"},
	} {
		got := tt.hello.JA4()
		require.Equal(t, tt.want, got[:len(tt.want)], tt.why)
		require.Len(t, got, ja4Bytes, tt.why)
	}
}

// What is read off the wire and what crypto/tls says of it make the same fingerprint.
func TestJA4IsThatOfCryptoTLS(t *testing.T) {
	for _, cfg := range []*tls.Config{
		{ServerName: "a.test", NextProtos: []string{"h2"}}, {InsecureSkipVerify: true}, {ServerName: "a.test", MaxVersion: tls.VersionTLS12},
	} {
		b := clientHello(t, cfg)
		h, err := ParseClientHello(b)
		require.NoError(t, err)
		require.Equal(t, helloOf(stdClientHello(b)).JA4(), h.JA4())
	}
}

// ja4Client is a client, and what JA4 calls it as long as it has no ticket.
func ja4Client(t *testing.T, edit func(*tls.Config)) (*tls.Config, string) {
	c := &tls.Config{ServerName: "a.test", InsecureSkipVerify: true, ClientSessionCache: tls.NewLRUClientSessionCache(0)}
	edit(c)
	h, err := ParseClientHello(clientHello(t, c))
	require.NoError(t, err)
	return c, h.JA4()
}

// The fingerprint is matched before TLS is ended and after, and is in the record; a
// handler finds it, and sessions are resumed.
func TestJA4OfConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, ja4One := ja4Client(t, func(c *tls.Config) { c.NextProtos = []string{"h2"} })
		two, ja4Two := ja4Client(t, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 })
		require.NotEqual(t, ja4One, ja4Two)
		says := func(what string) Handler {
			return HandlerFunc(func(_ context.Context, c net.Conn) error {
				defer c.Close()
				_, err := fmt.Fprint(c, what, " ", JA4Of(c), " ", c.(*Conn).TLS().DidResume)
				return err
			})
		}
		cfg := testConfig(t, "a.test")
		cfg.NextProtos = []string{"h2"}
		end := func(next Handler) Handler { return &TerminateTLS{Config: cfg, JA4: true, AnyALPN: true, Next: next} }
		inside := end(&Router{Routes: []Route{{Match: JA4("x", ja4One), Handler: says("one")}}, Default: says("other")})
		n := l4test.NewNetwork()
		ln, err := n.Listen("tcp", ":443")
		require.NoError(t, err)
		records := make(chan string, 1)
		s := &Server{
			OnDone:  func(r *Record) { records <- r.JA4 },
			Handler: &Router{Routes: []Route{{Match: JA4(ja4Two), Handler: end(says("two"))}}, Default: inside},
		}
		go s.Serve(ln)
		ask := func(cfg *tls.Config) string {
			c, err := n.DialContext(t.Context(), "tcp", "10.0.0.1:443")
			require.NoError(t, err)
			b, err := io.ReadAll(tls.Client(c, cfg))
			require.NoError(t, err)
			c.Close()
			return string(b)
		}
		for _, resumed := range []string{"false", "true"} {
			require.Equal(t, "two "+ja4Two+" "+resumed, ask(two))
			require.Equal(t, ja4Two, <-records)
			got := ask(one)
			ja4 := <-records
			require.Contains(t, got, ja4+" "+resumed)
			if resumed == "false" { // with a ticket, a client has an extension more
				require.Equal(t, "one "+ja4One+" false", got)
			}
		}
		require.Equal(t, "", JA4Of(&net.TCPConn{}))
		require.NoError(t, s.Close())
	})
}

func TestJA4MatcherWaits(t *testing.T) {
	cfg, ja4 := ja4Client(t, func(*tls.Config) {})
	b := clientHello(t, cfg)
	m := JA4(ja4)
	p := &Peeked{Conn: NewConn(&scriptConn{})}
	for _, tt := range []struct {
		data string
		want Verdict
	}{{"", NeedMore}, {string(b[:len(b)-1]), NeedMore}, {string(b), Yes}} {
		p.Data = []byte(tt.data)
		require.Equal(t, tt.want, m(p))
	}
	require.Equal(t, ja4, JA4Of(p.Conn))
	require.Equal(t, No, m(&Peeked{Conn: NewConn(&scriptConn{}), Data: []byte("GET / HTTP/1.1\r\n\r\n")}))
}

func BenchmarkJA4(b *testing.B) {
	h := chrome()
	b.ReportAllocs()
	for b.Loop() {
		_ = h.JA4()
	}
}
