// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"net/http"
	"net/url"
	"strings"

	"github.com/penstock-lb/penstock/l4"
)

// ForwardClientCert tells servers the TLS certificate of the client, as RFC 9440 has it
// (Client-Cert and Client-Cert-Chain), or as Envoy does (X-Forwarded-Client-Cert,
// "XFCC"), or both:
//
//	&l7.ForwardClientCert{Standard: true, Next: proxy}
//	&l7.ForwardClientCert{XFCC: l7.XFCCSet, Subject: true, URI: true, Next: proxy}
//
// What the client itself says in these three fields is removed in any case, in every
// spelling and in trailers, also if it has no certificate and without TLS, unless Trust
// says that it is a proxy of ours. Put it after [VerifyClient], if there is one, and
// leave it out nowhere: a server that trusts a field must get none but ours.
//
// Only certificates that were verified are told (VerifiedChains in Exchange.TLS), see
// Unverified. Values have what their certificate has in it, which is as trustworthy as
// the authority; they are escaped, so that no name passes for another element.
//
// [Record.Decision] says whether a certificate was told or fields were passed on.
type ForwardClientCert struct {
	Standard bool // sends Client-Cert (RFC 9440): the client's certificate
	Chain    bool // sends what the client has shown besides it, too: Client-Cert-Chain, and Chain in X-Forwarded-Client-Cert

	XFCC XFCC // what becomes of X-Forwarded-Client-Cert

	// The elements of X-Forwarded-Client-Cert. By is a URI that names this gateway, such
	// as the one in its own certificate; "" leaves it out. Hash, the SHA-256 of the
	// certificate, is always there.
	By      string
	Subject bool // the distinguished name (RFC 4514)
	Cert    bool // the certificate in PEM, encoded as in URLs
	URI     bool // URIs in the certificate, such as a SPIFFE ID
	DNS     bool // DNS names in the certificate

	// Trust says which clients are proxies of ours, whose fields are passed on: by their
	// certificate, as ClientCert does, or by RemoteIn. Their Client-Cert goes on as it
	// is, and where they send none their own certificate does not take its place: their
	// client has shown none. XFCC says what becomes of theirs. Nil means none.
	Trust Matcher

	// Unverified also tells certificates without a verified chain, for a TLSConfig that
	// verifies in a func of its own, as go-spiffe's do. Without such a func they prove
	// nothing.
	Unverified bool

	Next http.Handler

	checked
	known l4.PeerCache[*certFields]
}

// XFCC is what becomes of the field X-Forwarded-Client-Cert. The values are those of
// Envoy's forward_client_cert_details.
type XFCC uint8

// What the field has in the end.
const (
	XFCCNone    XFCC = iota // nothing: it is removed (Envoy's SANITIZE)
	XFCCSet                 // the client's certificate alone (SANITIZE_SET)
	XFCCAppend              // what a client that Trust names has sent, and its certificate after it (APPEND_FORWARD); of others as XFCCSet
	XFCCForward             // what a client that Trust names has sent (FORWARD_ONLY); nothing of others
)

func (m XFCC) String() string {
	return word(m, "sanitize", "sanitize_set", "append_forward", "forward_only")
}

const (
	clientCertField  = "Client-Cert"
	clientChainField = "Client-Cert-Chain"
	xfccField        = "X-Forwarded-Client-Cert"
)

// certFields are the values that a client's certificate makes; "" means none.
type certFields struct{ cert, chain, xfcc string }

// ServeHTTP implements [http.Handler].
func (h *ForwardClientCert) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(h, w, r) }

