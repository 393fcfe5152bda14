// SPDX-License-Identifier: Apache-2.0

package redisstore

import "github.com/penstock-lb/penstock"

// Check returns what is wrong with s, a [*penstock.ConfigError]. Take and Refund
// return it, too.
func (s *Store) Check() error {
	var m penstock.Mistakes
	m.Need("Store.Client", s.Client, "must be a client of Redis")
	return m.Err()
}
