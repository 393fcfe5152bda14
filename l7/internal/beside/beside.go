// SPDX-License-Identifier: Apache-2.0

// Package beside is for tests of work that must not hold up what is ready on a connection.
package beside

import (
	"net"
	"runtime"
	"sync/atomic"
	"testing"
)

// Done has n goroutines do work at once, on one processor, and returns how many have done
// it when data is read on an open connection, which comes as the first of them is done.
func Done(t testing.TB, n int32, work func()) int32 {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	peer, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	open, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	var done atomic.Int32
	served, waits := make(chan int32, 1), make(chan struct{})
	go func() {
		close(waits)
		open.Read(make([]byte, 1))
		served <- done.Load()
	}()
	<-waits
	for range n {
		go func() {
			work()
			if done.Add(1) == 1 {
				peer.Write([]byte("x"))
			}
		}()
	}
	before := <-served
	for done.Load() < n {
		runtime.Gosched()
	}
	return before
}
