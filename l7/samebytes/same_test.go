// SPDX-License-Identifier: Apache-2.0

package samebytes

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// A story is what a client asks a handler for.
type story struct {
	name      string
	handler   func(n *l4test.Network) http.Handler
	asks      []ask
	secure    bool             // over TLS of the listener
	vary      []*regexp.Regexp // what differs from run to run
	headsOnly bool             // the bodies differ from run to run
	differs   string           // why the servers do; empty if they do not
	over      int              // the version of HTTP over which they do, if not both
}

// An ask is a request: method, target and version of HTTP/1, or a form of it, and
// fields. What stands behind the empty line is sent as it is.
type ask struct {
	line   string // such as "GET /"
	fields string // lines that end in \n
	body   string
	raw    string // sent behind the request, as by somebody who changes the protocol
	until  string // the end of what comes back; empty means all
	only   int    // the version of HTTP, if not both
}

func get(target string, fields ...string) ask {
	return ask{line: "GET " + target, fields: lines(fields)}
}

func lines(fields []string) string {
	var b strings.Builder
	for _, f := range fields {
		b.WriteString(f + "\n")
	}
	return b.String()
}

const addr = "192.0.2.80:80"

// servers are the two that are compared.
var servers = map[string]func(h http.Handler) server{
	"http.Server": func(h http.Handler) server {
		p := new(http.Protocols)
		p.SetHTTP1(true)
		p.SetUnencryptedHTTP2(true)
		p.SetHTTP2(true)
		return &http.Server{Handler: h, Protocols: p, ErrorLog: log.New(io.Discard, "", 0)}
	},
	"l7.Server": func(h http.Handler) server {
		return &l7.Server{Handler: h, MaxHeaderBytes: http.DefaultMaxHeaderBytes, Logger: slog.New(slog.DiscardHandler)}
	},
}

type server interface {
	Serve(net.Listener) error
	Shutdown(context.Context) error
}

// TestSameBytes tells each story to both servers.
func TestSameBytes(t *testing.T) {
	for _, s := range stories() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			for _, version := range []int{1, 2} {
				differs := s.differs != "" && (s.over == 0 || s.over == version)
				var want, have []string
				same := false
				// How bytes are divided into chunks and in which order frames come is a
				// matter of time where two goroutines write: a difference is one if it is
				// there each time.
				for try := 0; try < 4 && !same; try++ {
					want, have = s.tell(t, servers["http.Server"], version), s.tell(t, servers["l7.Server"], version)
					if same = slices.Equal(want, have); differs {
						break
					}
				}
				switch {
				case same && differs:
					t.Errorf("the same now: %s", s.differs)
				case !same && !differs:
					for i := range want {
						if want[i] != have[i] {
							t.Errorf("HTTP/%d, %s", version, differ(want[i], have[i]))
						}
					}
				}
			}
		})
	}
}

// differ shows where a and b begin to differ.
func differ(a, b string) string {
	i := 0
	for i < min(len(a), len(b)) && a[i] == b[i] {
		i++
	}
	around := func(s string) string {
		return strings.ReplaceAll(fmt.Sprintf("%q", s[max(0, i-200):min(len(s), i+300)]), `\r\n`, "\n\t")
	}
	line, _, _ := strings.Cut(a, "\n")
	return fmt.Sprintf("%s\nhttp.Server, %d bytes: %s\nl7.Server, %d bytes: %s", line, len(a), around(a), len(b), around(b))
}

// tell returns what a client gets, one string for each connection or reply.
func (s *story) tell(t *testing.T, make func(http.Handler) server, version int) []string {
	n := l4test.NewNetwork()
	ln, err := n.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if s.secure {
		ln = tls.NewListener(ln, &tls.Config{
			NextProtos:     []string{"h2", "http/1.1", "acme-tls/1"},
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certificate() },
		})
	}
	srv := make(s.handler(n))
	done := startServing(srv, ln)
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}()
	var all []string
	for _, a := range s.asks {
		if a.only != 0 && a.only != version {
			continue
		}
		var got string
		if version == 1 {
			got = s.askOne(t, n, a)
		} else {
			got = s.askTwo(t, n, a)
		}
		all = append(all, a.line+"\n"+s.masked(got))
	}
	if version == 1 {
		all = append(all, s.masked(s.askAll(t, n)))
	}
	return all
}

