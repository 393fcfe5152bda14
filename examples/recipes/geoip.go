// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"fmt"
	"os"
	"slices"
	"sync/atomic"

	"github.com/oschwald/maxminddb-golang/v2"

	"github.com/penstock-lb/penstock/l7"
)

// Countries tells the countries of clients by a file in MaxMind's format, such as
// GeoLite2-Country.mmdb. Its methods may be called by several goroutines at once.
type Countries struct {
	db atomic.Pointer[maxminddb.Reader]
}

// Load reads the file, and can be called again when it has changed: requests see the old
// file or the new one. After an error the old one stays.
func (c *Countries) Load(file string) error {
	b, err := os.ReadFile(file) // Open would map the file, which must not change in place then
	if err != nil {
		return err
	}
	db, err := maxminddb.OpenBytes(b)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	c.db.Store(db)
	return nil
}

// Of returns the code of ISO 3166-1 of the client's country ("DE"), or "" if it is not known.
func (c *Countries) Of(x *l7.Exchange) string {
	db := c.db.Load()
	if db == nil || !x.Client.IsValid() {
		return ""
	}
	var code string
	if err := db.Lookup(x.Client).DecodePath(&code, "country", "iso_code"); err != nil {
		return ""
	}
	return code
}

// In matches clients from these countries. A client whose country is not known is from none
// of them: decide by Allow or Deny of an [l7.Access] what this means. Behind another proxy an
// [l7.TrustForwarded] says first who the client is.
func (c *Countries) In(codes ...string) l7.Matcher {
	return l7.MatchFunc(func(x *l7.Exchange) bool { return slices.Contains(codes, c.Of(x)) })
}
