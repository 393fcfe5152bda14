// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"time"
)

// A process is one that is killed and started again.
type process struct {
	name, addr, log string
	args            []string
	cmd             *exec.Cmd
}

func (p *process) runs() bool { return p.cmd != nil }

// start starts it and waits until it listens.
func (p *process) start() error {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(p.args[0], p.args[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	p.cmd = cmd
	for range 1000 {
		if c, err := net.Dial("tcp", p.addr); err == nil {
			return c.Close()
		}
		time.Sleep(20 * time.Millisecond)
	}
	text, _ := os.ReadFile(p.log)
	return fmt.Errorf("%s does not listen: %s", p.name, text)
}

// kill ends it as a crash does.
func (p *process) kill() {
	if p.cmd != nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		p.cmd = nil
	}
}

// freePorts returns n addresses of loopback that are free.
func freePorts(n int) (addrs []string, err error) {
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer ln.Close()
		addrs = append(addrs, ln.Addr().String())
	}
	return addrs, nil
}
