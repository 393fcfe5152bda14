// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// A writer is the state of one Run.
type writer struct {
	*File
	out     io.WriteCloser // nil: it could not be opened again
	spare   []byte         // the buffer that File does not have at present
	failing bool
	torn    bool // the file has taken a part of a line
}

// flush writes what is there.
func (w *writer) flush() {
	w.mu.Lock()
	batch, reopen := w.waiting, w.reopen
	w.waiting, w.reopen, w.urgent = w.spare[:0], false, false
	w.mu.Unlock()
	w.spare = batch

	var err error
	if w.out == nil {
		err = w.openAgain()
	}
	// What was said before Reopen goes to the old file: that was only renamed.
	err = errors.Join(err, w.write(batch))
	if reopen && w.out != nil {
		w.close()
		err = errors.Join(err, w.openAgain())
	}
	switch {
	case err != nil && !w.failing:
		w.logger().Warn("accesslog: lines are dropped", "path", w.Path, "error", err)
	case err == nil && w.failing && len(batch) > 0:
		w.logger().Info("accesslog: lines are written again", "path", w.Path, "dropped", w.Stats().Dropped)
	case err == nil:
		return
	}
	w.failing = err != nil
}

// openAgain opens the file; w.out stays nil where that fails.
func (w *writer) openAgain() error {
	out, err := w.open()
	if err == nil {
		w.out, w.torn = out, false
	}
	return err
}

// errClosed is why lines are dropped while there is no file.
var errClosed = errors.New("the file is not open")

// write gives a batch to the file. What it does not take is dropped: a line that was
// taken in part, as on a full disk, is told as not written.
func (w *writer) write(batch []byte) error {
	if len(batch) == 0 {
		return nil
	}
	n, err := 0, errClosed
	if w.out != nil && w.torn {
		_, err = writeAll(w.out, newline)
		w.torn = err != nil
	}
	if w.out != nil && !w.torn {
		n, err = writeAll(w.out, batch)
		w.torn = n > 0 && batch[n-1] != '\n'
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stats.Bytes += int64(n)
	if err != nil {
		lost := int64(bytes.Count(batch[n:], newline))
		w.stats.Written, w.stats.Dropped = w.stats.Written-lost, w.stats.Dropped+lost
	}
	return err
}

func writeAll(out io.Writer, batch []byte) (n int, err error) {
	defer caught("Write", &err)
	n, err = out.Write(batch)
	return min(max(n, 0), len(batch)), err
}

// close closes the file.
func (w *writer) close() {
	if w.out == nil {
		return
	}
	var err error
	defer func() {
		if err != nil {
			w.logger().Warn("accesslog: close", "path", w.Path, "error", err)
		}
	}()
	defer caught("Close", &err)
	err = w.out.Close()
	w.out = nil
}

// caught is deferred around a call of the host's code, of which a panic is an error.
func caught(what string, err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("accesslog: %s panicked: %v", what, p)
	}
}
