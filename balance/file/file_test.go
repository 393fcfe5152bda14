// SPDX-License-Identifier: Apache-2.0

package file_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/balance/file"
)

func TestParse(t *testing.T) {
	want := []balance.Endpoint{
		{Addr: "10.0.0.1:80", Name: "a", Weight: 3, MaxConns: 100, MinConns: 10, Zone: "east"},
		{Addr: "unix:/run/b", Tier: 1, Weight: -1, Labels: map[string]string{"rack": "r7", "os": "x"}},
	}
	for name, text := range map[string]string{
		"lines": "# all of them\n\n10.0.0.1:80 name=a weight=3 max_conns=100 min_conns=10 zone=east # the first\r\n  unix:/run/b\ttier=1 weight=-1 label.rack=r7 label.os=x",
		"array": `[{"addr": "10.0.0.1:80", "name": "a", "weight": 3, "max_conns": 100, "min_conns": 10, "zone": "east"},
			{"addr": "unix:/run/b", "tier": 1, "weight": -1, "labels": {"rack": "r7", "os": "x"}}]`,
		"object": "\ufeff" + ` {"endpoints": [{"addr": "10.0.0.1:80", "name": "a", "weight": 3, "max_conns": 100, "min_conns": 10, "zone": "east"},
			{"addr": "unix:/run/b", "tier": 1, "weight": -1, "labels": {"rack": "r7", "os": "x"}}]}`,
	} {
		eps, err := file.Parse([]byte(text))
		require.NoError(t, err, name)
		require.Equal(t, want, eps, name)
	}
	for _, text := range []string{"", "\n# none\n", "[]", "{}", `{"endpoints": []}`} {
		eps, err := file.Parse([]byte(text))
		require.NoError(t, err, "%q", text)
		require.Empty(t, eps, "%q", text)
	}
}

func TestParseErrors(t *testing.T) {
	for text, line := range map[string]int{
		"10.0.0.1:80\n10.0.0.2:80 weigth=3":                   2,
		"10.0.0.1:80 weight":                                  1,
		"10.0.0.1:80 weight=":                                 1,
		"10.0.0.1:80 weight=x":                                1,
		"10.0.0.1:80 weight=1 weight=2":                       1,
		"\n\nname=a 10.0.0.1:80":                              3,
		"10.0.0.1:80 label.=x":                                1,
		"[\n{\"addr\": \"10.0.0.1:80\",\n\"weight\": \"3\"}]": 3,
		"[{\"addr\": \"10.0.0.1:80\",\n\"limit\": 3}]":        2,
		"[\n{\"addr\": \"10.0.0.1:80\"}":                      2,
		"[]\n[]":                                              1,
		"{\"endpoint\": []}":                                  1,
	} {
		_, err := file.Parse([]byte(text))
		var pe *file.ParseError
		require.ErrorAs(t, err, &pe, "%q", text)
		require.Equal(t, line, pe.Line, "%q: %v", text, err)
	}
}

func TestOneEndpoint(t *testing.T) {
	want := balance.Endpoint{Addr: "10.0.0.1:80", Name: "a", Weight: -1, MaxConns: 9, MinConns: 2, MaxQueue: -1, Tier: 1, Zone: "z",
		Labels: map[string]string{"os": "x"}}
	for _, text := range []string{
		string(file.AppendJSON(nil, want)),
		"# a server\n10.0.0.1:80 name=a weight=-1 max_conns=9 min_conns=2 max_queue=-1 tier=1 zone=z label.os=x\n",
	} {
		e, err := file.ParseOne([]byte(text))
		require.NoError(t, err, text)
		require.Equal(t, want, e)
	}
	for _, text := range []string{"", "a:1\nb:2", `{"addr": "a:1"} {}`, `{"addr": "a:1", "wieght": 3}`, "{"} {
		_, err := file.ParseOne([]byte(text))
		var pe *file.ParseError
		require.ErrorAs(t, err, &pe, text)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("10.0.0.1:80 weight=3 label.a=b # x"))
	f.Add([]byte(`[{"addr": "10.0.0.1:80"}]`))
	f.Add([]byte("{"))
	f.Fuzz(func(t *testing.T, text []byte) {
		eps, err := file.Parse(text)
		var pe *file.ParseError
		if err != nil && (!errors.As(err, &pe) || pe.Line < 1 || pe.Line > 1+strings.Count(string(text), "\n")) {
			t.Errorf("%q: %v", text, err)
		}
		if len(eps) > len(text) {
			t.Errorf("%q: %d endpoints", text, len(eps))
		}
		for _, e := range eps {
			if again, err := file.ParseOne(file.AppendJSON(nil, e)); err != nil {
				t.Errorf("%v: %v, %v", e, again, err)
			}
		}
	})
}

