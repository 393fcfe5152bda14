// SPDX-License-Identifier: Apache-2.0

package l7

import "net/http"

// An InterimEditor is a [ReplyEditor] that also changes the heads of interim
// replies (1xx other than 101), such as 103 (Early Hints), before they are sent
// to the client. There may be several interim replies before the final one, or
// none, and their Status cannot be changed. EditInterim may be called by another
// goroutine, while that of the exchange waits; it must not block.
//
// [EditHeader] is one: it removes fields from interim replies as well.
type InterimEditor interface {
	EditInterim(x *Exchange, r *Reply)
}

// editsInterim reports whether there is an editor of interim replies.
func (x *Exchange) editsInterim() bool {
	for _, e := range x.editors {
		if _, ok := e.(InterimEditor); ok {
			return true
		}
	}
	return false
}

// editInterim runs the editors of interim replies, last registered first. It
// returns an error if the result cannot be sent.
func (x *Exchange) editInterim(r *Reply) error {
	status := r.Status
	for i := len(x.editors) - 1; i >= 0; i-- {
		if e, ok := x.editors[i].(InterimEditor); ok {
			e.EditInterim(x, r)
		}
	}
	r.Status, r.refused = status, nil
	if bad := r.Header.unsendable(); bad != nil {
		return bad
	}
	return nil
}

// writeInterim sends an interim reply to the client.
func (x *Exchange) writeInterim(r *Reply) error {
	if err := x.editInterim(r); err != nil {
		return err
	}
	return x.down.writeInterim(r)
}

// isInterim reports whether a reply of that status comes before the final one.
func isInterim(status int) bool {
	return status >= 100 && status < 200 && status != http.StatusSwitchingProtocols
}
