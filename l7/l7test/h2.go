// SPDX-License-Identifier: Apache-2.0

package l7test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// h2Conn is an HTTP/2 connection: one goroutine reads frames, and one per
// stream follows the script. Bodies of replies have to fit into the peer's
// initial window, 64 KiB by default.
type h2Conn struct {
	o  *Origin
	c  net.Conn
	n  int
	wg sync.WaitGroup

	mu      sync.Mutex // guards writes
	fr      *http2.Framer
	hbuf    bytes.Buffer
	enc     *hpack.Encoder
	streams map[uint32]*h2Stream // of the reading goroutine
	err     error                // of the scripts, guarded by mu
}

func (o *Origin) serveH2(c net.Conn, br *bufio.Reader, n int) error {
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(br, preface); err != nil || string(preface) != http2.ClientPreface {
		return fmt.Errorf("l7test: preface %q", preface)
	}
	h := &h2Conn{o: o, c: c, n: n, fr: http2.NewFramer(c, br), streams: make(map[uint32]*h2Stream)}
	h.enc = hpack.NewEncoder(&h.hbuf)
	h.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	err := h.fr.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 100})
	for err == nil {
		err = h.read()
	}
	for _, s := range h.streams {
		s.close()
	}
	c.Close()
	h.wg.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	return errors.Join(h.err, noFault(err))
}

// noFault is nil for the ways in which a connection may end between frames.
func noFault(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (h *h2Conn) read() error {
	f, err := h.fr.ReadFrame()
	if err != nil {
		return err
	}
	s := h.streams[f.Header().StreamID]
	h.mu.Lock()
	defer h.mu.Unlock()
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if !f.IsAck() {
			return h.fr.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			return h.fr.WritePing(true, f.Data)
		}
	case *http2.MetaHeadersFrame:
		if s == nil {
			s = h.open(f)
		} else {
			s.trailer(f)
		}
		if f.StreamEnded() {
			close(s.body)
		}
	case *http2.DataFrame:
		if n := uint32(len(f.Data())); n > 0 && s != nil {
			h.o.addBody(s.r)(f.Data())
			_ = h.fr.WriteWindowUpdate(0, n)
			_ = h.fr.WriteWindowUpdate(s.id, n)
		}
		if s != nil && f.StreamEnded() {
			close(s.body)
		}
	case *http2.RSTStreamFrame:
		if s != nil {
			s.close()
		}
	}
	return nil
}

func (h *h2Conn) open(f *http2.MetaHeadersFrame) *h2Stream {
	r := &Request{Conn: h.n, Proto: "HTTP/2.0", Framing: "h2"}
	for _, hf := range f.Fields {
		r.Header = append(r.Header, Field{hf.Name, hf.Value})
	}
	r.Method, r.Target = r.Get(":method"), r.Get(":path")
	s := &h2Stream{h: h, id: f.StreamID, r: r, body: make(chan struct{}), over: make(chan struct{})}
	h.streams[s.id] = s
	script := h.o.add(r)
	h.wg.Go(func() {
		err := h.o.run(script, &Call{Request: r, o: h.o, tx: s})
		if err != nil && !errors.Is(err, errEnd) {
			h.mu.Lock()
			h.err = errors.Join(h.err, err)
			h.mu.Unlock()
		}
	})
	return s
}

// h2Stream is a request on HTTP/2.
type h2Stream struct {
	h    *h2Conn
	id   uint32
	r    *Request
	body chan struct{} // closed when the whole request has come
	over chan struct{} // closed when the peer has ended the stream or connection
	once sync.Once
}

func (s *h2Stream) close() { s.once.Do(func() { close(s.over) }) }

func (s *h2Stream) trailer(f *http2.MetaHeadersFrame) {
	s.h.o.mu.Lock()
	defer s.h.o.mu.Unlock()
	for _, hf := range f.Fields {
		s.r.Trailer = append(s.r.Trailer, Field{hf.Name, hf.Value})
	}
}

func (s *h2Stream) readBody() error {
	select {
	case <-s.body:
		s.h.o.mu.Lock()
		defer s.h.o.mu.Unlock()
		s.r.Complete = true
		return nil
	case <-s.over:
		return errEnd
	}
}

// Write sends a DATA frame.
func (s *h2Stream) Write(p []byte) (int, error) {
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	return len(p), s.h.fr.WriteData(s.id, false, p)
}

func (s *h2Stream) head(status int, fields []Field, end bool) error {
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	s.h.hbuf.Reset()
	if status > 0 {
		_ = s.h.enc.WriteField(hpack.HeaderField{Name: ":status", Value: strconv.Itoa(status)})
	}
	for _, f := range fields {
		_ = s.h.enc.WriteField(hpack.HeaderField{Name: strings.ToLower(f.Name), Value: f.Value})
	}
	return s.h.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: s.id, BlockFragment: s.h.hbuf.Bytes(), EndStream: end, EndHeaders: true})
}

func (s *h2Stream) reply(status int, fields []Field, body string, trailer []Field) error {
	if s.r.Method == "HEAD" {
		body = ""
	}
	end := body == "" && trailer == nil
	if err := s.head(status, fields, end); err != nil || end {
		return err
	}
	s.h.mu.Lock()
	err := s.h.fr.WriteData(s.id, trailer == nil, []byte(body))
	s.h.mu.Unlock()
	if err != nil || trailer == nil {
		return err
	}
	return s.head(0, trailer, true)
}

func (s *h2Stream) hold() {
	select {
	case <-s.over:
	case <-s.h.o.done:
	}
}

func (s *h2Stream) reset() error {
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	return errors.Join(s.h.fr.WriteRSTStream(s.id, http2.ErrCodeInternal), errEnd)
}

func (s *h2Stream) goAway(code uint32) error {
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	return s.h.fr.WriteGoAway(s.id, http2.ErrCode(code), nil)
}

func (s *h2Stream) hangUp(bool) error {
	s.h.c.Close()
	return errEnd
}
