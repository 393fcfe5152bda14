// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package health

import "context"

// A connecting is for Linux only: elsewhere package net does it.
type connecting struct{}

type idleSockets struct{}

func (*idleSockets) close() {}

func beginConnect(string, *idleSockets) (c connecting, done, ok bool, err error) { return }

func (*connecting) wait(context.Context) error { return nil }
