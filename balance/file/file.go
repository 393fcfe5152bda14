// SPDX-License-Identifier: Apache-2.0

// Package file finds the endpoints of a pool in a file:
//
//	err := pool.Follow(ctx, &file.Source{Path: "/etc/penstock/servers"})
//
// The file is JSON or lines. A line has an address and optional fields:
//
//	# the web servers
//	10.0.0.1:80  name=a weight=3
//	10.0.0.2:80  name=b max_conns=100 zone=east
//	10.9.0.1:80  tier=1 label.rack=r7
//
// JSON is an array of objects whose fields have the same names, or an object that has that
// array as "endpoints":
//
//	[
//		{"addr": "10.0.0.1:80", "name": "a", "weight": 3},
//		{"addr": "10.9.0.1:80", "tier": 1, "labels": {"rack": "r7"}}
//	]
//
// Fields are those of [balance.Endpoint]. An unknown field is an error, so that a
// misspelled limit is not silently missing.
package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/balance"
)

// A Source watches a file and is a [balance.Source]. Its fields must not change once
// Watch is called.
//
// It looks at the file each Interval, and reads it when it may have changed. Write a new
// file beside it and rename that onto it, and it is read at the next look. Of a file that is
// written in place half may be there, and half of the lines are a valid file: it is read when
// two looks in a row find the same time and size, or after ten that do not.
//
// If the file is missing or invalid, the error is reported once, as an *[Error], until it
// changes; the last good set stays. [balance.Pool.SourceState] says how old it is.
type Source struct {
	Path     string
	Interval time.Duration // between two checks; 0 means 1s
	MaxBytes int64         // of the file; 0 means 4 MiB, negative means no limit

	Edit func(*balance.Endpoint) // changes each endpoint, such as its limits; nil means none
}

// An Error says what is wrong with a file.
type Error struct {
	Path string
	Good time.Time // when the set that stays was read; zero if there is none
	Err  error     // a *ParseError, that of the operating system, or ErrTooLong
}

// ErrTooLong is the error of a file of more than MaxBytes.
var ErrTooLong = errors.New("file is too long")

// Error says how old the set is that stays.
func (e *Error) Error() string {
	if e.Good.IsZero() {
		return fmt.Sprintf("file: %s: %v", e.Path, e.Err)
	}
	return fmt.Sprintf("file: %s: %v (the set of %s stays)", e.Path, e.Err, e.Good.Format(time.RFC3339))
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// Check returns what is wrong with s, each a [*penstock.ConfigError]. [Source.Watch] calls it.
func (s *Source) Check() error {
	var m penstock.Mistakes
	m.If(s.Path == "", "Source.Path", s.Path, "must be the path of a file")
	m.If(s.Interval < 0, "Source.Interval", s.Interval, "must not be negative")
	return m.Err()
}

// Watch implements [balance.Source]. It returns only when ctx ends, or what Check says.
func (s *Source) Watch(ctx context.Context, update func([]balance.Endpoint, error)) error {
	if err := s.Check(); err != nil {
		return err
	}
	interval := s.Interval
	if interval == 0 {
		interval = time.Second
	}
	w := watcher{Source: s}
	ticks := time.NewTicker(interval)
	defer ticks.Stop()
	for {
		if eps, changed, err := w.look(time.Now()); changed {
			update(eps, err)
		}
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// A watcher is what one Watch knows of the file.
type watcher struct {
	*Source

	info os.FileInfo // of the file as it was read last; nil if it was not
	next os.FileInfo // of that file as it was found last, while it is written in place; else nil
	wait int         // looks since it was first found so
	at   time.Time   // when
	text []byte      // what it said
	good time.Time   // when endpoints were read last
	said string      // the last error; empty if there is none
}

// look returns what the file says, if that has changed.
func (w *watcher) look(now time.Time) (eps []balance.Endpoint, changed bool, err error) {
	text, same, err := w.read(now)
	if same {
		return nil, false, nil
	}
	if err == nil {
		if eps, err = Parse(text); err == nil {
			w.good, w.said = now, ""
			for i := range eps {
				if w.Edit != nil {
					w.Edit(&eps[i])
				}
			}
			return eps, true, nil
		}
	}
	if w.said == err.Error() {
		return nil, false, nil
	}
	w.said = err.Error()
	return nil, true, &Error{w.Path, w.good, err}
}

// unfinished reports whether info is of the file that was read last, written in place since,
// and perhaps not to its end.
func (w *watcher) unfinished(info os.FileInfo) bool {
	before := w.next
	if unchanged(info, w.info) || before != nil && unchanged(info, before) || w.wait >= 10 {
		return false
	}
	w.next = info
	w.wait++
	return true
}

// unchanged reports whether the same file has the same time and size.
func unchanged(a, b os.FileInfo) bool {
	return a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// settled is how old a file must be for its time and size to say that it is the same: in
// less, it may be written twice without either showing it.
const settled = 2 * time.Second

// read returns the text of the file, or that it is the same as last time.
func (w *watcher) read(now time.Time) (text []byte, same bool, err error) {
	f, err := os.Open(w.Path)
	if err != nil {
		w.info, w.text = nil, nil
		return nil, false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, false, err
	}
	if w.info != nil && os.SameFile(info, w.info) {
		if unchanged(info, w.info) && w.at.Sub(info.ModTime()) > settled || w.unfinished(info) {
			return nil, true, nil
		}
	}
	w.next, w.wait = nil, 0
	most := w.MaxBytes
	if most == 0 {
		most = 4 << 20
	}
	var r io.Reader = f
	if most > 0 {
		r = io.LimitReader(f, most+1)
	}
	if text, err = io.ReadAll(r); err != nil {
		return nil, false, err
	}
	if most > 0 && int64(len(text)) > most {
		w.info, w.text = nil, nil
		return nil, false, fmt.Errorf("%w: more than %d bytes", ErrTooLong, most)
	}
	same = w.info != nil && bytes.Equal(text, w.text)
	w.info, w.at, w.text = info, now, text
	return text, same, nil
}
