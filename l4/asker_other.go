// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package l4

type asker struct{}

func (*asker) ask() {}

func (*asker) close() {}
