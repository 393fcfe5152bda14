// SPDX-License-Identifier: Apache-2.0

package balance

import "errors"

var (
	// ErrNoServer means that no server is usable for the request, now or by waiting.
	ErrNoServer = errors.New("balance: no usable server")
	// ErrQueueFull means that all servers are at their limit and so is the queue.
	ErrQueueFull = errors.New("balance: queue full")
	// ErrQueueTimeout means that no server had a free slot within [Queue.Timeout].
	ErrQueueTimeout = errors.New("balance: Queue.Timeout is over")
)
