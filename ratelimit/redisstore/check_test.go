// SPDX-License-Identifier: Apache-2.0

package redisstore_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/ratelimit"
	"github.com/penstock-lb/penstock/ratelimit/redisstore"
)

// TestStoreWithoutAClient is named where it is held, and at its first use.
func TestStoreWithoutAClient(t *testing.T) {
	law := ratelimit.GCRA{Rate: ratelimit.PerSecond(1)}
	err := (&ratelimit.Shared[string]{Law: law, Store: &redisstore.Store{}}).Check()
	var wrong *penstock.ConfigError
	require.ErrorAs(t, err, &wrong)
	require.Equal(t, "Shared.Store.Client", wrong.Field)
	_, err = (&redisstore.Store{}).Take(t.Context(), "a", law, 1)
	require.ErrorAs(t, err, &wrong)
	require.ErrorAs(t, (&redisstore.Store{}).Refund(t.Context(), "a", law, ratelimit.Decision{}), &wrong)
}
