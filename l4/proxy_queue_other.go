// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package l4

func (s *session) watchEvents(func()) (stop func()) { return nil }
