// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"bytes"
	"sync/atomic"
)

const (
	udpKeep    = 16 << 10 // bytes kept of one flow
	udpKeepAll = 16 << 20 // and of all flows of a UDPProxy, which forged addresses can make many
	udpCost    = 64       // what a datagram takes besides its bytes
)

// udpKept is the datagrams of a flow that a server may still refuse.
type udpKept struct {
	kept [][]byte
	size int
}

// keep copies b if there is room; all is what all flows keep.
func (k *udpKept) keep(b []byte, all *atomic.Int64) bool {
	n := len(b) + udpCost
	if k.size+n > udpKeep && len(k.kept) > 0 { // of any size, if it is the first
		return false
	}
	if all.Add(int64(n)) > udpKeepAll {
		all.Add(int64(-n))
		return false
	}
	k.kept = append(k.kept, bytes.Clone(b))
	k.size += n
	return true
}

func (k *udpKept) forget(all *atomic.Int64) {
	all.Add(int64(-k.size))
	k.kept, k.size = nil, 0
}
