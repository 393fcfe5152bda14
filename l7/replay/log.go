// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"encoding/json"
	"io"
	"time"

	"github.com/penstock-lb/penstock/l7"
)

// A Request is a line of the file, as JSON.
type Request struct {
	At     time.Time     `json:"at"` // when it began
	Method string        `json:"method"`
	Host   string        `json:"host"`
	Target string        `json:"target"` // path and query
	Status int           `json:"status"`
	Took   time.Duration `json:"took"` // in nanoseconds
}

// To returns an OnDone hook that writes a line for each request to w, in one Write. W
// must not block, and be safe for use by several goroutines at once, as an
// accesslog.File is. Its errors are its own affair. Left out is what cannot be asked again:
// a request whose head was malformed, or that names no host.
func To(w io.Writer) func(*l7.Record) {
	return func(r *l7.Record) {
		if r.Host == "" || r.Path == "" {
			return
		}
		line, err := json.Marshal(Request{r.Start, r.Method, r.Host, r.Path + r.Query, r.Status, r.Total})
		if err == nil {
			_, _ = w.Write(append(line, '\n'))
		}
	}
}
