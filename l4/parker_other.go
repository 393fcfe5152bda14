// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package l4

import "errors"

// A Parker waits for events on connections on behalf of their owners. It exists
// on Linux only; see there.
//
// It is for package l7: see "Machinery" in the package documentation.
type Parker struct{}

type parked struct{}

// NewParker returns errors.ErrUnsupported.
//
// It is for package l7: see "Machinery" in the package documentation.
func NewParker() (*Parker, error) { return nil, errors.ErrUnsupported }

// Run returns errors.ErrUnsupported.
func (p *Parker) Run() error { return errors.ErrUnsupported }

// Close does nothing.
func (p *Parker) Close() error { return nil }

// Watch returns false.
func (p *Parker) Watch(c *Conn, gone func()) bool { return false }

// Unwatch does nothing.
func (p *Parker) Unwatch(c *Conn) {}

// Park returns false.
func (p *Parker) Park(c *Conn, ready func()) bool { return false }

// Unpark returns false.
func (p *Parker) Unpark(c *Conn) bool { return false }

func (c *Conn) unparkClosed() (ready func()) { return nil }
