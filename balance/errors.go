// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"errors"
	"fmt"
)

var (
	// ErrNoServer means that no server is usable for the request, now or by waiting.
	ErrNoServer = errors.New("balance: no usable server")
	// ErrQueueFull means that all servers are at their limit and so is the queue.
	ErrQueueFull = errors.New("balance: queue full")
	// ErrQueueTimeout means that no server had a free slot within [Queue.Timeout].
	ErrQueueTimeout = errors.New("balance: timeout in queue")
)

// A ConfigError names one setting that cannot be used.
type ConfigError struct {
	Field  string // as in Go, such as "Endpoints[2].MaxConns"
	Value  any
	Reason string
}

func (e *ConfigError) Error() string {
	return fmt.Sprintf("balance: %s: %#v %s", e.Field, e.Value, e.Reason)
}
