// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"io"
	"sync/atomic"
)

// A replay is a streamed request body. It keeps the bytes that it has read, up
// to a limit, for another try. The goroutine that sends it owns it until it has
// been stopped; only over may be read by others before.
type replay struct {
	src   io.Reader
	limit int         // bytes to keep
	left  int64       // bytes left in src; negative if not known
	past  bool        // what is behind them is asked for as well: a trailer may be there
	kept  []byte      // the bytes read, unless over
	pos   int         // read position in kept
	over  atomic.Bool // more than limit has been read: the body cannot be repeated
	pause atomic.Bool // the read in progress is to end, and its error is not that of src
	err   error       // the error with which src ended
}

// Read implements [io.Reader].
func (r *replay) Read(p []byte) (int, error) {
	if r.pos < len(r.kept) {
		n := copy(p, r.kept[r.pos:])
		r.pos += n
		return n, nil
	}
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.src.Read(p)
	if n == 0 && err != nil && r.pause.Load() {
		return 0, errStopped
	}
	if r.left >= 0 {
		if r.left = max(r.left-int64(n), 0); r.left == 0 && err == nil && !r.past {
			r.err = io.EOF
		}
	}
	if err != nil {
		r.err = err
	}
	switch {
	case r.over.Load():
	case len(r.kept)+n > r.limit:
		r.over.Store(true)
		r.kept, r.pos = nil, 0
	default:
		r.kept = append(r.kept, p[:n]...)
		r.pos += n
	}
	return n, err
}

// direct reports whether src reads from the front, and no code of the host's is in between.
func (r *replay) direct() bool {
	_, ok := r.src.(bodyReader)
	return ok
}

// rewind goes back to the beginning, if all bytes read have been kept.
func (r *replay) rewind() bool {
	if r.over.Load() || r.err != nil && r.err != io.EOF {
		return false
	}
	r.pos = 0
	return true
}

// complete reports whether the whole body has been read and kept.
func (r *replay) complete() bool { return (r.err == io.EOF || r.left == 0) && !r.over.Load() }
