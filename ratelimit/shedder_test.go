// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestShedSettles: whatever is asked of the machine, and if its load follows up to one
// reading late and up to its third power, the share settles where the load is at its
// target, and where there is enough for everybody, at all.
func TestShedSettles(t *testing.T) {
	for _, demand := range []float64{0.1, 0.5, 0.69, 1, 2, 5, 15} {
		for lag := range 2 {
			for power := 1.; power <= 3; power++ {
				plant := func(share float64) float64 { return min(1, math.Pow(share*demand, power)) }
				past := []float64{1, 1, 1, 1}
				share := 1.
				for i := range 400 {
					past = append(past, share)
					share = shed(share, plant(past[len(past)-1-lag]), 0.7, 0.05)
					if i > 300 && plant(1) > 0.7 && plant(0.05) < 0.7 {
						require.InDelta(t, 0.7, plant(share), 0.07, "demand %v, lag %d, power %v", demand, lag, power)
					}
				}
				switch {
				case plant(1) < 0.65:
					require.Equal(t, 1., share)
				case plant(0.05) > 0.75:
					require.Equal(t, 0.05, share)
				}
			}
		}
	}
}

func TestShedder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, load, fails := 0, 0., error(nil)
		s := &Shedder{Least: 0.1, Load: func() (float64, error) { asked++; return load, fails }}
		second := func() (let int) {
			for range 1000 {
				if s.TryAcquire() {
					let++
				}
				s.Release(0)
				time.Sleep(time.Millisecond)
			}
			return let
		}
		require.Equal(t, 1000, second())
		require.InDelta(t, 10, asked, 1)
		load = 1
		second()
		second()
		second()
		require.InDelta(t, 100, second(), 50)
		require.InDelta(t, 0.1, s.Share(), 1e-9)
		load = 0.2
		second()
		second()
		second()
		require.Equal(t, 1000, second())
		load = 1
		second()
		require.Less(t, s.Share(), 0.7)
		fails = errors.New("away")
		second()
		second()
		require.Equal(t, 1., s.Share())
		require.NoError(t, s.Acquire(t.Context()))
		st := s.Stats()
		require.EqualValues(t, 12*1000+1, st.Taken+st.Refused)
	})
}

func TestCPUPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "cpu")
		p := &CPUPressure{Path: path}
		_, err := p.Load()
		require.ErrorIs(t, err, os.ErrNotExist)
		for _, test := range []struct {
			total string
			want  float64
		}{
			{"1000000", 0}, {"1250000", 0.25}, {"1250000", 0}, {"9250000", 1}, {"3", 0}, {"500003", 0.5},
		} {
			require.NoError(t, os.WriteFile(path, []byte("some avg10=1.00 avg60=2.00 avg300=3.00 total="+test.total+"\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"), 0o600))
			time.Sleep(time.Second)
			got, err := p.Load()
			require.NoError(t, err)
			require.InDelta(t, test.want, got, 1e-9, test.total)
		}
		for _, text := range []string{"", "some", "full avg10=0 total=1\n", "some total=x\n", "some total=-1\n", "some total=99999999999999999999\n", "some total=9223372036854775807\n"} {
			_, err := parsePressure([]byte(text))
			require.Error(t, err, "%q", text)
		}
	})
	if _, err := os.Stat("/proc/pressure/cpu"); err == nil {
		_, err := new(CPUPressure).Load()
		require.NoError(t, err)
	}
}

// TestSchedulerDelay: what the runtime calls its measurement is what it was.
func TestSchedulerDelay(t *testing.T) {
	var s SchedulerDelay
	for range 5000 { // one in eight is measured
		done := make(chan bool)
		go func() { done <- true }()
		<-done
		runtime.Gosched()
	}
	load, err := s.Load()
	require.NoError(t, err)
	require.True(t, load >= 0 && load <= 1)
	require.Positive(t, s.runs)
	all := SchedulerDelay{Over: 1}
	load, err = all.Load()
	require.NoError(t, err)
	require.Greater(t, load, 0.5, "nearly all wait for a nanosecond")
}

func BenchmarkShedder(b *testing.B) {
	s := Shedder{Load: func() (float64, error) { return 0.5, nil }}
	b.ReportAllocs()
	for b.Loop() {
		s.TryAcquire()
	}
}
