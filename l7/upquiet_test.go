// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

const (
	rightReply = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nright"
	wrongReply = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong"
)

// oneSegment gathers what is written and sends it in one write.
type oneSegment struct {
	net.Conn
	held bytes.Buffer
	hold bool
}

func (c *oneSegment) Write(p []byte) (int, error) {
	if c.hold {
		return c.held.Write(p)
	}
	return c.Conn.Write(p)
}

func (c *oneSegment) send() {
	c.hold = false
	c.held.WriteTo(c.Conn)
}

// askThrough returns the body of the reply to a GET, or the error.
func askThrough(tr *l7.Transport) string {
	res, err := tr.RoundTrip(get("http://a.test/"))
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// A second reply of a server over TLS, in a record of its own but in the segment of the
// first, is in the *tls.Conn before the next request is sent. That request may be
// another client's.
func TestSecondReplyInTheSameSegmentOverTLS(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, ca := l4test.NewNetwork(), l4test.NewAuthority("test")
				ln, err := n.Listen("tcp", one)
				if err != nil {
					t.Fatal(err)
				}
				defer ln.Close()
				cfg := &tls.Config{Certificates: []tls.Certificate{ca.Issue("a.test")}, MaxVersion: version}
				go func() {
					for {
						nc, err := ln.Accept()
						if err != nil {
							return
						}
						go func() {
							defer nc.Close()
							seg := &oneSegment{Conn: nc}
							c := tls.Server(seg, cfg)
							for r := bufio.NewReader(c); ; {
								if _, err := http.ReadRequest(r); err != nil {
									return
								}
								seg.hold = true
								io.WriteString(c, rightReply)
								io.WriteString(c, wrongReply)
								seg.send()
							}
						}()
					}
				}()
				tr := &l7.Transport{Pool: newPool(one), Upstream: &l7.Upstream{Dial: n.DialContext, TLS: func(*balance.Server) *tls.Config {
					return &tls.Config{RootCAs: ca.Pool(), ServerName: "a.test"}
				}}}
				defer tr.CloseIdleConnections()
				for i := range 3 {
					if got := askThrough(tr); got != "right" {
						t.Errorf("request %d: %s; want right", i, got)
					}
				}
			})
		})
	}
}

// wrapped is a wrapper of a connection, as hosts write them.
type wrapped struct{ net.Conn }

func (w wrapped) NetConn() net.Conn { return w.Conn }

// What a server sends between two requests is seen through wrappers too.
func TestReplyBetweenRequestsTCP(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	more, sent := make(chan bool), make(chan bool)
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer nc.Close()
				for r := bufio.NewReader(nc); ; {
					if _, err := http.ReadRequest(r); err != nil {
						return
					}
					io.WriteString(nc, rightReply)
					<-more
					io.WriteString(nc, wrongReply)
					sent <- true
				}
			}()
		}
	}()
	var d net.Dialer
	tr := &l7.Transport{Pool: newPool(ln.Addr().String()), Upstream: &l7.Upstream{Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return wrapped{c}, nil
	}}}
	defer tr.CloseIdleConnections()
	for i := range 3 {
		if got := askThrough(tr); got != "right" {
			t.Errorf("request %d: %s; want right", i, got)
		}
		more <- true
		<-sent
	}
}

// A Dial that returns neither a connection nor an error has failed, like that of l4: the
// request goes to another server. A connection beside an error is closed.
func TestDialOfNoConnection(t *testing.T) {
	const failed = "l7: Upstream.Dial has returned no connection"
	for name, dial := range map[string]func() (string, net.Conn, error){
		"nil":            func() (string, net.Conn, error) { return failed, nil, nil },
		"nil *TCPConn":   func() (string, net.Conn, error) { return failed, (*net.TCPConn)(nil), nil },
		"nil *tls.Conn":  func() (string, net.Conn, error) { return failed, (*tls.Conn)(nil), nil },
		"nil, and error": func() (string, net.Conn, error) { return "refused here", (*tls.Conn)(nil), errors.New("refused here") },
	} {
		for _, version := range []string{"1", "h2c", "2"} {
			t.Run(name+"/"+version, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := l4test.NewNetwork()
					var cfg *tls.Config
					if version == "2" {
						cfg = &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}}
					}
					o := startOrigin(t, n, two, cfg, true, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "two") })
					defer o.srv.Close()
					want, _, _ := dial()
					up := &l7.Upstream{Protocols: protocols(version), Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
						if addr == one {
							_, c, err := dial()
							return c, err
						}
						return n.DialContext(ctx, network, addr)
					}}
					if version == "2" {
						up.TLS = func(*balance.Server) *tls.Config { return &tls.Config{InsecureSkipVerify: true} }
					}
					for _, servers := range [][]string{{one}, {one, two}, {two, one}} {
						tr := &l7.Transport{Pool: newPool(servers...), Upstream: up}
						if got := askThrough(tr); len(servers) == 1 && !strings.Contains(got, want) || len(servers) > 1 && got != "two" {
							t.Errorf("%v: %s", servers, got)
						}
						tr.CloseIdleConnections()
						for _, s := range servers {
							if n := tr.Pool.Server(s).InFlight(); n != 0 {
								t.Errorf("%d in flight", n)
							}
						}
					}
				})
			})
		}
	}
}

// A connection that Dial returns beside an error is closed.
func TestDialOfConnectionAndError(t *testing.T) {
	for _, version := range []string{"1", "h2c"} {
		synctest.Test(t, func(t *testing.T) {
			ours, peer := l4test.Pipe()
			tr := &l7.Transport{Pool: newPool(one), Upstream: &l7.Upstream{Protocols: protocols(version), Dial: func(context.Context, string, string) (net.Conn, error) {
				return ours, errors.New("refused here")
			}}}
			if got := askThrough(tr); !strings.Contains(got, "refused here") {
				t.Error(got)
			}
			peer.SetReadDeadline(time.Now().Add(time.Second))
			if _, err := peer.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("read: %v", err)
			}
			peer.Close()
		})
	}
}
