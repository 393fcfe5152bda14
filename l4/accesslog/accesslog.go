// SPDX-License-Identifier: Apache-2.0

// Package accesslog writes the log of a busy gateway to a file, and never makes a
// request wait for the disk:
//
//	file := &accesslog.File{Path: "/var/log/gateway.log"}
//	go file.Run(ctx)
//	server.OnDone = func(r *l7.Record) {
//		b := r.AppendCombined(file.Line())
//		file.Put(b)
//	}
//
// It is an io.Writer too, so that a slog handler can write to it. Where the disk does
// not keep up, or is full, lines are dropped, and counted.
package accesslog

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/penstock-lb/penstock"
)

// ErrNotWritten is the error of a Write whose bytes were dropped.
var ErrNotWritten = errors.New("accesslog: dropped, as the buffer is full")

// A File is a log file behind a bounded buffer. Write and Put never block on the disk;
// Run moves the buffered lines to the file. The fields must not change after first use.
// All methods may be called at once.
type File struct {
	Path string      // of the file, to which lines are appended; it is made if there is none
	Mode os.FileMode // of a file that is made; 0 means 0640

	// Max is how many bytes wait to be written, at most: what comes when they are there
	// is dropped. 0 means 4 MiB. As many again may be on their way to the disk.
	Max int

	Flush time.Duration // longest that a line waits to be written; 0 means 1s

	// Open opens the file, or whatever takes its place. Nil means the file of Path. It
	// must make a new one each time, which is closed then. It may panic: that is an error.
	Open func() (io.WriteCloser, error)

	Logger *slog.Logger // told when writing fails, and when it works again; nil means slog.Default()

	mu      sync.Mutex
	waiting []byte
	wake    chan struct{} // has room for one; nil until Run
	urgent  bool          // half of Max waits
	reopen  bool
	stats   Stats
	lines   [][]byte // for Line, at most maxLines
}

// What is kept for Line: so many buffers, none longer.
const maxLines, maxLine = 16, 16 << 10

var newline = []byte{'\n'}

// Stats says what became of lines.
type Stats struct {
	Written int64 // lines that the file has taken, or that wait for it
	Dropped int64 // lines that found no room, or that the file did not take
	Bytes   int64 // given to the file
}

// Check reports what is wrong with the fields, as [penstock.ConfigError]s. Run returns it.
func (f *File) Check() error {
	var m penstock.Mistakes
	m.If(f.Path == "" && f.Open == nil, "File.Path", f.Path, "must be the path of a file")
	m.If(f.Max < 0, "File.Max", f.Max, "must not be negative")
	m.If(f.Flush < 0, "File.Flush", f.Flush, "must not be negative")
	return m.Err()
}

func (f *File) max() int {
	if f.Max <= 0 {
		return 4 << 20
	}
	return f.Max
}

func (f *File) logger() *slog.Logger {
	if f.Logger == nil {
		return slog.Default()
	}
	return f.Logger
}

// Write adds p, which is a line with its end, or several. It returns ErrNotWritten if
// there is no room for all of it.
func (f *File) Write(p []byte) (int, error) {
	if !f.add(p, false) {
		return 0, ErrNotWritten
	}
	return len(p), nil
}

// Line returns an empty buffer to append a line to. Put takes it back.
func (f *File) Line() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	if last := len(f.lines) - 1; last >= 0 {
		b := f.lines[last]
		f.lines = f.lines[:last]
		return b
	}
	return make([]byte, 0, 512)
}

// Put adds a line, to which it adds the end, and keeps its buffer for [File.Line].
func (f *File) Put(line []byte) {
	f.add(line, true)
	f.mu.Lock()
	defer f.mu.Unlock()
	if cap(line) <= maxLine && len(f.lines) < maxLines {
		f.lines = append(f.lines, line[:0])
	}
}

// add reports whether there was room.
func (f *File) add(p []byte, end bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	lines := int64(bytes.Count(p, newline))
	if end {
		lines++
	}
	if len(f.waiting)+len(p)+1 > f.max() {
		f.stats.Dropped += lines
		return false
	}
	f.waiting = append(f.waiting, p...)
	if end {
		f.waiting = append(f.waiting, '\n')
	}
	f.stats.Written += lines // taken back if they are not
	if !f.urgent && len(f.waiting) > f.max()/2 {
		f.urgent = true
		f.poke()
	}
	return true
}

// poke wakes Run. f.mu is held.
func (f *File) poke() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// Reopen makes Run close the file and open it anew, as after its renaming: what signals
// SIGHUP and SIGUSR1 are used for.
func (f *File) Reopen() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reopen = true
	f.poke()
}

// Stats returns what became of the lines up to now.
func (f *File) Stats() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stats
}

// Run writes what comes until ctx ends, then the rest, and closes the file. It returns
// ctx's cause; what [File.Check] says; or an error if the file cannot be opened at the start. Later
// errors drop lines and are told to Logger, once until it works again. Only one Run may
// be under way.
func (f *File) Run(ctx context.Context) error {
	if err := f.Check(); err != nil {
		return err
	}
	f.mu.Lock()
	if f.wake == nil {
		f.wake = make(chan struct{}, 1)
	}
	f.mu.Unlock()
	out, err := f.open()
	if err != nil {
		return err
	}
	w := writer{File: f, out: out}
	defer w.close()
	every := f.Flush
	if every == 0 {
		every = time.Second
	}
	ticks := time.NewTicker(every)
	defer ticks.Stop()
	for {
		select {
		case <-f.wake:
		case <-ticks.C:
		case <-ctx.Done():
			w.flush()
			return context.Cause(ctx)
		}
		w.flush()
	}
}

// open is Open or its default.
func (f *File) open() (out io.WriteCloser, err error) {
	defer caught("Open", &err)
	if f.Open != nil {
		return f.Open()
	}
	mode := f.Mode
	if mode == 0 {
		mode = 0o640
	}
	file, err := os.OpenFile(f.Path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, mode)
	if err != nil {
		return nil, err // not a nil *os.File
	}
	return file, nil
}
