// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package l4

import "errors"

func transferRaw(_, _ *Conn, _ int64, _ func(*Conn)) (int64, error) { return 0, errors.ErrUnsupported }
