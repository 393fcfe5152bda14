// SPDX-License-Identifier: Apache-2.0

// Package cpu has no code, only a benchmark of what middleware of net/http around a Proxy
// costs. It is apart from samebytes since the tables of all that is tried there would
// double the heap of the proxy, and with it what the garbage of each request costs.
package cpu
