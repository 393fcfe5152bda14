// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// browser are the request fields of Load.Browser.
var browser = func() [][2]string {
	f := [][2]string{
		{"User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"},
		{"Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"},
		{"Accept-Language", "en-GB,en;q=0.7,de;q=0.3"},
		{"Cookie", "session=abcdefghijklmnopqrstuvwxyz; theme=dark; lang=en"},
	}
	for i := range 16 {
		f = append(f, [2]string{fmt.Sprintf("X-Field-%d", i), fmt.Sprintf("a value of ordinary length, %d", i)})
	}
	return f
}()

// path returns the path of request n.
func (l *Load) path(n int) string {
	if l.Routes > 0 {
		return fmt.Sprintf("/r%d/", n%l.Routes)
	}
	return l.Path
}

// A Job is a load on an address. It is what the load generator of this program gets as
// its argument, and Answer is what it prints, both in JSON.
type Job struct {
	Load

	Addr    string
	Cert    string  // PEM file of the peer's certificate; empty means plain text
	Seconds float64 // it stops after

	dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// An Answer is what came of a load.
type Answer struct {
	Done    int     // requests with a reply of status 200
	Failed  int     // other requests, but those that the end of time interrupted
	Seconds float64 // that it took
	P99     float64 // ms within which 99 of 100 replies came; 0 means not known
}

// run asks until the time is over, and one request is.
func (j *Job) run(ctx context.Context) (*Answer, error) {
	if j.dial == nil {
		j.dial = new(net.Dialer).DialContext
	}
	secure, err := j.secure()
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	first := make(chan struct{})
	begun := sync.OnceFunc(func() { close(first) })
	workers := make([]worker, j.Conns*max(1, j.Streams))
	var transports []*http.Transport
	var wg sync.WaitGroup
	began := time.Now()
	for i := range workers {
		w := &workers[i]
		w.Job, w.secure, w.n, w.begun = j, secure, i, begun
		if !j.HTTP2 {
			wg.Go(func() { w.repeat(ctx, w.http1) })
			continue
		}
		if i%max(1, j.Streams) == 0 { // one connection
			transports = append(transports, &http.Transport{TLSClientConfig: secure.Clone(), ForceAttemptHTTP2: true, DialContext: j.dial, DisableCompression: true})
		}
		w.client = transports[len(transports)-1]
		wg.Go(func() { w.repeat(ctx, w.http2) })
	}
	time.AfterFunc(time.Duration(j.Seconds*float64(time.Second)), func() {
		select { // on a busy machine the first reply may need longer
		case <-first:
		case <-ctx.Done():
		}
		stop()
	})
	wg.Wait()
	a := &Answer{Seconds: time.Since(began).Seconds()}
	var took []time.Duration
	for i := range workers {
		a.Failed += workers[i].failed
		took = append(took, workers[i].took...)
	}
	for _, t := range transports {
		t.CloseIdleConnections()
	}
	a.Done, a.P99 = len(took), p99(took)
	return a, nil
}

// p99 returns the time in ms within which 99 of 100 came, 0 of none. It sorts took.
func p99(took []time.Duration) float64 {
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return took[(len(took)*99+99)/100-1].Seconds() * 1e3
}

// secure returns nil for plain text.
func (j *Job) secure() (*tls.Config, error) {
	if j.Cert == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(j.Cert)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "localhost"}
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		return nil, errors.New(j.Cert + ": no certificate")
	}
	return c, nil
}

// A worker sends one request after another.
type worker struct {
	*Job

	secure *tls.Config
	n      int    // of the next request
	begun  func() // to be called when a request is over
	took   []time.Duration
	failed int

	conn    net.Conn // for http1; nil between connections
	replies *bufio.Reader
	forget  func() bool       // keeps the end of time away from conn
	client  http.RoundTripper // for http2
}

// repeat calls ask until ctx is done.
func (w *worker) repeat(ctx context.Context, ask func(context.Context, *http.Request) error) {
	defer w.hangUp()
	scheme := "http"
	if w.secure != nil {
		scheme = "https"
	}
	req, err := http.NewRequest("GET", scheme+"://"+w.Addr+"/", nil)
	if err != nil {
		w.failed++
		return
	}
	if w.Browser {
		for _, f := range browser {
			req.Header.Set(f[0], f[1])
		}
	}
	req.Close = w.Close
	for ctx.Err() == nil {
		req.URL.Path = w.path(w.n)
		w.n++
		began := time.Now()
		err := ask(ctx, req)
		switch {
		case err == nil:
			w.took = append(w.took, time.Since(began))
			w.begun()
		case ctx.Err() == nil:
			w.failed++
			w.begun()
			w.hangUp()
			select { // so that a peer that is down does not cost a processor
			case <-time.After(10 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}
}

func (w *worker) hangUp() {
	if w.conn != nil {
		w.forget()
		_ = w.conn.Close()
		w.conn = nil
	}
}

// http1 sends a request on the worker's own connection.
func (w *worker) http1(ctx context.Context, req *http.Request) error {
	if w.conn == nil {
		c, err := w.dial(ctx, "tcp", w.Addr)
		if err != nil {
			return err
		}
		if w.secure != nil {
			c = tls.Client(c, w.secure)
		}
		w.forget = context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) }) // interrupts it
		w.conn, w.replies = c, bufio.NewReader(c)
	}
	if err := req.Write(w.conn); err != nil {
		return err
	}
	reply, err := http.ReadResponse(w.replies, req)
	if err != nil {
		return err
	}
	if err := discard(reply); err != nil {
		return err
	}
	if reply.Close {
		w.hangUp()
	}
	return nil
}

// http2 sends a request on the connection that it shares with other streams.
func (w *worker) http2(ctx context.Context, req *http.Request) error {
	reply, err := w.client.RoundTrip(req.WithContext(ctx))
	if err != nil {
		return err
	}
	if reply.ProtoMajor != 2 {
		err = errors.New("not HTTP/2")
	}
	return errors.Join(err, discard(reply))
}

func discard(reply *http.Response) error {
	_, err := io.Copy(io.Discard, reply.Body)
	if err = errors.Join(err, reply.Body.Close()); err == nil && reply.StatusCode != http.StatusOK {
		err = errors.New(strings.ToLower(reply.Status))
	}
	return err
}
