// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime/metrics"
	"strconv"
	"sync"
	"time"
)

// CPUPressure is a load for a [Shedder]: the share of the time, since Load was called
// last, in which some thread was ready to run and had no CPU. It is of the control group
// of this process where that is a container's, and of the machine otherwise. Linux has
// it, unless it was built or started without; elsewhere Load returns an error.
//
// It is that of one Shedder, as it remembers the last reading.
//
// Source: Linux, Documentation/accounting/psi.rst.
type CPUPressure struct {
	Path string // of the file; empty means /sys/fs/cgroup/cpu.pressure, and /proc/pressure/cpu if there is none

	mu    sync.Mutex
	path  string
	at    time.Time
	total time.Duration
}

// Load returns the share, 0 the first time.
func (p *CPUPressure) Load() (float64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	text, err := p.read()
	if err != nil {
		return 0, err
	}
	now := time.Now()
	total, err := parsePressure(text)
	if err != nil {
		return 0, fmt.Errorf("ratelimit: %s: %w", p.path, err)
	}
	since := now.Sub(p.at)
	share := 0.0
	if !p.at.IsZero() && since > 0 && total > p.total {
		share = min(1, float64(total-p.total)/float64(since))
	}
	p.at, p.total = now, total
	return share, nil
}

func (p *CPUPressure) read() ([]byte, error) {
	if p.path == "" {
		p.path = p.Path
	}
	if p.path != "" {
		return os.ReadFile(p.path)
	}
	var err error
	for _, path := range []string{"/sys/fs/cgroup/cpu.pressure", "/proc/pressure/cpu"} {
		var text []byte
		if text, err = os.ReadFile(path); err == nil {
			p.path = path
			return text, nil
		}
	}
	return nil, err
}

// parsePressure returns the total of the first line, as in
//
//	some avg10=0.00 avg60=0.00 avg300=0.00 total=143728561
func parsePressure(text []byte) (time.Duration, error) {
	line, _, _ := bytes.Cut(text, []byte("\n"))
	_, number, ok := bytes.Cut(line, []byte(" total="))
	if !ok || !bytes.HasPrefix(line, []byte("some ")) {
		return 0, errors.New("not a file of pressure stall information")
	}
	us, err := strconv.ParseInt(string(number), 10, 64)
	if err != nil {
		return 0, err
	}
	if us < 0 || us > math.MaxInt64/int64(time.Microsecond) {
		return 0, errors.New("total out of range")
	}
	return time.Duration(us) * time.Microsecond, nil
}

// SchedulerDelay is a load for a [Shedder]: of the goroutines that became ready to run
// since Load was called last, the share that waited longer than Over for it. The Go
// runtime measures it for a sample of them, on every system. A program that shares its
// CPUs with others sees them only as far as they delay its own goroutines.
//
// It is that of one Shedder, as it remembers the last reading.
//
// Source: runtime/metrics, /sched/latencies:seconds.
type SchedulerDelay struct {
	Over time.Duration // 0 means 1ms

	mu         sync.Mutex
	sample     []metrics.Sample
	late, runs uint64
}

// Load returns the share. It is 0 while fewer than ten were measured.
func (s *SchedulerDelay) Load() (float64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sample == nil {
		s.sample = []metrics.Sample{{Name: "/sched/latencies:seconds"}}
	}
	metrics.Read(s.sample)
	if s.sample[0].Value.Kind() != metrics.KindFloat64Histogram {
		return 0, errors.New("ratelimit: this Go has no /sched/latencies:seconds")
	}
	over := orDefault(s.Over, time.Millisecond)
	h := s.sample[0].Value.Float64Histogram()
	var late, runs uint64
	for i, n := range h.Counts {
		runs += n
		if h.Buckets[i] >= over.Seconds() {
			late += n
		}
	}
	newLate, newRuns := late-s.late, runs-s.runs
	if newRuns < 10 {
		return 0, nil
	}
	s.late, s.runs = late, runs
	return float64(newLate) / float64(newRuns), nil
}
