// SPDX-License-Identifier: Apache-2.0

package l7

import "net/http"

// A BodyError is the error of a [BodyFilter], or of a body given to [Exchange.SetBody],
// that refuses what the client has sent. The client is answered with Status if the reply
// has not begun, the server gets an incomplete request, and the exchange ends with the
// cause l4.Denied. An [*http.MaxBytesError] is one with status 413.
type BodyError struct {
	Status int // 400 to 499; anything else means 400
	Err    error
}

func (e *BodyError) Error() string { return e.Err.Error() }

func (e *BodyError) Unwrap() error { return e.Err }

// status returns Status, or what stands for it.
func (e *BodyError) status() int {
	if e.Status < 400 || e.Status > 499 {
		return http.StatusBadRequest
	}
	return e.Status
}
