// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"strings"
	"testing"
)

// Chunks may be small without end, as a stream that is flushed byte by byte has them. Lines that
// are long for what they frame may not.
func TestChunkLinesAreBoundedByTheirData(t *testing.T) {
	for _, tc := range []struct {
		name, chunk string
		ok          bool
	}{
		{"one byte each", "1\r\nx\r\n", true},
		{"zeros before", "0000000000001\r\nx\r\n", true},
		{"a short extension", "1;a=b\r\nx\r\n", true},
		{"a long extension", "1;a=" + strings.Repeat("b", 40) + "\r\nx\r\n", false},
		{"a long extension of a long chunk", "40;a=" + strings.Repeat("b", 40) + "\r\n" + strings.Repeat("x", 64) + "\r\n", true},
	} {
		var d chunkDecoder
		body := []byte(strings.Repeat(tc.chunk, 20_000))
		var err *headError
		for len(body) > 0 && err == nil {
			var used int
			_, used, err = d.decode(body)
			body = body[used:]
		}
		if (err == nil) != tc.ok {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}
