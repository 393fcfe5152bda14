// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
)

// TestSendProxyBeforeTLS chains both: the header is in the clear, in front.
func TestSendProxyBeforeTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := l4test.NewNetwork()
		header := v2(0x21, 0x11, "\xc0\x00\x02\x01\xc0\x00\x02\x02\xc0\x00\x00\x50")
		o := startOrigin(t, n, "10.0.0.1:443", testConfig(t, "a.test"), len(header))
		client, end := l4test.Pipe()
		up, err := n.DialContext(t.Context(), "tcp", "10.0.0.1:443")
		require.NoError(t, err)
		h := Handshakes((&SendProxy{}).Handshake, (&OriginateTLS{Config: &tls.Config{InsecureSkipVerify: true}}).Handshake)
		c, err := h(t.Context(), end, up, poolOf(t, "10.0.0.1:443").Server("10.0.0.1:443"))
		require.NoError(t, err)
		require.Equal(t, header, string(<-o.first))
		<-o.states
		for _, c := range []net.Conn{c, client, end} {
			c.Close()
		}
		failed := errors.New("failed")
		_, err = Handshakes(func(context.Context, net.Conn, net.Conn, *balance.Server) (net.Conn, error) { return nil, failed }, h)(t.Context(), end, up, nil)
		require.ErrorIs(t, err, failed)
	})
}

func TestSendProxyExtensions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sent := func(p *SendProxy, client net.Conn) ProxyHeader {
			a, b := l4test.Pipe()
			defer a.Close()
			defer b.Close()
			_, err := p.Handshake(t.Context(), client, a, nil)
			require.NoError(t, err)
			require.NoError(t, a.CloseWrite())
			wire, err := io.ReadAll(b)
			require.NoError(t, err)
			h, n, err := ParseProxyHeader(wire)
			require.NoError(t, err)
			require.Len(t, wire, n)
			return h
		}
		full := &SendProxy{
			Checksum: true, Details: true,
			UniqueID: func(net.Conn) []byte { return []byte("id-1") },
			Extra:    func(net.Conn, *balance.Server) []TLV { return []TLV{{0xE1, []byte("foo")}, {0xE2, nil}} },
		}
		cfg := testConfig(t, "a.test")
		cfg.NextProtos = []string{"h2"}
		c, s := handshaken(t, cfg, &tls.Config{ServerName: "a.test", InsecureSkipVerify: true, NextProtos: []string{"h2"}})
		defer c.Close()
		defer s.Close()
		for _, client := range []net.Conn{s, NewConn(s)} {
			h := sent(full, client)
			require.Equal(t, s.RemoteAddr().String(), h.Source.String())
			require.Equal(t, "id-1", string(must(h.TLV(TLVUniqueID))))
			require.Equal(t, "a.test", string(must(h.TLV(TLVAuthority))))
			require.Equal(t, "h2", string(must(h.TLV(TLVALPN))))
			require.Equal(t, "foo", string(must(h.TLV(0xE1))))
			require.Empty(t, must(h.TLV(0xE2)))
			require.Len(t, must(h.TLV(TLVCRC32C)), 4)
			ssl, ok := h.SSL()
			require.True(t, ok)
			require.Equal(t, "TLSv1.3", string(must(ssl.TLV(TLVSSLVersion))))
		}

		// Passed through: the name is in what the router has read ahead.
		passed := NewConn(&scriptConn{})
		first := clientHello(t, &tls.Config{ServerName: "b.test"})
		passed.nc.(*scriptConn).in.Reset(first)
		_, err := passed.Peek(len(first))
		require.NoError(t, err)
		h := sent(full, passed)
		require.Equal(t, "b.test", string(must(h.TLV(TLVAuthority))))
		require.Nil(t, h.Source, "a connection without addresses")

		h = sent(&SendProxy{Version: 1, Checksum: true, Details: true}, s)
		require.Equal(t, 1, h.Version)
		require.Equal(t, s.RemoteAddr().String(), h.Source.String())
	})
}
