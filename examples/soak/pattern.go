// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
)

// A pattern is the bytes that belong to a token: each says whose it is, and which. It
// reads n of them.
type pattern struct {
	seed uint32
	at   int64
	n    int64
}

func body(token string, n int64) *pattern {
	h := fnv.New32a()
	_, _ = io.WriteString(h, token)
	return &pattern{seed: h.Sum32(), n: n}
}

func (p *pattern) Read(b []byte) (int, error) {
	if p.at == p.n {
		return 0, io.EOF
	}
	b = b[:min(int64(len(b)), p.n-p.at)]
	for i := range b {
		x := p.seed ^ uint32(p.at)*2654435761
		b[i] = byte(x ^ x>>11 ^ x>>23)
		p.at++
	}
	return len(b), nil
}

// errMixed is a fault: bytes of another.
var errMixed = errors.New("bytes that belong to another")

// compare reads r to its end and returns how much there was. The error is errMixed, or
// that of r.
func compare(token string, r io.Reader) (n int64, err error) {
	p := body(token, 1<<62)
	got, want := make([]byte, 8<<10), make([]byte, 8<<10)
	for {
		m, err := r.Read(got)
		_, _ = io.ReadFull(p, want[:m])
		if !bytes.Equal(got[:m], want[:m]) {
			return n, fmt.Errorf("%w, from %d on", errMixed, n)
		}
		if n += int64(m); err != nil {
			if err == io.EOF {
				err = nil
			}
			return n, err
		}
	}
}

// A greeting begins a stream, in both directions, and is all of a datagram's head: whose
// it is, and how many bytes follow.
type greeting struct {
	Token uint64
	Size  uint32
	Half  bool // the client ends its side after that
	Quits bool // or may do so in the middle
}

func (g greeting) name() string { return fmt.Sprint("stream ", g.Token) }

func (g greeting) bytes() []byte {
	b, _ := binary.Append(nil, binary.BigEndian, g)
	return b
}

func (g *greeting) read(r io.Reader) error { return binary.Read(r, binary.BigEndian, g) }

// message is the greeting, and what it announces.
func (g greeting) message() io.Reader {
	return io.MultiReader(bytes.NewReader(g.bytes()), body(g.name(), int64(g.Size)))
}

// size draws a length: mostly small, now and then beyond all buffers.
func size(r *rand.Rand) int64 {
	switch r.IntN(8) {
	case 0:
		return 0
	case 1:
		return int64(r.IntN(400_000))
	case 2, 3:
		return int64(r.IntN(30_000))
	}
	return int64(r.IntN(500))
}

// framed is n bytes of a token as messages of gRPC, one at least.
func framed(token string, n int64) io.Reader {
	const most = 16 << 10
	p := body(token, n)
	var parts []io.Reader
	for {
		k := min(n, most)
		head := binary.BigEndian.AppendUint32([]byte{0}, uint32(k))
		parts = append(parts, bytes.NewReader(head), io.LimitReader(p, k))
		if n -= k; n == 0 {
			return io.MultiReader(parts...)
		}
	}
}

// unframed reads what is in messages of gRPC.
type unframed struct {
	r    io.Reader
	left int64
}

func (u *unframed) Read(b []byte) (int, error) {
	for u.left == 0 {
		var head [5]byte
		if _, err := io.ReadFull(u.r, head[:]); err != nil {
			return 0, err
		}
		u.left = int64(binary.BigEndian.Uint32(head[1:]))
	}
	n, err := u.r.Read(b[:min(int64(len(b)), u.left)])
	if u.left -= int64(n); err == io.EOF && u.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func checkDatagram(b []byte) error {
	r := bytes.NewReader(b)
	var g greeting
	if err := g.read(r); err != nil {
		return err
	}
	if n, err := compare(g.name(), r); err != nil {
		return err
	} else if n != int64(g.Size) {
		return fmt.Errorf("%d bytes of %d", n, g.Size)
	}
	return nil
}
