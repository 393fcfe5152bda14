// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"
)

// A Reload tells of files that were read again as they had changed, by
// [CertificateFiles] or [ClientVerifier].
type Reload struct {
	Files []string // a certificate and its key, or one file
	Err   error    // why what was read before stays in force; nil if it does not
}

const (
	defaultFileInterval = 10 * time.Second
	defaultFileBytes    = 32 << 20
)

// A fileSet is files that count together, such as a certificate and its key. It finds
// out when they have changed, and is for one goroutine.
//
// Files that were replaced by others (renamed onto, or reached by a symbolic link that
// was) are read at once. Of those that are written in place, half may be there: they
// are read when two looks in a row find them the same, or after ten that do not.
type fileSet struct {
	paths []string
	most  int64                         // bytes of each; negative means no limit
	use   func(contents [][]byte) error // takes what was read

	infos  []os.FileInfo // of the files as they were read last; nil if they were not
	at     time.Time     // when
	next   []os.FileInfo // of files that are being written in place
	looks  int           // since that was first found
	sum    [sha256.Size]byte
	used   bool  // sum is of what use has taken or refused
	failed error // of the last look; nil if it was good
	told   string
}

// look reads the files if they may have changed. News says that there is something to
// tell: they were taken, or an error was found twice in a row, so that a pair of which
// one file was replaced a moment before the other does not make one.
func (s *fileSet) look(now time.Time) (news bool, err error) {
	read, err := s.read(now)
	switch {
	case err != nil:
		again := s.failed != nil && s.failed.Error() == err.Error()
		if s.failed = err; again && s.told != err.Error() {
			s.told = err.Error()
			return true, err
		}
		return false, err
	case !read:
		if s.failed != nil && s.told != s.failed.Error() { // it is still so
			s.told = s.failed.Error()
			return true, s.failed
		}
		return false, s.failed
	}
	s.failed, s.told = nil, ""
	return true, nil
}

// read reports whether something new was taken.
func (s *fileSet) read(now time.Time) (bool, error) {
	infos, err := s.stat()
	if err != nil {
		s.infos, s.used = nil, false
		return false, err
	}
	if s.infos != nil && (s.settled(infos) || s.unfinished(infos)) {
		return false, nil
	}
	s.next, s.looks = nil, 0
	contents, infos, err := s.contents()
	if err != nil {
		s.infos, s.used = nil, false
		return false, err
	}
	s.infos, s.at = infos, now
	sum := sumOf(contents)
	if s.used && sum == s.sum {
		return false, nil
	}
	s.used, s.sum = true, sum
	return true, s.useSafely(contents)
}

// useSafely turns a panic of a parser into an error: the files are not ours.
func (s *fileSet) useSafely(contents [][]byte) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return s.use(contents)
}

func (s *fileSet) stat() ([]os.FileInfo, error) {
	infos := make([]os.FileInfo, len(s.paths))
	for i, path := range s.paths {
		var err error
		if infos[i], err = os.Stat(path); err != nil {
			return nil, err
		}
	}
	return infos, nil
}

// fileSettles is how old a file must be for its time and size to say that it is the
// same: in less, it may be written twice without either showing it.
const fileSettles = 2 * time.Second

// settled reports whether the files are those that were read.
func (s *fileSet) settled(infos []os.FileInfo) bool {
	old := func(info os.FileInfo) bool { return s.at.Sub(info.ModTime()) > fileSettles }
	return sameFiles(infos, s.infos) && !slices.ContainsFunc(infos, func(info os.FileInfo) bool { return !old(info) })
}

// unfinished reports whether one of the files that were read has been written in place
// since, and perhaps not to its end.
func (s *fileSet) unfinished(infos []os.FileInfo) bool {
	inPlace := false
	for i := range infos {
		if !os.SameFile(infos[i], s.infos[i]) {
			return false
		}
		inPlace = inPlace || !sameFiles(infos[i:i+1], s.infos[i:i+1])
	}
	if !inPlace || s.next != nil && sameFiles(infos, s.next) || s.looks >= 10 {
		return false
	}
	s.next = infos
	s.looks++
	return true
}

// sameFiles reports whether the files are the same, with the same times and sizes.
func sameFiles(a, b []os.FileInfo) bool {
	return slices.EqualFunc(a, b, func(a, b os.FileInfo) bool {
		return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
	})
}

// contents reads all files. Where one was replaced or written meanwhile, it reads them
// again, so that they go together: the directory in which Kubernetes mounts a secret is
// switched as a whole.
func (s *fileSet) contents() (contents [][]byte, infos []os.FileInfo, err error) {
	for tries := 5; ; tries-- {
		contents, infos = contents[:0], infos[:0]
		for _, path := range s.paths {
			b, info, err := readBounded(path, s.most)
			if err != nil {
				return nil, nil, err
			}
			contents, infos = append(contents, b), append(infos, info)
		}
		now, err := s.stat()
		if err == nil && sameFiles(infos, now) || tries == 1 {
			return contents, infos, nil
		}
	}
}

func readBounded(path string, most int64) ([]byte, os.FileInfo, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	var r io.Reader = f
	if most > 0 {
		r = io.LimitReader(f, most+1)
	}
	b, err := io.ReadAll(r)
	if err == nil && most > 0 && int64(len(b)) > most {
		err = fmt.Errorf("%s has more than %d bytes", path, most)
	}
	return b, info, err
}

func sumOf(contents [][]byte) [sha256.Size]byte {
	h := sha256.New()
	for _, b := range contents {
		sum := sha256.Sum256(b)
		h.Write(sum[:])
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// load looks at all sets now. The error names the files that cannot be used; follow does
// not tell of them again.
func load(sets []*fileSet) error {
	var errs []error
	for _, s := range sets {
		if _, err := s.look(time.Now()); err != nil {
			s.told = err.Error()
			errs = append(errs, fmt.Errorf("l4: %s: %w", strings.Join(s.paths, ", "), err))
		}
	}
	return errors.Join(errs...)
}

// follow looks at the sets each interval until ctx ends, and then returns why. Changed
// is called after looks that have taken something; each piece of news is told.
func follow(ctx context.Context, sets []*fileSet, interval time.Duration, changed func(), tell func(Reload)) error {
	if interval == 0 {
		interval = defaultFileInterval
	}
	ticks := time.NewTicker(interval)
	defer ticks.Stop()
	for {
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		var told []Reload
		taken := false
		for _, s := range sets {
			if news, err := s.look(time.Now()); news {
				told = append(told, Reload{s.paths, err})
				taken = taken || err == nil
			}
		}
		if taken {
			changed()
		}
		for _, r := range told {
			tell(r)
		}
	}
}

func fileBytes(n int64) int64 {
	if n == 0 {
		return defaultFileBytes
	}
	return n
}

// tellReload calls the hook, or logs without one.
func tellReload(l *slog.Logger, hook func(Reload), r Reload) {
	switch {
	case hook != nil:
		guard(l, "OnReload", func() { hook(r) })
	case r.Err != nil:
		logger(l).Error("l4: files cannot be used, what was read before stays", "files", r.Files, "error", r.Err)
	default:
		logger(l).Info("l4: files were read again", "files", r.Files)
	}
}
