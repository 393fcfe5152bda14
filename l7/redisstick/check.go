// SPDX-License-Identifier: Apache-2.0

package redisstick

import "github.com/penstock-lb/penstock"

// Check returns what is wrong with t, a [*penstock.ConfigError]. A [l7.Stick]
// with the table calls it when it is first used.
func (t *Table) Check() error {
	var m penstock.Mistakes
	m.Need("Table.Client", t.Client, "must be a client of Redis")
	m.In("Table.Local", t.Local)
	return m.Err()
}
