// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A disk keeps what is written, and fails on demand.
type disk struct {
	mu     sync.Mutex
	files  []*strings.Builder
	room   int // bytes that it still takes; negative means any number
	broken error
	stuck  chan struct{} // not nil: writes wait for it
}

func (d *disk) open() (io.WriteCloser, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken != nil {
		return nil, d.broken
	}
	d.files = append(d.files, new(strings.Builder))
	return &onDisk{d, d.files[len(d.files)-1]}, nil
}

// text is what is in file i.
func (d *disk) text(i int) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.files[i].String()
}

// set changes d.
func (d *disk) set(change func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change()
}

type onDisk struct {
	*disk
	text *strings.Builder
}

func (f *onDisk) Write(p []byte) (int, error) {
	if f.stuck != nil {
		<-f.stuck
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.room >= 0 && len(p) > f.room {
		n, _ := f.text.Write(p[:f.room])
		f.room = 0
		return n, errors.New("no space left")
	}
	if f.room >= 0 {
		f.room -= len(p)
	}
	return f.text.Write(p)
}

func (f *onDisk) Close() error { return nil }

// run runs f in the bubble and returns what ends it.
func run(t *testing.T, f *File) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	synctest.Wait()
	return func() {
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
	}
}

func TestLinesComeInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{room: -1}
		f := &File{Open: d.open}
		f.Put(append(f.Line(), "before Run"...))
		stop := run(t, f)
		for i := range 3 {
			f.Put(fmt.Appendf(f.Line(), "line %d", i))
		}
		n, err := fmt.Fprintln(f, "by Write")
		require.NoError(t, err)
		require.Equal(t, 9, n)
		require.Empty(t, d.text(0))
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, "before Run\nline 0\nline 1\nline 2\nby Write\n", d.text(0))
		f.Put([]byte("last"))
		stop()
		require.True(t, strings.HasSuffix(d.text(0), "by Write\nlast\n"), "the rest is written at the end")
		require.Equal(t, Stats{Written: 6, Bytes: int64(len(d.text(0)))}, f.Stats())
	})
}

// Nobody waits for a disk that is stuck, and memory is bounded.
func TestStuckDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{room: -1, stuck: make(chan struct{})}
		f := &File{Open: d.open, Max: 1000, Flush: time.Hour}
		stop := run(t, f)
		line := []byte(strings.Repeat("x", 99))
		start := time.Now()
		for range 100 {
			f.Put(line)
			synctest.Wait() // Run has taken what it can
		}
		require.Equal(t, start, time.Now())
		_, err := f.Write(make([]byte, 500))
		require.ErrorIs(t, err, ErrNotWritten)
		require.EqualValues(t, 100, f.Stats().Written+f.Stats().Dropped)
		require.Greater(t, f.Stats().Written, int64(10))
		require.LessOrEqual(t, f.Stats().Written, int64(20))
		close(d.stuck)
		synctest.Wait()
		stop()
		require.Equal(t, int(f.Stats().Written), strings.Count(d.text(0), "\n"))
	})
}

// A full disk costs the lines that it does not take, and no other.
func TestFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said strings.Builder
		d := &disk{room: 12}
		f := &File{Open: d.open, Logger: slog.New(slog.NewTextHandler(&said, nil))}
		stop := run(t, f)
		say := func(lines ...string) {
			for _, l := range lines {
				f.Put([]byte(l))
			}
			time.Sleep(time.Second)
			synctest.Wait()
		}
		say("first", "second", "third") // of "second" five bytes
		say("fourth")
		require.Equal(t, Stats{Written: 1, Dropped: 3, Bytes: 12}, f.Stats())
		d.set(func() { d.room = -1 })
		say("fifth")
		require.Equal(t, "first\nsecond"[:11]+"\nfifth\n", strings.Replace(d.text(0), "second", "secon", 1))
		require.Equal(t, 2, strings.Count(said.String(), "accesslog:"), said.String())
		require.Contains(t, said.String(), "written again")
		stop()
	})
}

func TestReopen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	f := &File{Path: path, Flush: time.Millisecond}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- f.Run(ctx) }()
	f.Put([]byte("one"))
	require.Eventually(t, func() bool { b, _ := os.ReadFile(path); return string(b) == "one\n" }, 5*time.Second, time.Millisecond)
	require.NoError(t, os.Rename(path, path+".1"))
	f.Put([]byte("two"))
	f.Reopen()
	require.Eventually(t, func() bool { _, err := os.Stat(path); return err == nil }, 5*time.Second, time.Millisecond)
	f.Put([]byte("three"))
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
	old, err := os.ReadFile(path + ".1")
	require.NoError(t, err)
	young, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "one\ntwo\nthree\n", string(old)+string(young))
	require.Contains(t, string(old), "two")
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0), info.Mode().Perm()&0o007, "others may not read it")
}

// A file that cannot be opened again costs the lines until it can.
func TestReopenFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{room: -1}
		f := &File{Open: d.open, Logger: slog.New(slog.DiscardHandler)}
		stop := run(t, f)
		d.set(func() { d.broken = errors.New("read-only file system") })
		f.Reopen()
		f.Put([]byte("into the old one"))
		synctest.Wait()
		f.Put([]byte("lost"))
		time.Sleep(time.Second)
		synctest.Wait()
		d.set(func() { d.broken = nil })
		time.Sleep(time.Second)
		f.Put([]byte("into the new one"))
		stop()
		require.Equal(t, "into the old one\n", d.text(0))
		require.Equal(t, "into the new one\n", d.text(1))
		require.EqualValues(t, 1, f.Stats().Dropped)

		require.ErrorIs(t, (&File{Open: func() (io.WriteCloser, error) { return nil, os.ErrPermission }}).Run(t.Context()), os.ErrPermission)
		require.ErrorContains(t, (&File{Open: func() (io.WriteCloser, error) { panic("host") }}).Run(t.Context()), "Open panicked: host")
		require.ErrorContains(t, new(File).Run(t.Context()), "File.Path")
	})
}

func TestManyWriters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{room: -1}
		f := &File{Open: d.open}
		stop := run(t, f)
		var wg sync.WaitGroup
		for g := range 8 {
			wg.Go(func() {
				for i := range 500 {
					f.Put(fmt.Appendf(f.Line(), "%d-%d.", g, i))
				}
			})
		}
		wg.Wait()
		stop()
		lines := strings.Split(strings.TrimSuffix(d.text(0), "\n"), "\n")
		require.Len(t, lines, 4000)
		seen := make(map[string]bool)
		for _, l := range lines {
			require.Regexp(t, `^\d-\d+\.$`, l)
			seen[l] = true
		}
		require.Len(t, seen, 4000)
	})
}

func BenchmarkPut(b *testing.B) {
	f := &File{Open: func() (io.WriteCloser, error) { return nil, nil }, Max: 1 << 30}
	text := strings.Repeat("x", 200)
	b.ReportAllocs()
	for b.Loop() {
		f.Put(append(f.Line(), text...))
		if len(f.waiting) > 1<<20 {
			f.waiting = f.waiting[:0]
		}
	}
}
