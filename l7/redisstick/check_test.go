// SPDX-License-Identifier: Apache-2.0

package redisstick_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/redisstick"
)

func TestTableWithoutAClient(t *testing.T) {
	err := (&l7.Stick{Key: l7.ByPath, Table: &redisstick.Table{Local: &l7.StickTable{Max: -1}}, Next: l7.Drop{}}).Check()
	require.ErrorContains(t, err, "Stick.Table.Client: <nil> must be a client of Redis")
	require.ErrorContains(t, err, "Stick.Table.Local.StickTable.Max: -1 must not be negative")
}
