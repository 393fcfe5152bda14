// SPDX-License-Identifier: Apache-2.0

package balancetest_test

import (
	"testing"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/balance/balancetest"
)

// The test of an algorithm of one's own.
func ExampleTestPolicy() {
	_ = func(t *testing.T) {
		balancetest.TestPolicy(t, balance.PolicyFunc(newMine), balancetest.Law{Share: 0.1})
	}
	// Output:
}

func newMine(v balance.View) balance.Picker { return balance.RoundRobin{}.Picker(v) }
