// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package l7

import "net"

// quiet would look at an idle connection; on this system it cannot.
type quiet struct{ plain bool }

func newQuiet(net.Conn) *quiet { return new(quiet) }

func (*quiet) is() bool { return true }

func (*quiet) bare() bool { return false }