// ServeExchange implements [Handler].
func (h *ForwardClientCert) ServeExchange(x *Exchange) {
	var theirs certFields
	trusted := h.Trust != nil && Matches(h.Trust, x)
	if trusted {
		theirs = h.claimed(&x.Header)
	}
	var ours certFields
	if cert := clientCert(x.TLS, h.Unverified); cert != nil {
		ours = *h.fields(x.TLS, cert)
	}
	told := ours
	if trusted { // even if it is silent: its own certificate is not that of its client
		told.cert, told.chain = theirs.cert, theirs.chain
	}
	switch h.XFCC {
	case XFCCNone:
		told.xfcc = ""
	case XFCCForward:
		told.xfcc = theirs.xfcc
	case XFCCAppend:
		switch {
		case theirs.xfcc != "" && ours.xfcc != "":
			told.xfcc = theirs.xfcc + "," + ours.xfcc
		case theirs.xfcc != "":
			told.xfcc = theirs.xfcc
		}
	}
	setOrDel(&x.Header, clientCertField, told.cert)
	setOrDel(&x.Header, clientChainField, told.chain)
	setOrDel(&x.Header, xfccField, told.xfcc)
	switch {
	case told == certFields{}:
		x.Record.Decide("ForwardClientCert: none told")
	case theirs == certFields{}:
		x.Record.Decide("ForwardClientCert: told")
	default:
		x.Record.Decide("ForwardClientCert: passed on")
	}
	Serve(h.Next, x)
}

// setOrDel leaves one line of that name, or none, whatever the client has sent.
func setOrDel(f *Fields, name, value string) {
	f.Del(name)
	if value != "" {
		f.Add(name, value)
	}
}

// claimed returns what a trusted client says. What is malformed does not count: an open
// quote would swallow what is appended.
func (h *ForwardClientCert) claimed(f *Fields) (c certFields) {
	if h.Standard {
		c.cert = joined(f.Values(clientCertField), byteSequences)
		if strings.Contains(c.cert, ",") { // it is one item
			c.cert = ""
		}
		if c.cert != "" && h.Chain {
			c.chain = joined(f.Values(clientChainField), byteSequences)
		}
	}
	if h.XFCC >= XFCCAppend {
		c.xfcc = joined(f.Values(xfccField), validXFCC)
	}
	return c
}

// joined returns the lines of a list as one, "" if one of them is not valid.
func joined(lines func(func(string) bool), valid func(string) bool) string {
	all := ""
	for v := range lines {
		if !valid(v) {
			return ""
		}
		if all != "" {
			all += ", "
		}
		all += v
	}
	return all
}

// byteSequences reports whether s is a list of one or more byte sequences (RFC 9651,
// section 3.3.5) without parameters.
func byteSequences(s string) bool {
	for item := range strings.SplitSeq(s, ",") {
		item = trimOWS(item)
		if len(item) < 3 || item[0] != ':' || item[len(item)-1] != ':' {
			return false
		}
		if _, err := base64.StdEncoding.DecodeString(item[1 : len(item)-1]); err != nil {
			return false
		}
	}
	return true
}

// validXFCC reports whether each element of s has a key and a value, and each quote an
// end.
func validXFCC(s string) bool {
	for {
		key, rest, ok := strings.Cut(s, "=")
		if !ok || !isToken(key) {
			return false
		}
		if s = rest; strings.HasPrefix(s, `"`) {
			i := 1
			for i < len(s) && s[i] != '"' {
				if s[i] == '\\' {
					i++
				}
				i++
			}
			if i >= len(s) {
				return false
			}
			s = s[i+1:]
		} else {
			i := strings.IndexAny(s, `,;="`)
			if i < 0 {
				return true
			}
			s = s[i:]
		}
		switch {
		case s == "":
			return true
		case s[0] != ',' && s[0] != ';':
			return false
		}
		s = trimOWS(s[1:])
	}
}

// fields returns the values for a certificate, which are made once a connection.
func (h *ForwardClientCert) fields(cs *tls.ConnectionState, cert *x509.Certificate) *certFields {
	if f, ok := h.known.Load(cs); ok {
		return f
	}
	f := new(certFields)
	var more []*x509.Certificate
	if h.Chain && len(cs.PeerCertificates) > 1 {
		more = cs.PeerCertificates[1:]
	}
	if h.Standard {
		f.cert = byteSequence(cert.Raw)
		for i, c := range more {
			if i > 0 {
				f.chain += ", "
			}
			f.chain += byteSequence(c.Raw)
		}
	}
	if h.XFCC == XFCCSet || h.XFCC == XFCCAppend {
		f.xfcc = h.element(cert, more)
	}
	h.known.Store(cs, f)
	return f
}

