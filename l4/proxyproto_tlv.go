// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"crypto/tls"
	"encoding/binary"
)

// A TLV is an extension of a version 2 PROXY header.
type TLV struct {
	Type  TLVType
	Value []byte // at most 65535 bytes; nil is an empty value
}

// TLVType says what the value of a [TLV] is. The types from 0xE0 to 0xEF are
// free for applications, those from 0xF0 to 0xF7 for experiments (section 2.2.8).
type TLVType byte

// The registered types (section 2.2).
const (
	TLVALPN      TLVType = 0x01 // protocol chosen by ALPN
	TLVAuthority TLVType = 0x02 // host name the client asked for: the SNI
	TLVCRC32C    TLVType = 0x03 // checksum of the whole header, 4 bytes
	TLVNoop      TLVType = 0x04 // padding
	TLVUniqueID  TLVType = 0x05 // opaque, at most 128 bytes
	TLVSSL       TLVType = 0x20 // a [ProxySSL]
	TLVNetNS     TLVType = 0x30 // name of the network namespace
)

// The types found inside a [ProxySSL] (section 2.2.6).
const (
	TLVSSLVersion    TLVType = 0x21 // "TLSv1.3"
	TLVSSLCommonName TLVType = 0x22 // of the client's certificate
	TLVSSLCipher     TLVType = 0x23 // name of the cipher suite
	TLVSSLSigAlg     TLVType = 0x24 // that signed the certificate of the server
	TLVSSLKeyAlg     TLVType = 0x25 // of the key of the certificate of the server
	TLVSSLGroup      TLVType = 0x26 // key exchange
	TLVSSLSigScheme  TLVType = 0x27 // that the server signed the handshake with
	TLVSSLClientCert TLVType = 0x28 // the client's certificate, DER
)

// The bits of [ProxySSL.Client].
const (
	ProxyClientSSL      = 0x01 // the client used TLS
	ProxyClientCertConn = 0x02 // and gave a certificate on this connection
	ProxyClientCertSess = 0x04 // or when the session that was resumed began
)

// ProxySSL is the value of a [TLVSSL] extension: the TLS side of the client's
// connection, as the proxy before us saw it.
type ProxySSL struct {
	Client byte   // bits ProxyClientSSL, ...
	Verify uint32 // 0 if the client gave a certificate and it was found good
	TLVs   []TLV  // TLVSSLVersion and others
}

// TLV returns the value of the first inner extension of type t.
func (s *ProxySSL) TLV(t TLVType) (value []byte, ok bool) { return findTLV(s.TLVs, t) }

// SSL reads the [TLVSSL] extension; false if h has none. It shares the memory
// of h.
func (h *ProxyHeader) SSL() (ProxySSL, bool) {
	v, ok := h.TLV(TLVSSL)
	if !ok {
		return ProxySSL{}, false
	}
	s, err := parseProxySSL(v)
	return s, err == nil
}

// Extension is s as an extension of a header. A value that does not fit in
// 65535 bytes is refused when the header is written.
func (s ProxySSL) Extension() TLV {
	v := binary.BigEndian.AppendUint32([]byte{s.Client}, s.Verify)
	for _, t := range s.TLVs {
		v = appendTLV(v, t)
	}
	return TLV{Type: TLVSSL, Value: v}
}

// TLSExtensions describes a TLS connection of a client to the next server: the
// protocol of ALPN and the SNI if there are any, and a [TLVSSL] extension with
// the version, the cipher suite under its IANA name, and the common name of the
// client's certificate.
func TLSExtensions(cs *tls.ConnectionState) []TLV {
	var out []TLV
	if cs.NegotiatedProtocol != "" {
		out = append(out, TLV{TLVALPN, []byte(cs.NegotiatedProtocol)})
	}
	if cs.ServerName != "" {
		out = append(out, TLV{TLVAuthority, []byte(cs.ServerName)})
	}
	s := ProxySSL{Client: ProxyClientSSL, Verify: 1}
	s.TLVs = append(s.TLVs,
		TLV{TLVSSLVersion, []byte(sslVersionName(cs.Version))},
		TLV{TLVSSLCipher, []byte(tls.CipherSuiteName(cs.CipherSuite))})
	if len(cs.PeerCertificates) > 0 {
		s.Client |= ProxyClientCertSess
		if !cs.DidResume {
			s.Client |= ProxyClientCertConn
		}
		if len(cs.VerifiedChains) > 0 {
			s.Verify = 0
		}
		s.TLVs = append(s.TLVs, TLV{TLVSSLCommonName, []byte(cs.PeerCertificates[0].Subject.CommonName)})
	}
	return append(out, s.Extension())
}

// sslVersionName is the name that OpenSSL, and so every receiver, knows.
func sslVersionName(v uint16) string {
	switch v {
	case tls.VersionTLS10:
		return "TLSv1"
	case tls.VersionTLS11:
		return "TLSv1.1"
	case tls.VersionTLS12:
		return "TLSv1.2"
	case tls.VersionTLS13:
		return "TLSv1.3"
	}
	return tls.VersionName(v)
}

func findTLV(tlvs []TLV, t TLVType) ([]byte, bool) {
	for _, e := range tlvs {
		if e.Type == t {
			return e.Value, true
		}
	}
	return nil, false
}

// parseTLVs reads extensions until b is used up. It never reads past b: a
// length that does and bytes too few for an extension are errors.
func parseTLVs(b []byte) ([]TLV, error) {
	var out []TLV
	if n := countTLVs(b); n > 0 { // there may be 20,000
		out = make([]TLV, 0, n)
	}
	for len(b) > 0 {
		if len(b) < 3 {
			return nil, proxyErrorf("%d bytes left after the last extension", len(b))
		}
		n := int(binary.BigEndian.Uint16(b[1:]))
		if n > len(b)-3 {
			return nil, proxyErrorf("extension %#02x of %d bytes, with %d left", b[0], n, len(b)-3)
		}
		out = append(out, TLV{TLVType(b[0]), b[3 : 3+n : 3+n]})
		b = b[3+n:]
	}
	return out, nil
}

// countTLVs returns how many extensions there are in b, as far as they are valid.
func countTLVs(b []byte) (n int) {
	for len(b) >= 3 {
		end := 3 + int(binary.BigEndian.Uint16(b[1:]))
		if end > len(b) {
			break
		}
		b = b[end:]
		n++
	}
	return n
}

func parseProxySSL(v []byte) (ProxySSL, error) {
	if len(v) < 5 {
		return ProxySSL{}, proxyErrorf("SSL extension of %d bytes", len(v))
	}
	tlvs, err := parseTLVs(v[5:])
	return ProxySSL{Client: v[0], Verify: binary.BigEndian.Uint32(v[1:]), TLVs: tlvs}, err
}

func appendTLV(b []byte, t TLV) []byte {
	b = append(b, byte(t.Type), byte(len(t.Value)>>8), byte(len(t.Value)))
	return append(b, t.Value...)
}
