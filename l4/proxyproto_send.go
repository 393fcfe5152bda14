// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"crypto/tls"
	"net"

	"github.com/penstock-lb/penstock/balance"
)

// SendProxy tells servers the client's address, by a PROXY header:
//
//	proxy.Handshake = (&l4.SendProxy{Checksum: true}).Handshake
//
// The addresses are the client's RemoteAddr and LocalAddr: those of the header
// that we accepted, if we did. The zero value sends version 2 without
// extensions. Its fields must not change once it is used; it may be used for
// any number of connections at once.
type SendProxy struct {
	Version int // 1 or 2; 0 means 2. All below is of version 2

	Checksum bool // add a [TLVCRC32C]

	// Details adds what [TLSExtensions] says of the client's TLS, if it ended
	// here; if it passes through, the name in its ClientHello, as far as that
	// was read ahead by a Router.
	Details bool

	// UniqueID returns the id of the connection, at most 128 bytes; nil means none.
	UniqueID func(client net.Conn) []byte

	// Extra returns more extensions; nil means none.
	Extra func(client net.Conn, s *balance.Server) []TLV
}

// Handshake writes the header to server, and is what Proxy.Handshake calls.
func (p *SendProxy) Handshake(_ context.Context, client, server net.Conn, s *balance.Server) (net.Conn, error) {
	if err := p.Check(); err != nil {
		return server, err
	}
	h := ProxyHeader{Version: p.Version, Source: client.RemoteAddr(), Destination: client.LocalAddr()}
	if p.Version != 1 {
		h.TLVs = p.extensions(client, s)
	}
	b, err := h.AppendBinary(nil)
	if err == nil {
		_, err = server.Write(b) // at once, as section 2.2 asks
	}
	return server, err
}

func (p *SendProxy) extensions(client net.Conn, s *balance.Server) (tlvs []TLV) {
	if p.Details {
		tlvs = clientDetails(client)
	}
	if p.UniqueID != nil {
		if id := p.UniqueID(client); len(id) > 0 {
			tlvs = append(tlvs, TLV{TLVUniqueID, id})
		}
	}
	if p.Extra != nil {
		tlvs = append(tlvs, p.Extra(client, s)...)
	}
	if p.Checksum {
		tlvs = append(tlvs, TLV{Type: TLVCRC32C})
	}
	return tlvs
}

func clientDetails(client net.Conn) []TLV {
	if state := tlsStateOf(client); state != nil {
		return TLSExtensions(state)
	}
	if c, ok := client.(*Conn); ok {
		if h, err := ParseClientHello(c.Buffered()); err == nil && h.ServerName != "" {
			return []TLV{{TLVAuthority, []byte(h.ServerName)}}
		}
	}
	return nil
}

// tlsStateOf is the state of the TLS that c is the inside of, or nil.
func tlsStateOf(c net.Conn) *tls.ConnectionState {
	switch c := c.(type) {
	case *Conn:
		return c.TLS()
	case interface{ ConnectionState() tls.ConnectionState }:
		state := c.ConnectionState()
		return &state
	}
	return nil
}