func byteSequence(b []byte) string { return ":" + base64.StdEncoding.EncodeToString(b) + ":" }

// element returns the element of X-Forwarded-Client-Cert for a certificate, in the order
// that Envoy has.
func (h *ForwardClientCert) element(cert *x509.Certificate, more []*x509.Certificate) string {
	var b strings.Builder
	if h.By != "" {
		b.WriteString("By=" + h.By + ";")
	}
	sum := sha256.Sum256(cert.Raw)
	b.WriteString("Hash=" + hex.EncodeToString(sum[:]))
	if h.Cert {
		b.WriteString(`;Cert="` + escapedPEM(cert) + `"`)
	}
	if h.Chain {
		b.WriteString(`;Chain="` + escapedPEM(append([]*x509.Certificate{cert}, more...)...) + `"`)
	}
	if h.Subject {
		b.WriteString(`;Subject="` + escapedName(cert.Subject) + `"`)
	}
	if h.URI {
		for _, u := range cert.URIs {
			b.WriteString(";URI=" + xfccValue(u.String()))
		}
	}
	if h.DNS {
		for _, name := range cert.DNSNames {
			b.WriteString(";DNS=" + xfccValue(name))
		}
	}
	return b.String()
}

func escapedPEM(certs ...*x509.Certificate) string {
	var b []byte
	for _, c := range certs {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return strings.ReplaceAll(url.QueryEscape(string(b)), "+", "%20")
}

// escapedName returns a distinguished name by RFC 4514 in which quotes, backslashes and
// bytes that are not printable ASCII are in their hexadecimal form: it has no quote, and
// nothing escapes the quote after it, whatever rules its reader goes by.
func escapedName(n pkix.Name) string {
	s := n.String()
	var b strings.Builder
	hexadecimal := func(c byte) { b.WriteString(`\` + strings.ToUpper(hex.EncodeToString([]byte{c}))) }
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s) && strings.IndexByte(`"\`, s[i+1]) >= 0:
			i++
			hexadecimal(s[i])
		case c == '"', c < 0x20, c > 0x7e, c == '\\' && i+1 == len(s):
			hexadecimal(c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// xfccValue returns a value as it is, in quotes if it has a separator. A byte that would
// end the quotes, or is not printable ASCII, is encoded as in URLs.
func xfccValue(s string) string {
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"', c == '\\', c <= 0x20, c > 0x7e:
			b.WriteString("%" + strings.ToUpper(hex.EncodeToString([]byte{c})))
		default:
			b.WriteByte(c)
		}
	}
	if v := b.String(); strings.ContainsAny(v, ",;=") {
		return `"` + v + `"`
	}
	return b.String()
}

// Check returns what is wrong with h and its handler.
func (h *ForwardClientCert) Check() error { return checkAll(h) }

func (h *ForwardClientCert) check(c *checks) {
	c.If(h.XFCC > XFCCForward, "ForwardClientCert.XFCC", uint8(h.XFCC), "must be a constant of type l7.XFCC")
	c.If(h.XFCC >= XFCCAppend && h.Trust == nil, "ForwardClientCert.Trust", nil, "must name the proxies whose fields are passed on, such as RemoteIn")
	parts := h.By != "" || h.Subject || h.Cert || h.URI || h.DNS
	c.If(parts && (h.XFCC == XFCCNone || h.XFCC == XFCCForward), "ForwardClientCert.XFCC", h.XFCC, "must be XFCCSet or XFCCAppend, since there are elements to tell")
	c.If(h.By != "" && xfccValue(h.By) != h.By, "ForwardClientCert.By", h.By, "must be a URI without quotes, spaces, commas, semicolons and equals signs")
	c.matcher("ForwardClientCert.Trust", h.Trust)
	c.next("ForwardClientCert.Next", h.Next)
}
