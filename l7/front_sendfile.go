// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"io"
	"net"
	"os"
	"time"

	"github.com/penstock-lb/penstock/l4"
)

// sendfilePiece is how much of a file is sent before the bound of writes is looked at.
const sendfilePiece = 4 << 20

// ReadFrom implements [io.ReaderFrom], by which net/http sends files with sendfile(2).
func (h *handedConn) ReadFrom(src io.Reader) (int64, error) {
	under, ok := h.Conn.(*l4.Conn)
	if ok {
		if to, ok := under.NetConn().(*net.TCPConn); ok {
			if f, n := regularFile(src); f != nil {
				done, err := h.bound.sendFile(to, f, n)
				if l, ok := src.(*io.LimitedReader); ok {
					l.N -= done
				}
				return done, err
			}
		}
	}
	return io.Copy(struct{ io.Writer }{h}, src)
}

// regularFile returns the file that src reads, and how much of it at most; nil if it
// reads something else.
func regularFile(src io.Reader) (f *os.File, n int64) {
	n = 1<<63 - 1
	if l, ok := src.(*io.LimitedReader); ok {
		src, n = l.R, l.N
	}
	if f, ok := src.(*os.File); ok {
		if st, err := f.Stat(); err == nil && st.Mode().IsRegular() {
			return f, n
		}
	}
	return nil, 0
}

// sendFile sends n bytes of f, or what is left of it, from where it stands. It goes on
// after a deadline only if f stands where the peer has got to.
func (b *writeBound) sendFile(to *net.TCPConn, f *os.File, n int64) (done int64, err error) {
	at, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return 0, err
	}
	if b.over.Load() {
		return 0, os.ErrDeadlineExceeded
	}
	limit := time.Duration(b.limit.Load())
	now := time.Now()
	wait := patience{limit: limit, since: now}
	for done < n {
		ours := b.renew(to, now, limit)
		piece := min(n-done, sendfilePiece)
		m, err := to.ReadFrom(&io.LimitedReader{R: f, N: piece})
		done += m
		now = time.Now()
		switch {
		case err == nil && m < piece:
			return done, nil // the file has ended
		case err == nil:
			wait.since = now
			continue
		case !ours || b.moved.Load():
			return done, err
		}
		if pos, serr := f.Seek(0, io.SeekCurrent); serr != nil || pos != at+done || !wait.lasts(int(m), err, now) {
			b.over.Store(true)
			return done, err
		}
	}
	return done, nil
}
