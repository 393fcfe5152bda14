// SPDX-License-Identifier: Apache-2.0

package orca

import (
	"cmp"
	"encoding/base64"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

// sorted returns loads as name and value, by name.
func sorted(loads []balance.Load) []balance.Load {
	slices.SortFunc(loads, func(a, b balance.Load) int { return cmp.Compare(a.Name, b.Name) })
	return loads
}

func load(name string, value float64) balance.Load { return balance.Load{Name: name, Value: value} }

func TestParse(t *testing.T) {
	cpu, queue := load("cpu_utilization", 0.3), load("named_metrics.queue", 4)
	for value, want := range map[string][]balance.Load{
		"TEXT cpu_utilization=0.3, named_metrics.queue=4":                                                     {cpu, queue},
		"text cpu_utilization = 0.3,named_metrics.queue= 4":                                                   {cpu, queue},
		"cpu_utilization:0.3,named_metrics.queue:4":                                                           {cpu, queue},
		"TEXT named_metrics.vllm:queue=4":                                                                     {load("named_metrics.vllm:queue", 4)},
		"TEXT cpu_utilization=0.3,request_cost.tokens=70":                                                     {cpu},
		"TEXT cpu_utilization=3e-1, eps=0":                                                                    {cpu, load("eps", 0)},
		`JSON {"cpu_utilization": 0.3, "named_metrics": {"queue": 4}, "request_cost": {"x": 1}, "eps": null}`: {cpu, queue},
		`JSON {"cpuUtilization":"0.3","namedMetrics":{"queue":"4"},"utilization":{"Disk":1}}`:                 {cpu, queue, load("utilization.Disk", 1)},
		`JSON {}`: nil,
		// As in the example of the specification: mem_utilization 0.1, rps_fractional 2, named_metrics foo 0.1 and bar 0.2.
		"BIN EZqZmZmZmbk/MQAAAAAAAABAQg4KA2ZvbxGamZmZmZm5P0IOCgNiYXIRmpmZmZmZyT8=": {
			load("mem_utilization", 0.1), load("named_metrics.bar", 0.2), load("named_metrics.foo", 0.1), load("rps_fractional", 2),
		},
		// Fields that are not known, and requests a second in the old form, are passed over.
		"BIN " + base64.StdEncoding.EncodeToString([]byte("\x18\x05\xa2\x06\x02hi\xad\x06abcd\x22\x03\x0a\x01x")): nil,
	} {
		got, err := Parse(nil, value)
		require.NoError(t, err, value)
		require.Equal(t, sorted(want), sorted(got), value)
	}
}

func TestParseRefuses(t *testing.T) {
	before := []balance.Load{load("kept", 1)}
	bin := func(s string) string { return "BIN " + base64.StdEncoding.EncodeToString([]byte(s)) }
	for _, value := range []string{
		"", "TEXT", "TEXT ", "TEXT a", "TEXT a=", "TEXT =1", "TEXT a=b", "TEXT a=1,", "TEXT a=NaN", "TEXT a=1,b=inf", "TEXT named_metrics.a=1 b=2",
		"JSON ", "JSON 1", "JSON []", `JSON {"a":[1]}`, `JSON {"a":true}`, `JSON {"a":{"b":{}}}`, `JSON {"a":"NaN"}`, `JSON {"":1}`, `JSON {"a":{"":1}}`,
		"BIN !", bin("\x09\x00"), bin("\x0a\x00"), bin("\x08\x01"), bin("\x0b"), bin("\x00\x01"), bin("\x42\x03\x0a\x01"), bin("\x42\x02\x0a\x00"), bin("\x42\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
		bin("\x09" + "\x00\x00\x00\x00\x00\x00\xf0\x7f"), // infinite
		bin("\x41\x00\x00\x00\x00\x00\x00\x00\x00"),      // a map as a double
		"TEXT a=1," + strings.Repeat("b=1,", maxBytes),
	} {
		got, err := Parse(before, value)
		require.Error(t, err, "%.40q", value)
		require.Equal(t, before, got, "%.40q", value)
	}
	_, err := ParseBinary(nil, strings.Repeat("A", maxBytes+1))
	require.Error(t, err)
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"TEXT cpu_utilization=0.3, named_metrics.queue=4", `JSON {"cpuUtilization": 0.3, "named_metrics": {"queue": 4}}`,
		"BIN EZqZmZmZmbk/MQAAAAAAAABAQg4KA2ZvbxGamZmZmZm5P0IOCgNiYXIRmpmZmZmZyT8=", "a:1",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		loads, err := Parse(nil, s)
		if err != nil && len(loads) > 0 {
			t.Errorf("%q: %v with %v", s, loads, err)
		}
		if len(loads) > len(s) {
			t.Errorf("%d numbers from %d bytes", len(loads), len(s))
		}
		for _, l := range loads {
			if l.Name == "" || math.IsNaN(l.Value) || math.IsInf(l.Value, 0) || strings.HasPrefix(l.Name, cost+".") {
				t.Errorf("%q: %v", s, l)
			}
		}
	})
}

func BenchmarkParse(b *testing.B) {
	for _, s := range []string{
		"TEXT cpu_utilization=0.3, named_metrics.queue=4", `JSON {"cpu_utilization": 0.3, "named_metrics": {"queue": 4}}`,
		"BIN EZqZmZmZmbk/MQAAAAAAAABAQg4KA2ZvbxGamZmZmZm5P0IOCgNiYXIRmpmZmZmZyT8=",
	} {
		b.Run(s[:4], func(b *testing.B) {
			b.ReportAllocs()
			var buf [16]balance.Load
			for b.Loop() {
				if _, err := Parse(buf[:0], s); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
