// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"time"
)

// A lateContext is the context of an exchange for code that rarely needs it and does
// not keep it. Most requests find an idle connection and never use theirs, which an
// HTTP/2 stream has to make.
type lateContext struct{ x *Exchange }

// Deadline, Done, Err and Value implement [context.Context].
func (c *lateContext) Deadline() (time.Time, bool) { return c.x.Context().Deadline() }
func (c *lateContext) Done() <-chan struct{}       { return c.x.Context().Done() }
func (c *lateContext) Err() error                  { return c.x.Context().Err() }
func (c *lateContext) Value(key any) any           { return c.x.Context().Value(key) }

// lasting returns ctx, or what it stands for if that is a lateContext: a context that
// may be kept.
func lasting(ctx context.Context) context.Context {
	if c, ok := ctx.(*lateContext); ok {
		return c.x.Context()
	}
	return ctx
}
