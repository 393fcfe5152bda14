// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"fmt"
	"strings"
)

// What String returns is also what JSON and slog show: a number says nothing to a reader.

// MarshalText returns what String does, for JSON and slog.
func (a Admin) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads what MarshalText returns. The error names the words that there are.
func (a *Admin) UnmarshalText(text []byte) error { return readWord(a, Maint, text) }

// MarshalText returns what String does, for JSON and slog.
func (h Health) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads what MarshalText returns. The error names the words that there are.
func (h *Health) UnmarshalText(text []byte) error { return readWord(h, Unknown, text) }

// MarshalText returns what String does, for JSON and slog.
func (r Reporter) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads what MarshalText returns. The error names the words that there are.
func (r *Reporter) UnmarshalText(text []byte) error { return readWord(r, MaxReporter, text) }

// MarshalText returns what String does, for JSON and slog.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText returns. The error names the words that there are.
func (s *State) UnmarshalText(text []byte) error { return readWord(s, StateLeft, text) }

// MarshalText returns what String does, for JSON and slog.
func (c Class) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads what MarshalText returns. The error names the words that there are.
func (c *Class) UnmarshalText(text []byte) error { return readWord(c, Stale, text) }

// readWord sets to to the value up to last that text is the word for.
func readWord[T interface {
	~uint8
	String() string
}](to *T, last T, text []byte) error {
	var words []string
	for v := T(0); v <= last; v++ {
		if v.String() == string(text) {
			*to = v
			return nil
		}
		words = append(words, v.String())
	}
	return fmt.Errorf("%T %q: must be one of %s", *to, text, strings.Join(words, ", "))
}
