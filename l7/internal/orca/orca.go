// SPDX-License-Identifier: Apache-2.0

// Package orca reads reports of load in the formats of Open Request Cost Aggregation
// (ORCA): what a server says of its CPU, its memory, its queue, in a field of a reply.
// (xds.data.orca.v3.OrcaLoadReport of github.com/cncf/xds; gRFC A51.)
package orca

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"

	"github.com/penstock-lb/penstock/balance"
)

var errMalformed = errors.New("orca: malformed report")

// maxBytes bounds a report.
const maxBytes = 16 << 10

// Parse appends what the value of a field Endpoint-Load-Metrics reports to loads:
//
//	TEXT cpu_utilization=0.3, named_metrics.queue=4
//	JSON {"cpu_utilization": 0.3, "named_metrics": {"queue": 4}}
//	BIN base64 of the message in protobuf
//
// Without one of these words it is read as text; a colon may stand for the equals sign, as
// in Envoy's first form. Names are those of the text form. The costs of the one request
// (request_cost) are left out: they say nothing of the server. If any part is malformed,
// nothing is appended.
func Parse(loads []balance.Load, value string) ([]balance.Load, error) {
	if len(value) > maxBytes {
		return loads, errMalformed
	}
	value = strings.Trim(value, " \t")
	word, rest, ok := strings.Cut(value, " ")
	switch {
	case ok && strings.EqualFold(word, "JSON"):
		return parseJSON(loads, rest)
	case ok && strings.EqualFold(word, "BIN"):
		return ParseBinary(loads, rest)
	case ok && strings.EqualFold(word, "TEXT"):
		value = rest
	}
	return parseText(loads, value)
}

// add appends one number. It is false for those that are not finite.
func add(loads *[]balance.Load, name string, value float64) bool {
	if name == "" || math.IsNaN(value) || math.IsInf(value, 0) {
		return false
	}
	*loads = append(*loads, balance.Load{Name: name, Value: value})
	return true
}

const cost = "request_cost"

func parseText(loads []balance.Load, s string) ([]balance.Load, error) {
	all := loads
	for part := range strings.SplitSeq(s, ",") {
		i := strings.LastIndexAny(part, "=:")
		if i < 0 {
			return loads, errMalformed
		}
		name := strings.Trim(part[:i], " \t")
		value, err := strconv.ParseFloat(strings.Trim(part[i+1:], " \t"), 64)
		if err != nil || strings.ContainsAny(name, " \t") {
			return loads, errMalformed
		}
		if strings.HasPrefix(name, cost+".") {
			continue
		}
		if !add(&all, name, value) {
			return loads, errMalformed
		}
	}
	return all, nil
}

// A number of protobuf's JSON may be a string.
type number float64

func (n *number) UnmarshalJSON(b []byte) error {
	v, err := strconv.ParseFloat(strings.Trim(string(b), `"`), 64)
	*n = number(v)
	return err
}

func parseJSON(loads []balance.Load, s string) ([]balance.Load, error) {
	var parts map[string]json.RawMessage
	if json.Unmarshal([]byte(s), &parts) != nil {
		return loads, errMalformed
	}
	all := loads
	for name, raw := range parts {
		name = snake(name)
		if name == cost || string(raw) == "null" {
			continue
		}
		if raw[0] != '{' {
			var v number
			if v.UnmarshalJSON(raw) != nil || !add(&all, name, float64(v)) {
				return loads, errMalformed
			}
			continue
		}
		var m map[string]number
		if json.Unmarshal(raw, &m) != nil {
			return loads, errMalformed
		}
		for key, v := range m {
			if key == "" || !add(&all, name+"."+key, float64(v)) {
				return loads, errMalformed
			}
		}
	}
	return all, nil
}

// snake returns cpu_utilization for cpuUtilization, which JSON of protobuf may say.
func snake(name string) string {
	if strings.IndexFunc(name, isUpper) < 0 {
		return name
	}
	var b []byte
	for i := range len(name) {
		if c := name[i]; isUpper(rune(c)) {
			b = append(b, '_', c|0x20)
		} else {
			b = append(b, c)
		}
	}
	return string(b)
}

func isUpper(r rune) bool { return 'A' <= r && r <= 'Z' }

// ParseBinary is Parse for a field Endpoint-Load-Metrics-Bin: base64, with padding or
// without. A number that is 0 is not in the message, and so not reported.
func ParseBinary(loads []balance.Load, value string) ([]balance.Load, error) {
	value = strings.TrimRight(strings.Trim(value, " \t"), "=")
	if len(value) > maxBytes {
		return loads, errMalformed
	}
	b, err := base64.RawStdEncoding.DecodeString(value)
	if err != nil {
		return loads, errMalformed
	}
	all := loads
	for len(b) > 0 {
		f, n := field(b)
		if n == 0 {
			return loads, errMalformed
		}
		b = b[n:]
		name := names[f.number]
		switch {
		case name == "":
		case maps[f.number] && f.wire == wireBytes:
			key, v, ok := entry(f.bytes)
			if !ok || !add(&all, name+key, v) {
				return loads, errMalformed
			}
		case maps[f.number] || f.wire != wireFixed64 || !add(&all, name, f.double()):
			return loads, errMalformed
		}
	}
	return all, nil
}

// names are those of the fields of the message that are taken, maps those that are maps.
var (
	names = [...]string{
		1: "cpu_utilization", 2: "mem_utilization", 5: "utilization.", 6: "rps_fractional", 7: "eps",
		8: "named_metrics.", 9: "application_utilization", 15: "",
	}
	maps = [...]bool{5: true, 8: true, 15: false}
)

// entry reads an entry of a map of strings to doubles.
func entry(b []byte) (key string, value float64, ok bool) {
	for len(b) > 0 {
		f, n := field(b)
		if n == 0 {
			return "", 0, false
		}
		b = b[n:]
		switch {
		case f.number == 1 && f.wire == wireBytes:
			key = string(f.bytes)
		case f.number == 2 && f.wire == wireFixed64:
			value = f.double()
		}
	}
	return key, value, key != ""
}

// The types of the wire of protobuf that are read.
const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
	wireFixed32 = 5
)

// A rawField is one field of a message. Numbers above those that are known are 0.
type rawField struct {
	number int
	wire   uint64
	bytes  []byte // of the value; nil if it is a varint
}

func (f rawField) double() float64 {
	return math.Float64frombits(binary.LittleEndian.Uint64(f.bytes))
}

// field reads the first field of b and returns its length, 0 if it is malformed.
func field(b []byte) (f rawField, n int) {
	tag, n := binary.Uvarint(b)
	if n <= 0 || tag>>3 == 0 {
		return f, 0
	}
	if tag>>3 < uint64(len(names)) {
		f.number = int(tag >> 3)
	}
	f.wire = tag & 7
	size := uint64(0)
	switch f.wire {
	case wireVarint:
		_, m := binary.Uvarint(b[n:])
		if m <= 0 {
			return f, 0
		}
		return f, n + m
	case wireFixed64:
		size = 8
	case wireFixed32:
		size = 4
	case wireBytes:
		v, m := binary.Uvarint(b[n:])
		if m <= 0 {
			return f, 0
		}
		size, n = v, n+m
	default:
		return f, 0
	}
	if size > uint64(len(b)-n) {
		return f, 0
	}
	f.bytes = b[n : n+int(size)]
	return f, n + int(size)
}