func startServing(srv server, ln net.Listener) <-chan error {
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	return done
}

var date = regexp.MustCompile(`(?m)^((?:Date|Last-Modified): ).*(\r)$`)

func (s *story) masked(got string) string {
	got = date.ReplaceAllString(got, "${1}...$2")
	for _, v := range s.vary {
		got = v.ReplaceAllString(got, "...")
	}
	return got
}

// bytesOf returns a request of HTTP/1.
func (a ask) bytesOf(last bool) string {
	var b strings.Builder
	b.WriteString(a.line + " HTTP/1.1\r\nHost: a.test\r\n" + strings.ReplaceAll(a.fields, "\n", "\r\n"))
	if a.body != "" {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(a.body))
	}
	if last && a.raw == "" && !strings.Contains(a.fields, "Connection:") {
		b.WriteString("Connection: close\r\n")
	}
	b.WriteString("\r\n" + a.body + a.raw)
	return b.String()
}

func (s *story) dial(t *testing.T, n *l4test.Network, protos ...string) net.Conn {
	c, err := n.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if s.secure {
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true, ServerName: "a.test", NextProtos: protos})
	}
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	return c
}

// askOne asks over a connection of its own and returns all that comes.
func (s *story) askOne(t *testing.T, n *l4test.Network, a ask) string {
	c := s.dial(t, n, "http/1.1")
	defer c.Close()
	req, frames := a.bytesOf(true), ""
	if a.until != "" { // frames of a client that waits for the 101
		req, frames = strings.TrimSuffix(req, a.raw), a.raw
	}
	if _, err := io.WriteString(c, req); err != nil {
		t.Error(err)
	}
	var b []byte
	if frames != "" {
		b = ask{until: "\r\n\r\n"}.read(c)
		_, _ = io.WriteString(c, frames)
	}
	b = append(b, a.read(c)...)
	if s.headsOnly {
		b, _, _ = bytes.Cut(b, []byte("\r\n\r\n"))
	}
	return string(b)
}

// read reads all that comes, or up to what has to be the end. How a connection ends
// that has replied to all is not looked at: what the client has sent and nobody has
// read may reset it.
func (a ask) read(c net.Conn) []byte {
	var b []byte
	for piece := make([]byte, 4<<10); a.until == "" || !bytes.HasSuffix(b, []byte(a.until)); {
		n, err := c.Read(piece)
		if b = append(b, piece[:n]...); err != nil {
			break
		}
	}
	return b
}

// askAll asks for everything over one connection.
func (s *story) askAll(t *testing.T, n *l4test.Network) string {
	c := s.dial(t, n, "http/1.1")
	defer c.Close()
	var all []ask
	for _, a := range s.asks {
		if a.raw == "" && a.only != 2 && !strings.Contains(a.fields, "Connection:") {
			all = append(all, a)
		}
	}
	if len(all) == 0 || s.headsOnly {
		return ""
	}
	go func() {
		for i, a := range all {
			_, _ = io.WriteString(c, a.bytesOf(i == len(all)-1))
		}
	}()
	return string(ask{}.read(c))
}

// askTwo asks over HTTP/2.
func (s *story) askTwo(t *testing.T, n *l4test.Network, a ask) string {
	if a.raw != "" {
		return ""
	}
	p := new(http.Protocols)
	p.SetHTTP2(true)
	p.SetUnencryptedHTTP2(true)
	tr := &http.Transport{
		Protocols: p, DisableCompression: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return n.DialContext(ctx, network, addr)
		},
	}
	defer tr.CloseIdleConnections()
	method, target, _ := strings.Cut(a.line, " ")
	scheme := "http://a.test"
	if s.secure {
		scheme = "https://a.test"
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, scheme+target, strings.NewReader(a.body))
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(a.fields) {
		name, value, _ := strings.Cut(strings.TrimSpace(l), ": ")
		req.Header.Add(name, value)
	}
	res, err := tr.RoundTrip(req)
	if err != nil {
		return err.Error()
	}
	body, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if s.headsOnly {
		body = nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %d\r\n", res.Proto, res.Status, res.ContentLength)
	_ = res.Header.Write(&b)
	fmt.Fprintf(&b, "\r\n%s\r\n%v\r\n", body, err)
	_ = res.Trailer.Write(&b)
	return b.String()
}

func certificate() (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"a.test"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
