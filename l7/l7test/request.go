// SPDX-License-Identifier: Apache-2.0

package l7test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// A Field is a header or trailer field line.
type Field struct{ Name, Value string }

// A Request is a request as an Origin has received it, as on the wire.
type Request struct {
	Index int // among all requests of the origin, from 0
	Conn  int // number of its connection, from 0

	Method, Target, Proto string
	Header                []Field // in order; in HTTP/2 with the pseudo-header fields
	Framing               string  // "", "length" or "chunked"; "h2"
	Body                  []byte
	Trailer               []Field
	Complete              bool // head and body were read to their end
}

// Get returns the value of the first field of that name, in any case, or "".
func (r *Request) Get(name string) string {
	if v := r.Values(name); len(v) > 0 {
		return v[0]
	}
	return ""
}

// Values returns the values of all fields of that name in order.
func (r *Request) Values(name string) []string { return values(r.Header, name) }

func values(list []Field, name string) (vs []string) {
	for _, f := range list {
		if strings.EqualFold(f.Name, name) {
			vs = append(vs, f.Value)
		}
	}
	return vs
}

// ReadRequest reads a request strictly: anything that RFC 9112 lets a recipient
// repair or guess is an error. It has no limits of size. At the end of the
// stream, before the first byte, the error is io.EOF.
func ReadRequest(br *bufio.Reader) (*Request, error) {
	r, err := readHead(br)
	if err != nil {
		return nil, err
	}
	return r, r.readBody(br, func(p []byte) { r.Body = append(r.Body, p...) })
}

func readHead(br *bufio.Reader) (*Request, error) {
	if _, err := br.Peek(1); err != nil {
		return nil, err
	}
	line, err := readLine(br)
	if err != nil {
		return nil, err
	}
	p := strings.Split(line, " ")
	if len(p) != 3 || !isToken(p[0]) || !isTarget(p[1]) || p[2] != "HTTP/1.1" && p[2] != "HTTP/1.0" {
		return nil, fmt.Errorf("l7test: request line %q", line)
	}
	r := &Request{Method: p[0], Target: p[1], Proto: p[2]}
	if r.Header, err = readFields(br); err != nil {
		return nil, err
	}
	if n := len(r.Values("Host")); n > 1 || n == 0 && r.Proto == "HTTP/1.1" {
		return nil, fmt.Errorf("l7test: %d Host fields", n)
	}
	te, cl := r.Values("Transfer-Encoding"), r.Values("Content-Length")
	switch {
	case len(te)+len(cl) > 1:
		return nil, fmt.Errorf("l7test: Transfer-Encoding %q and Content-Length %q", te, cl)
	case len(te) == 1:
		if r.Framing = "chunked"; te[0] != "chunked" || r.Proto != "HTTP/1.1" {
			return nil, fmt.Errorf("l7test: Transfer-Encoding %q in %s", te[0], r.Proto)
		}
	case len(cl) == 1:
		if r.Framing = "length"; !isDigits(cl[0]) {
			return nil, fmt.Errorf("l7test: Content-Length %q", cl[0])
		}
	}
	return r, nil
}

// readBody reads the body and calls add with its pieces.
func (r *Request) readBody(br *bufio.Reader, add func([]byte)) error {
	var err error
	switch r.Framing {
	case "length":
		n, _ := strconv.ParseInt(r.Get("Content-Length"), 10, 64)
		err = copyTo(add, br, n)
	case "chunked":
		r.Trailer, err = readChunks(br, add)
	}
	r.Complete = err == nil
	return err
}

// copyTo passes n bytes to add as they come.
func copyTo(add func([]byte), br *bufio.Reader, n int64) error {
	var buf [4096]byte
	for n > 0 {
		m, err := br.Read(buf[:min(n, int64(len(buf)))])
		add(buf[:m])
		if n -= int64(m); err != nil && n > 0 {
			return noEOF(err)
		}
	}
	return nil
}

func readChunks(br *bufio.Reader, add func([]byte)) ([]Field, error) {
	for {
		line, err := readLine(br)
		if err != nil {
			return nil, err
		}
		n, err := strconv.ParseUint(line, 16, 62)
		if err != nil || strings.ContainsAny(line, "_+-xX") {
			return nil, fmt.Errorf("l7test: chunk size %q", line)
		}
		if n == 0 {
			return readFields(br)
		}
		if err := copyTo(add, br, int64(n)); err != nil {
			return nil, err
		}
		if line, err = readLine(br); err != nil || line != "" {
			return nil, fmt.Errorf("l7test: %q behind a chunk, %w", line, noEOF(err))
		}
	}
}

// readLine reads a line and returns it without its CRLF.
func readLine(br *bufio.Reader) (string, error) {
	b, err := br.ReadBytes('\n')
	if err != nil {
		return "", noEOF(err)
	}
	b, ok := bytes.CutSuffix(b, []byte("\r\n"))
	if !ok || bytes.IndexByte(b, '\r') >= 0 {
		return "", fmt.Errorf("l7test: line %q does not end in CRLF, or has a CR", b)
	}
	return string(b), nil
}

func readFields(br *bufio.Reader) (list []Field, err error) {
	for {
		line, err := readLine(br)
		if err != nil || line == "" {
			return list, err
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || !isToken(name) {
			return nil, fmt.Errorf("l7test: field line %q", line)
		}
		value = strings.Trim(value, " \t")
		for _, c := range []byte(value) {
			if c < ' ' && c != '\t' || c == 0x7f {
				return nil, fmt.Errorf("l7test: control character in field line %q", line)
			}
		}
		list = append(list, Field{name, value})
	}
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func isToken(s string) bool {
	for _, c := range []byte(s) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return s != ""
}

func isTarget(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c == '#' || c >= 0x7f {
			return false
		}
	}
	return s != ""
}

func isDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
