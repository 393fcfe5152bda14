// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"testing"
	"time"
)

// TestMain makes a gateway of this program when the test has started it as one.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "gateway" {
		main()
		return
	}
	flag.Parse()
	os.Exit(m.Run())
}

// TestSoak soaks for a moment, or for as long as PENSTOCK_SOAK says.
func TestSoak(t *testing.T) {
	o := Options{For: 4 * time.Second, Round: 2 * time.Second, Rate: 50}
	if v := os.Getenv("PENSTOCK_SOAK"); v != "" {
		d, err := time.ParseDuration(v)
		if err != nil {
			t.Fatal(err)
		}
		o = Options{For: d, Rate: 50}
	} else if testing.Short() {
		t.Skip("it takes seconds")
	}
	var out bytes.Buffer
	if err := Run(t.Context(), o, &out); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	t.Log(out.String())
}

// TestFaultIsFound: what is wrong with bytes is seen.
func TestFaultIsFound(t *testing.T) {
	text := func(token string, n int64) *bytes.Buffer {
		var b bytes.Buffer
		_, _ = b.ReadFrom(body(token, n))
		return &b
	}
	if n, err := compare("a", text("a", 20_000)); n != 20_000 || err != nil {
		t.Error(n, err)
	}
	for what, b := range map[string][]byte{
		"another's":          text("b", 100).Bytes(),
		"a byte is lost":     text("a", 100).Bytes()[1:],
		"a byte comes twice": append([]byte{text("a", 1).Bytes()[0]}, text("a", 100).Bytes()...),
		"a part of another":  append(text("a", 9_000).Bytes(), text("b", 9_000).Bytes()...),
	} {
		if _, err := compare("a", bytes.NewReader(b)); err == nil {
			t.Error(what, "is not seen")
		}
	}
	var g bytes.Buffer
	_, _ = g.ReadFrom(framed("call", 40_000))
	if n, err := compare("call", &unframed{r: &g}); n != 40_000 || err != nil {
		t.Error(n, err)
	}
	_, _ = g.ReadFrom(framed("call", 40_000))
	g.Truncate(39_000)
	if _, err := compare("call", &unframed{r: &g}); err == nil {
		t.Error("messages that are cut are not seen")
	}
	m := greeting{Token: 7, Size: 10}
	_, _ = g.ReadFrom(m.message())
	if err := checkDatagram(g.Bytes()); err != nil {
		t.Error(err)
	}
	if err := checkDatagram(g.Bytes()[:g.Len()-1]); err == nil {
		t.Error("a datagram that is cut is not seen")
	}
}

// TestGrowthIsFound: what is left in a calm, or grows, is a fault.
func TestGrowthIsFound(t *testing.T) {
	early := measure{Figures: Figures{Goroutines: 17, Heap: 1e6}, PSS: 20e6, Descriptors: 16}
	if err := errors.Join(left(early, early), grown(early, early)); err != nil {
		t.Error(err)
	}
	for what, set := range map[string]func(m *measure){
		"objects":     func(m *measure) { m.Heap += 3e6 },
		"memory":      func(m *measure) { m.PSS += 60e6 },
		"descriptors": func(m *measure) { m.Descriptors += moreDescriptors + 1 },
		"goroutines":  func(m *measure) { m.Goroutines += moreGoroutines + 1 },
	} {
		late := early
		set(&late)
		if errors.Join(left(early, late), grown(early, late)) == nil {
			t.Errorf("growth of %s is not seen", what)
		}
	}
}
