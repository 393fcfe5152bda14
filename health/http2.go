// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"net"
	"net/http"

	"github.com/penstock-lb/penstock/balance"
)

// http2 sends req over an HTTP/2 connection of its own to e and hands the reply
// to use. Nothing is open when it returns.
func (d *Connect) http2(ctx context.Context, e balance.Endpoint, max int, req *http.Request, use func(*session, *http.Response) error) error {
	secure := *d
	if d.TLS != nil {
		secure.TLS = d.TLS.Clone()
		secure.TLS.NextProtos = []string{"h2"}
	}
	s, err := secure.open(ctx, e, max)
	defer s.close()
	if err != nil {
		return err
	}
	s.step = "HTTP/2"
	conn := func(context.Context, string, string) (net.Conn, error) { return s.c, nil }
	t := &http.Transport{
		Protocols:              new(http.Protocols),
		DialContext:            conn,
		DialTLSContext:         conn,
		DisableCompression:     true,
		MaxResponseHeaderBytes: int64(s.max),
	}
	t.Protocols.SetHTTP2(d.TLS != nil)
	t.Protocols.SetUnencryptedHTTP2(d.TLS == nil)
	cc, err := t.NewClientConn(ctx, req.URL.Scheme, "server:0") // the name is not looked at: conn is what it dials
	if err != nil {
		return s.failHTTP2(err)
	}
	defer cc.Close()
	defer s.close() // first, so that the transport cannot wait for the peer
	resp, err := cc.RoundTrip(req)
	if err != nil {
		return s.failHTTP2(err)
	}
	defer resp.Body.Close()
	return use(s, resp)
}

// failHTTP2 is fail for errors of the transport, which has many words for a
// connection that ended: what ended it says more.
func (s *session) failHTTP2(err error) error {
	if s.ctx.Err() != nil {
		return s.fail(err) // the transport closed the connection since its time was over
	}
	if end := s.raw.end.Load(); end != nil {
		err = *end
	}
	// A server of HTTP/2 begins with SETTINGS (RFC 9113, section 3.4), of type 4.
	if said := s.raw.said.Load(); said != nil && s.d.TLS == nil && !isTimeout(err) && (len(*said) < 4 || (*said)[3] != 4) {
		return s.error(CodeProtocol, "unexpected answer %s", quote(*said))
	}
	return s.fail(err)
}
