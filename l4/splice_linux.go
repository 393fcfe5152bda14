// SPDX-License-Identifier: Apache-2.0

package l4

import "syscall"

// A pipe is what splice(2) moves data through between two sockets, so that it
// is never copied. A direction holds one only while there is data to move.
type pipe struct {
	r, w int
	n    int // bytes in it
}

const (
	pipeBytes     = 256 << 10 // asked for; the kernel may give less
	sparePipes    = 4         // kept by a Parker
	fSetPipeSize  = 1031      // F_SETPIPE_SZ
	spliceMove    = 1         // SPLICE_F_MOVE
	spliceNoBlock = 2         // SPLICE_F_NONBLOCK
)

// newPipe returns nil if there are no descriptors left.
func newPipe() *pipe {
	var fds [2]int
	if err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC|syscall.O_NONBLOCK); err != nil {
		return nil
	}
	syscall.Syscall(syscall.SYS_FCNTL, uintptr(fds[0]), fSetPipeSize, pipeBytes)
	return &pipe{r: fds[0], w: fds[1]}
}

func (p *pipe) close() {
	syscall.Close(p.r)
	syscall.Close(p.w)
}

// take moves up to pipeBytes from a socket into p.
func (p *pipe) take(fd uintptr) (int, syscall.Errno) {
	return sysSplice(fd, uintptr(p.w), pipeBytes)
}

// give moves what is in p to a socket.
func (p *pipe) give(fd uintptr) (int, syscall.Errno) {
	return sysSplice(uintptr(p.r), fd, p.n)
}
