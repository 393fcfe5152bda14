// SPDX-License-Identifier: Apache-2.0

package health

import "fmt"

// A ConfigError names one field that cannot be used.
type ConfigError struct {
	Field  string // as in Go, such as "Checker.Jitter"
	Value  any
	Reason string
}

func (e *ConfigError) Error() string {
	return fmt.Sprintf("health: %s: %v %s", e.Field, e.Value, e.Reason)
}

// or returns v, or def if v is zero.
func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}