// A story of a file: it is not there, comes, is replaced, is broken, is back, is emptied.
func TestSource(t *testing.T) {
	path := filepath.Join(t.TempDir(), "servers")
	replace := func(text string) {
		require.NoError(t, os.WriteFile(path+".new", []byte(text), 0o600))
		require.NoError(t, os.Rename(path+".new", path))
	}
	synctest.Test(t, func(t *testing.T) {
		var events atomic.Int64
		p := &balance.Pool{OnEvent: func(e balance.Event) {
			if e.Kind == balance.SourceFailed {
				events.Add(1)
			}
		}}
		src := &file.Source{Path: path, Edit: func(e *balance.Endpoint) { e.MaxConns = 7 }}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = p.Follow(ctx, src) })
		becomes := func(want string) {
			t.Helper()
			time.Sleep(time.Second)
			synctest.Wait()
			var all []string
			for s := range p.All() {
				all = append(all, fmt.Sprintf("%s/%d", s.Addr(), s.Endpoint().MaxConns))
			}
			require.Equal(t, want, strings.Join(all, " "))
		}
		becomes("")
		st, _ := p.SourceState()
		require.ErrorIs(t, st.Err, os.ErrNotExist)
		replace("10.0.0.1:80\n")
		becomes("10.0.0.1:80/7")
		st, _ = p.SourceState()
		require.NoError(t, st.Err)
		good := st.Good
		replace(`[{"addr": "10.0.0.1:80"}, {"addr": "10.0.0.2:80"}]`)
		becomes("10.0.0.1:80/7 10.0.0.2:80/7")
		require.EqualValues(t, 1, events.Load())
		replace("10.0.0.1:80 wieght=3")
		for range 60 {
			becomes("10.0.0.1:80/7 10.0.0.2:80/7")
		}
		require.EqualValues(t, 2, events.Load(), "an error is told once")
		st, _ = p.SourceState()
		var fe *file.Error
		require.ErrorAs(t, st.Err, &fe)
		require.Equal(t, good.Add(time.Second), fe.Good)
		require.ErrorContains(t, st.Err, `servers: line 1: there is no field "wieght" (the set of `+fe.Good.Format(time.RFC3339)+" stays)")
		require.NoError(t, os.Remove(path))
		becomes("10.0.0.1:80/7 10.0.0.2:80/7")
		require.EqualValues(t, 3, events.Load())
		replace("10.0.0.1:80\n")
		becomes("10.0.0.1:80/7")
		replace("")
		becomes("10.0.0.1:80/7")
		require.EqualValues(t, 4, events.Load(), "an empty set is not followed")
		replace("10.0.0.3:80\n10.0.0.3:80\n")
		becomes("10.0.0.1:80/7")
		require.EqualValues(t, 5, events.Load(), "nor one that the pool refuses")
		require.NoError(t, os.WriteFile(path, []byte("10.0.0.3:80\n"), 0o600)) // in place
		becomes("10.0.0.1:80/7")
		becomes("10.0.0.3:80/7")
		cancel()
		wg.Wait()
	})
}

// Half of a file that is written in place is not taken for the whole of it.
func TestHalfWrittenFileIsNotRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "servers")
	whole := "10.0.0.1:80\n10.0.0.2:80\n10.0.0.3:80\n"
	require.NoError(t, os.WriteFile(path, []byte(whole), 0o600))
	synctest.Test(t, func(t *testing.T) {
		p := &balance.Pool{AllowEmpty: true}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = p.Follow(ctx, &file.Source{Path: path}) })
		look := func() int {
			time.Sleep(time.Second)
			synctest.Wait()
			return p.Stats().Servers
		}
		require.Equal(t, 3, look())
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
		require.NoError(t, err)
		defer f.Close()
		at := time.Now()
		for i, line := range strings.SplitAfter(whole+"10.0.0.4:80\n", "\n") {
			require.Equal(t, 3, look(), "it is empty, or half of it is there")
			_, err := f.WriteString(line)
			require.NoError(t, err)
			require.NoError(t, os.Chtimes(path, at, at.Add(time.Duration(i)*time.Second)))
		}
		require.Equal(t, 3, look(), "it has grown since the last look")
		require.Equal(t, 4, look())

		// One that is written all the time is read nonetheless.
		for i := range 30 {
			_, err := fmt.Fprintf(f, "10.0.1.%d:80\n", i)
			require.NoError(t, err)
			look()
		}
		require.GreaterOrEqual(t, p.Stats().Servers, 4+20)
		cancel()
		wg.Wait()
	})
}

// A file that was written twice within the grain of its time is read again.
func TestSourceSeesAWriteThatLeavesTimeAndSize(t *testing.T) {
	path := filepath.Join(t.TempDir(), "servers")
	now := time.Now()
	write := func(text string) {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		require.NoError(t, os.Chtimes(path, now, now))
	}
	got := make(chan string, 10)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = (&file.Source{Path: path, Interval: time.Millisecond}).Watch(ctx, func(eps []balance.Endpoint, err error) {
			if err == nil && len(eps) > 0 {
				got <- eps[0].Addr
			}
		})
	})
	for _, want := range []string{"10.0.0.1:80", "10.0.0.2:80"} {
		write(want + "\n")
		select {
		case addr := <-got:
			require.Equal(t, want, addr)
		case <-time.After(10 * time.Second):
			t.Fatalf("%s is never seen", want)
		}
	}
	cancel()
	wg.Wait()
}

func TestSourceIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "servers")
	require.NoError(t, os.WriteFile(path, []byte(strings.Repeat("#", 100)), 0o600))
	for most, want := range map[int64]error{99: file.ErrTooLong, 100: nil, -1: nil, 0: nil} {
		ctx, cancel := context.WithCancel(t.Context())
		err := (&file.Source{Path: path, MaxBytes: most}).Watch(ctx, func(_ []balance.Endpoint, err error) {
			require.ErrorIs(t, err, want)
			cancel()
		})
		require.ErrorIs(t, err, context.Canceled)
	}
}

func TestBadSource(t *testing.T) {
	var ce *penstock.ConfigError
	require.ErrorAs(t, new(file.Source).Watch(t.Context(), nil), &ce)
	require.Equal(t, "Source.Path", ce.Field)
}
