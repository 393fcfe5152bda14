// SPDX-License-Identifier: Apache-2.0

package l4

import "errors"

// ErrRejected is matched, with [errors.Is], by the error of every handler that
// turned a connection away because the host said so.
var ErrRejected = errors.New("l4: rejected")
