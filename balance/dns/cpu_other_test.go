// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package dns

import "time"

// cpuTime is the clock on the wall: there is no portable clock of work.
func cpuTime() time.Duration { return time.Duration(time.Now().UnixNano()) }
