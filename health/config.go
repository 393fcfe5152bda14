// SPDX-License-Identifier: Apache-2.0

package health

const notNegative = "must not be negative"

// or returns v, or def if v is zero.
func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}
