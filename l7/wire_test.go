// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/l7test"
)

var update = flag.Bool("update", false, "rewrite the golden wire files")

// A wireFile shows what passes on the wire, as text. Its sections are
//
//	client            what the client sends, at once
//	server            what the server answers to the next request
//	server closes     the same, and it closes the connection
//	method, path      what a handler before the proxy rewrites the request to
//	backend, reply    what server and client get; written by -update
//	backend standard  the same on the standard front, if it is not the same
//	reply standard      but for the order and case of fields
//
// A line stands for itself and CRLF, without the CRLF if it ends in "\";
// other bytes are escaped as in Go.
type wireFile struct {
	comment  string
	client   string
	method   string
	path     string
	server   []wireAnswer
	sections map[string]string
}

type wireAnswer struct {
	bytes  string
	closes bool
}

func readWire(t *testing.T, path string) *wireFile {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	w := &wireFile{sections: make(map[string]string)}
	parts := strings.Split("\n"+string(b), "\n-- ")
	w.comment = strings.TrimPrefix(parts[0], "\n") + "\n"
	for i, p := range parts[1:] {
		name, text, _ := strings.Cut(p, " --\n")
		if i+2 < len(parts) {
			text += "\n" // of the last line, taken for that of the next title
		}
		raw := fromText(t, text)
		switch name {
		case "client":
			w.client = raw
		case "method":
			w.method = strings.TrimSuffix(raw, "\r\n")
		case "path":
			w.path = strings.TrimSuffix(raw, "\r\n")
		case "server":
			w.server = append(w.server, wireAnswer{raw, false})
		case "server closes":
			w.server = append(w.server, wireAnswer{raw, true})
		default:
			w.sections[name] = raw
		}
	}
	return w
}

func (w *wireFile) text() string {
	var b strings.Builder
	b.WriteString(w.comment)
	section := func(name, raw string) { fmt.Fprintf(&b, "-- %s --\n%s", name, toText(raw)) }
	section("client", w.client)
	if w.method != "" {
		section("method", w.method+"\r\n")
	}
	if w.path != "" {
		section("path", w.path+"\r\n")
	}
	for _, s := range w.server {
		if s.closes {
			section("server closes", s.bytes)
		} else {
			section("server", s.bytes)
		}
	}
	for _, name := range []string{"backend", "reply", "backend standard", "reply standard"} {
		if raw, ok := w.sections[name]; ok {
			section(name, raw)
		}
	}
	return b.String()
}

func fromText(t *testing.T, s string) string {
	t.Helper()
	var b strings.Builder
	for line := range strings.Lines(s) {
		line, _ = strings.CutSuffix(line, "\n")
		line, cut := strings.CutSuffix(line, `\`)
		raw, err := strconv.Unquote(`"` + strings.ReplaceAll(line, `"`, `\"`) + `"`)
		if err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		if b.WriteString(raw); !cut {
			b.WriteString("\r\n")
		}
	}
	return b.String()
}

func toText(raw string) string {
	var b strings.Builder
	for raw != "" {
		line, rest, ended := strings.Cut(raw, "\r\n")
		q := strconv.QuoteToASCII(line)
		b.WriteString(strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`))
		if !ended {
			b.WriteString(`\`)
		}
		b.WriteByte('\n')
		raw = rest
	}
	return b.String()
}

// alike puts the lines of each head in order and their names in lower case,
// and leaves out what net/http decides.
func alike(raw string) string {
	var out []string
	var head []string
	inHead := false
	for _, line := range strings.Split(raw, "\r\n") {
		name, value, isField := strings.Cut(line, ": ")
		switch {
		case strings.Contains(line, "HTTP/1."):
			inHead = true
			out = append(out, line)
		case inHead && line == "":
			slices.Sort(head)
			out, head, inHead = append(append(out, head...), ""), nil, false
		case inHead && isField:
			if name = strings.ToLower(name); name != "connection" && name != "date" {
				head = append(head, name+": "+value)
			}
		default:
			out = append(out, line)
		}
	}
	return strings.Join(append(out, head...), "\r\n")
}

func TestWire(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			w := readWire(t, path)
			got := make(map[string]string)
			fronts(t, w.site, func(t *testing.T, f *front) {
				backend, reply := w.run(t, f)
				if f.name == "byte" {
					got["backend"], got["reply"] = backend, reply
					return
				}
				if alike(backend) != alike(got["backend"]) {
					got["backend standard"] = backend
				}
				if alike(reply) != alike(got["reply"]) {
					got["reply standard"] = reply
				}
			})
			if *update {
				for name, raw := range got {
					if alike(raw) == alike(w.sections[name]) && strings.HasSuffix(name, "standard") {
						got[name] = w.sections[name]
					}
				}
				w.sections = got
				if err := os.WriteFile(path, []byte(w.text()), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			for _, name := range []string{"backend", "reply", "backend standard", "reply standard"} {
				same := got[name] == w.sections[name]
				if strings.HasSuffix(name, "standard") { // a map has no order
					same = alike(got[name]) == alike(w.sections[name])
				}
				if !same {
					t.Errorf("%s is\n%s\nwant\n%s", name, toText(got[name]), toText(w.sections[name]))
				}
			}
		})
	}
}

// site returns the gateway.
func (w *wireFile) site(n *l4test.Network) http.Handler {
	p := newProxy(n, "10.0.0.1:80")
	return l7.HandlerFunc(func(x *l7.Exchange) {
		if w.method != "" {
			x.Method = w.method
		}
		if w.path != "" {
			x.Path = w.path
		}
		p.ServeExchange(x)
	})
}

// run sends what the client sends and returns what server and client got.
func (w *wireFile) run(t *testing.T, f *front) (backend, reply string) {
	var mu sync.Mutex
	var raw bytes.Buffer
	n := 0
	serveOrigin(t, f.network, "10.0.0.1:80", func(c *l4test.Conn, _ *bufio.Reader) {
		br := bufio.NewReader(io.TeeReader(c, &lockedWriter{&mu, &raw}))
		for {
			if _, err := l7test.ReadRequest(br); err != nil {
				return
			}
			mu.Lock()
			i := n
			n++
			mu.Unlock()
			if i >= len(w.server) {
				return
			}
			a := w.server[i]
			io.WriteString(c, a.bytes)
			if strings.HasPrefix(a.bytes, "HTTP/1.1 101") {
				c.CloseWrite()
				io.Copy(io.Discard, br)
			}
			if a.closes {
				return
			}
		}
	})
	c := f.dial(t).send(w.client)
	reply = c.rest() // after the idle timeout, if nothing else ends the connection
	c.Close()
	synctest.Wait()
	mu.Lock()
	defer mu.Unlock()
	return raw.String(), reply
}

type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (w *lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.w.Write(p)
}
