// SPDX-License-Identifier: Apache-2.0

//go:build linux && !race && !penstock_noring && (amd64 || arm64)

package l4

import (
	"runtime"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// What is used of io_uring(7), of Linux 5.18 at least.
const (
	sysRingSetup = 425
	sysRingEnter = 426

	ringSubmitAll = 1 << 7 // of 5.18: an entry that fails does not hold up those behind it
	ringEntries   = 0x10000000
	ringGetEvents = 1 << 0

	ringSend = 26
	ringRecv = 27
)

// ringParams is struct io_uring_params.
type ringParams struct {
	entries, completions, flags, cpu, idle, features, wq uint32
	_                                                    [3]uint32
	sq                                                   struct {
		head, tail, mask, size, flags, dropped, array, _ uint32
		_                                                uint64
	}
	cq struct {
		head, tail, mask, size, overflow, entries, flags, _ uint32
		_                                                   uint64
	}
}

// ringEntry is struct io_uring_sqe.
type ringEntry struct {
	op, flags uint8
	priority  uint16
	fd        int32
	off       uint64
	addr      uint64
	len       uint32
	msgFlags  uint32
	data      uint64
	_         [3]uint64
}

// ringCompletion is struct io_uring_cqe.
type ringCompletion struct {
	data  uint64
	res   int32
	flags uint32
}

// A ring makes calls together, in one system call, by io_uring(7). It has no other use of
// that: nothing is left to the kernel, no call waits, and all have been made when do returns.
type ring struct {
	fd             uintptr
	shared, sqes   []byte // mapped
	sqHead, sqTail *uint32
	sqMask         uint32
	entries        []ringEntry
	cqHead, cqTail *uint32
	cqMask         uint32
	completions    []ringCompletion
}

// noRings is set once the kernel has not made one: it is older, or forbids it.
var noRings atomic.Bool

// openRing returns nil if there is none.
func openRing() *ring {
	if noRings.Load() {
		return nil
	}
	p := ringParams{flags: ringSubmitAll}
	fd, _, errno := syscall.RawSyscall(sysRingSetup, maxCalls, uintptr(unsafe.Pointer(&p)), 0)
	switch errno {
	case 0:
	case syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM:
		return nil
	default:
		noRings.Store(true)
		return nil
	}
	r := &ring{fd: fd}
	if !r.mmap(&p) {
		r.close()
		return nil
	}
	return r
}

func (r *ring) mmap(p *ringParams) bool {
	const access, how = syscall.PROT_READ | syscall.PROT_WRITE, syscall.MAP_SHARED | syscall.MAP_POPULATE
	var err error
	size := max(p.sq.array+p.entries*4, p.cq.entries+p.completions*uint32(unsafe.Sizeof(ringCompletion{})))
	if r.shared, err = syscall.Mmap(int(r.fd), 0, int(size), access, how); err != nil {
		return false
	}
	size = p.entries * uint32(unsafe.Sizeof(ringEntry{}))
	if r.sqes, err = syscall.Mmap(int(r.fd), ringEntries, int(size), access, how); err != nil {
		return false
	}
	at := func(offset uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.shared[offset])) }
	r.sqHead, r.sqTail, r.sqMask = at(p.sq.head), at(p.sq.tail), *at(p.sq.mask)
	r.entries = unsafe.Slice((*ringEntry)(unsafe.Pointer(&r.sqes[0])), p.entries)
	r.cqHead, r.cqTail, r.cqMask = at(p.cq.head), at(p.cq.tail), *at(p.cq.mask)
	r.completions = unsafe.Slice((*ringCompletion)(unsafe.Pointer(&r.shared[p.cq.entries])), p.completions)
	for i := range p.entries { // each slot of the queue has the entry of its number
		*at(p.sq.array + 4*i) = i
	}
	return true
}

func (r *ring) close() {
	syscall.Munmap(r.shared)
	syscall.Munmap(r.sqes)
	syscall.Close(int(r.fd))
}

// do makes calls, at most maxCalls.
func (r *ring) do(calls []call) {
	tail := *r.sqTail
	for i := range calls {
		c := &calls[i]
		e := &r.entries[(tail+uint32(i))&r.sqMask]
		*e = ringEntry{
			op: ringRecv, fd: int32(c.fd), data: uint64(i),
			addr: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(c.p)))), len: uint32(len(c.p)),
			msgFlags: syscall.MSG_DONTWAIT | syscall.MSG_NOSIGNAL, // DONTWAIT: completed at once in any case
		}
		if c.writes {
			e.op = ringSend
		}
	}
	end := tail + uint32(len(calls))
	atomic.StoreUint32(r.sqTail, end)
	errno := r.enter(len(calls))
	for errno == syscall.EINTR && atomic.LoadUint32(r.sqHead) == tail {
		errno = r.enter(len(calls))
	}
	if head := atomic.LoadUint32(r.sqHead); head != end { // it has failed, for want of memory perhaps
		atomic.StoreUint32(r.sqTail, head)
		for i := head - tail; i < uint32(len(calls)); i++ {
			calls[i].do()
		}
		end = head
	}
	for left := int(end - tail); ; {
		left -= r.complete(calls)
		if left == 0 {
			return
		}
		runtime.Gosched()
		r.enter(0)
	}
}

func (r *ring) enter(submit int) syscall.Errno {
	_, _, errno := syscall.RawSyscall6(sysRingEnter, r.fd, uintptr(submit), 0, ringGetEvents, 0, 0)
	return errno
}

// complete takes the results that are there.
func (r *ring) complete(calls []call) (n int) {
	head := *r.cqHead
	for ; head != atomic.LoadUint32(r.cqTail); head++ {
		e := &r.completions[head&r.cqMask]
		c := &calls[e.data]
		if c.n, c.errno = int(e.res), 0; e.res < 0 {
			c.n, c.errno = 0, syscall.Errno(-e.res)
		}
		n++
	}
	atomic.StoreUint32(r.cqHead, head)
	return n
}
