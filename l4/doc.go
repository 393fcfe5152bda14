// SPDX-License-Identifier: Apache-2.0

// Package l4 is the layer of bytes: connections that are accepted, looked at,
// balanced and relayed.
package l4
