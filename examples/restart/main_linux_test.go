// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestGateway is the gateway that TestNothingIsLost starts.
func TestGateway(t *testing.T) {
	ports := strings.Fields(os.Getenv("RESTART_GATEWAY"))
	if len(ports) == 0 {
		t.Skip("it is a part of TestNothingIsLost")
	}
	g := &gateway{http: ports[0], tcp: ports[1], to: ports[2], lame: time.Second}
	if err := g.run(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// A load is what clients ask for until they are told to stop, and counts.
type load struct {
	t           *testing.T
	web, raw    string
	notified    *net.UnixConn
	stop        chan struct{}
	wg          sync.WaitGroup
	asked, lost atomic.Int64
	perKind     sync.Map // of *atomic.Int64
}

func (l *load) client(kind string, ask func(n int) error) {
	v, _ := l.perKind.LoadOrStore(kind, new(atomic.Int64))
	count := v.(*atomic.Int64)
	l.wg.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-l.stop:
				return
			default:
			}
			l.asked.Add(1)
			if err := ask(n); err != nil {
				l.lost.Add(1)
				l.t.Errorf("%s: %v", kind, err)
			}
			count.Add(1)
		}
	})
}

// post sends a body that cannot be had again, so that no client sends it twice.
func (l *load) post(client *http.Client) func(n int) error {
	return func(n int) error {
		want := fmt.Sprintf("body %d", n)
		post := func() (*http.Response, error) {
			return client.Post("http://"+l.web+"/", "text/plain", io.NopCloser(strings.NewReader(want)))
		}
		res, err := post()
		if err != nil && strings.Contains(err.Error(), "cannot rewind body") {
			// What net/http says where a GOAWAY came before it had sent anything of the
			// request: it has closed the body, and does not ask for another connection.
			res, err = post()
		}
		if err != nil {
			return err
		}
		defer res.Body.Close()
		got, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != 200 || string(got) != want {
			return fmt.Errorf("%s, %q, %v; want %q", res.Status, got, err, want)
		}
		return nil
	}
}

// slow returns a client that is told by nothing but replies when to leave its
// connection, and pauses between connecting and asking, and between two requests.
func (l *load) slow() func(n int) error {
	var (
		c net.Conn
		r *bufio.Reader
	)
	return func(n int) (err error) {
		if c == nil {
			if c, err = net.Dial("tcp", l.web); err != nil {
				return err
			}
			r = bufio.NewReader(c)
		}
		time.Sleep(time.Duration(n%8) * time.Millisecond)
		res, err := (*http.Response)(nil), error(nil)
		if _, err = fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nslow"); err == nil {
			res, err = http.ReadResponse(r, nil)
		}
		if err == nil {
			_, err = io.Copy(io.Discard, res.Body)
		}
		if err != nil || res.Close {
			c.Close()
			c = nil
		}
		return err
	}
}

// stream opens a connection through the relay, asks on it, and closes it.
func (l *load) stream(int) error {
	c, err := net.Dial("tcp", l.raw)
	if err != nil {
		return err
	}
	defer c.Close()
	r := bufio.NewReader(c)
	for i := range 3 {
		fmt.Fprintf(c, "GET /%d HTTP/1.1\r\nHost: a\r\n\r\n", i)
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			return err
		}
	}
	return nil
}

func transport(h2, keep bool) *http.Client {
	p := new(http.Protocols)
	p.SetHTTP1(!h2)
	p.SetUnencryptedHTTP2(h2)
	return &http.Client{Transport: &http.Transport{Protocols: p, DisableKeepAlives: !keep, MaxIdleConnsPerHost: 100}, Timeout: 20 * time.Second}
}

// echo answers with the body of the request, and upgrades to a stream of bytes.
func echo(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") == "" {
		io.Copy(w, r.Body)
		return
	}
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
	io.Copy(c, rw)
}

// tunnel opens an upgraded connection; the func that it returns sees whether it is there.
func (l *load) tunnel() (alive func() error) {
	c, err := net.Dial("tcp", l.web)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { c.Close() })
	fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
	r := bufio.NewReader(c)
	if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != 101 {
		l.t.Fatal(res, err)
	}
	return func() error {
		c.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintf(c, "ping\n")
		line, err := r.ReadString('\n')
		if err != nil || line != "ping\n" {
			return fmt.Errorf("tunnel: %q, %v", line, err)
		}
		return nil
	}
}

// TestNothingIsLost replaces the gateway twice under load, with real processes, and loses
// no request: POSTs on kept and on fresh connections, HTTP/2, and streams. Tunnels outlive
// the listeners of the gateway that they go through. RESTART_REQUESTS is how many requests there are at least, 3000 if it is not set.
func TestNothingIsLost(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	least, _ := strconv.ParseInt(os.Getenv("RESTART_REQUESTS"), 10, 64)
	least = max(least, 3000)
	origin, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	site := &http.Server{Handler: http.HandlerFunc(echo)}
	go site.Serve(origin)
	defer site.Close()

	l := &load{t: t, web: freeAddr(t), raw: freeAddr(t), stop: make(chan struct{})}
	cmd := exec.Command(os.Args[0], "-test.run=^TestGateway$", "-test.timeout=30m")
	socket := filepath.Join(t.TempDir(), "notify")
	if l.notified, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	defer l.notified.Close()
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+socket, "RESTART_GATEWAY="+l.web+" "+l.raw+" "+origin.Addr().String())
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	reaped := make(chan error, 1)
	go func() { reaped <- cmd.Wait() }()
	pid := cmd.Process.Pid
	defer func() { syscall.Kill(pid, syscall.SIGKILL) }()
	l.ready()

	for range 4 {
		l.client("HTTP/1, kept", l.post(transport(false, true)))
		l.client("HTTP/1, fresh", l.post(transport(false, false)))
		l.client("streams", l.stream)
	}
	h2 := transport(true, true) // one connection for all
	for range 4 {
		l.client("HTTP/2", l.post(h2))
	}
	for range 16 {
		l.client("HTTP/1, slow", l.slow())
	}
	for round := int64(1); round <= 2; round++ {
		l.until(round * least / 3)
		alive := l.tunnel() // of this round: a gateway waits for a tunnel only for so long
		old := pid
		syscall.Kill(old, syscall.SIGHUP)
		pid = l.ready()
		t.Logf("%d follows %d after %d requests", pid, old, l.asked.Load())
		time.Sleep(1500 * time.Millisecond) // more than the lame duck
		if err := alive(); err != nil {
			t.Error(err)
		}
	}
	l.until(least)
	close(l.stop)
	l.wg.Wait()
	l.perKind.Range(func(k, v any) bool { t.Logf("%s: %d", k, v.(*atomic.Int64).Load()); return true })
	t.Logf("lost %d of %d", l.lost.Load(), l.asked.Load())
	syscall.Kill(pid, syscall.SIGTERM)
}

func freeAddr(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func (l *load) until(n int64) {
	for l.asked.Load() < n {
		time.Sleep(10 * time.Millisecond)
	}
}

// ready waits until a gateway tells systemd, whose place the test takes, that it
// serves, and returns its process.
func (l *load) ready() (pid int) {
	p := make([]byte, 200)
	for {
		l.notified.SetReadDeadline(time.Now().Add(time.Minute))
		n, err := l.notified.Read(p)
		if err != nil {
			l.t.Fatal("no gateway is ready: ", err)
		}
		if _, err := fmt.Sscanf(string(p[:n]), "READY=1\nMAINPID=%d", &pid); err == nil {
			return pid
		}
	}
}
