// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"context"
	"errors"
	"math"
	"strconv"
	"time"
)

// Never is the Wait of what no waiting helps: a cost above the burst, a limit
// of nothing.
const Never time.Duration = math.MaxInt64

// ErrRefused is the error of the Wait methods when the answer is no.
// The Decision beside it says for how long.
var ErrRefused = errors.New("ratelimit: refused")

// A Decision is the answer to one Take. It is a plain value.
type Decision struct {
	OK     bool // go ahead, after Wait
	Over   bool // the limit is exceeded; with OK it is only counted (see Keyed.CountOnly)
	Banned bool // refused because of earlier refusals (see Ban)
	Local  bool // decided by this process alone, as the store is away (see Shared)

	// Wait, of a yes, is how long to wait before going ahead; 0 means not at all,
	// and only a law with a MaxWait says anything else. If refused, it is the time
	// after which the same Take would pass if there were no others; Never means
	// that it cannot pass, and 0 that the time is not known (InFlight).
	Wait time.Duration

	Limit     int           // what may be taken at once after a pause
	Remaining int           // what may be taken at once now
	Reset     time.Duration // until Remaining is Limit again if nothing is taken; Never while it depends on a release

	Cost int           // what was taken and Refund gives back; 0 if nothing was
	At   time.Duration // when, on the clock of what decided

	// Life tells the entry of a Keyed that took Cost from those that the same
	// key had before and after it was forgotten.
	Life uint32
}

// RetryAfter returns the value of a Retry-After field (RFC 9110, section
// 10.2.3): Wait in whole seconds, rounded up. It is 0, meaning no such field,
// if d is a yes or waiting does not help.
func (d Decision) RetryAfter() int {
	if d.OK || d.Wait == Never {
		return 0
	}
	return int(min(max(1, seconds(d.Wait)), math.MaxInt))
}

// AppendRateLimit appends the value of a RateLimit field to dst: what remains
// and, if time alone brings it back, the seconds until it does
// (draft-ietf-httpapi-ratelimit-headers-10, section 4). Name is that of the
// policy and must be printable ASCII without quotes and backslashes. Numbers
// are at most those that such a field can hold (RFC 9651, section 3.3.1).
func (d Decision) AppendRateLimit(dst []byte, name string) []byte {
	dst = append(dst, '"')
	dst = append(dst, name...)
	dst = append(dst, `";r=`...)
	dst = appendNumber(dst, int64(d.Remaining))
	if d.Reset != Never {
		dst = append(dst, ";t="...)
		dst = appendNumber(dst, seconds(d.Reset))
	}
	return dst
}

// AppendPolicy appends the value of a RateLimit-Policy field to dst: the
// limit of the policy of that name (draft-ietf-httpapi-ratelimit-headers-10,
// section 3). A window of 0 is left out.
func (d Decision) AppendPolicy(dst []byte, name string, window time.Duration) []byte {
	dst = append(dst, '"')
	dst = append(dst, name...)
	dst = append(dst, `";q=`...)
	dst = appendNumber(dst, int64(d.Limit))
	if window > 0 {
		dst = append(dst, ";w="...)
		dst = appendNumber(dst, seconds(window))
	}
	return dst
}

// appendNumber appends n within what a field can hold: no law has less than
// none left.
func appendNumber(dst []byte, n int64) []byte {
	const most = 999_999_999_999_999
	return strconv.AppendInt(dst, min(max(0, n), most), 10)
}

// seconds returns d in whole seconds, rounded up.
func seconds(d time.Duration) int64 {
	s := d / time.Second
	if d%time.Second > 0 {
		s++
	}
	return int64(s)
}

// sleep waits for d, or for less if ctx ends first, whose error it returns.
// A wait of nothing succeeds even if ctx is done.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
