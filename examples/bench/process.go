// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// A Process is a program that has been started.
type Process struct {
	Peer  *Installed // nil for the origin
	Setup *Setup

	cmd   *exec.Cmd
	log   string // the file of its output
	ended chan struct{}
}

// start writes the configuration of p into a folder of its own and starts it.
func (in *Installed) start(ctx context.Context, s Setup, dir string, cpus []int) (*Process, error) {
	var err error
	if s.Dir, err = newDir(dir, in.Name); err != nil {
		return nil, err
	}
	if s.HTTP, s.TLS, s.TCP, err = freeAddrs(); err != nil {
		return nil, err
	}
	s.Stream = in.Stream
	if !in.TCP || s.Routes > 0 {
		s.TCP = ""
	}
	for _, file := range in.Files {
		text, err := s.Render(file)
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(s.Dir, file), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	args, err := s.Args(in.Args)
	if err != nil {
		return nil, err
	}
	path := in.Path
	if s.Routes > 0 && in.routes != "" {
		path = in.routes
	}
	p := &Process{Peer: in, Setup: &s}
	if err := p.run(exec.Command(path, args...), cpus); err != nil {
		return nil, err
	}
	return p, p.wait(ctx, s.HTTP)
}

// startOrigin starts the program that answers at all servers of s: nginx, if it is
// installed, else this one. With everywhere it listens on all addresses, at the port of s.
func startOrigin(ctx context.Context, s Setup, dir, nginx, self string, everywhere bool, cpus []int) (*Process, error) {
	var err error
	if s.Dir, err = newDir(dir, "origin"); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(s.Dir, "64k"), make([]byte, 64<<10), 0o644); err != nil {
		return nil, err
	}
	s.HTTP = ""
	if everywhere {
		s.HTTP = "0.0.0.0:" + s.Port(s.Servers[0])
	}
	text, err := s.Render("origin.conf")
	if err != nil {
		return nil, err
	}
	file := filepath.Join(s.Dir, "origin.conf")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return nil, err
	}
	cmd := exec.Command(nginx, "-p", s.Dir, "-e", filepath.Join(s.Dir, "error.log"), "-c", file)
	if nginx == "" {
		cmd = exec.Command(self, "origin")
		if cmd.Args = append(cmd.Args, s.Servers...); everywhere {
			cmd.Args = []string{self, "origin", s.HTTP}
		}
	}
	p := &Process{Setup: &s}
	if err := p.run(cmd, cpus); err != nil {
		return nil, err
	}
	return p, p.wait(ctx, s.Servers[0])
}

// newDir makes a folder that programs which give up their rights can read too.
func newDir(in, name string) (dir string, err error) {
	if dir, err = os.MkdirTemp(in, name+"-"); err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
}

func (p *Process) run(cmd *exec.Cmd, cpus []int) error {
	p.cmd, p.log, p.ended = cmd, filepath.Join(p.Setup.Dir, "output.log"), make(chan struct{})
	log, err := os.Create(p.log)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "HOME="+p.Setup.Dir, "XDG_DATA_HOME="+p.Setup.Dir, "XDG_CONFIG_HOME="+p.Setup.Dir)
	if err := startOn(cmd, cpus); err != nil {
		return err
	}
	go func() {
		_ = cmd.Wait()
		close(p.ended)
	}()
	return nil
}

// wait waits until something listens on addr, a minute at most.
func (p *Process) wait(ctx context.Context, addr string) error {
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	for {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err == nil {
			return c.Close()
		}
		select {
		case <-time.After(20 * time.Millisecond):
			continue
		case <-p.ended:
			err = fmt.Errorf("it ended with %v", p.cmd.ProcessState)
		case <-ctx.Done():
		}
		p.stop()
		text, _ := os.ReadFile(p.log)
		more, _ := os.ReadFile(filepath.Join(p.Setup.Dir, "error.log"))
		return fmt.Errorf("%s does not listen on %s: %w: %s", filepath.Base(p.cmd.Path), addr, err, firstLine(append(text, more...)))
	}
}

// stop ends the process.
func (p *Process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(5 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}

func (p *Process) pid() int { return p.cmd.Process.Pid }

// addr returns the address of a front, empty if there is no such.
func (p *Process) addr(f Front) string {
	return map[Front]string{HTTP: p.Setup.HTTP, TLS: p.Setup.TLS, TCP: p.Setup.TCP}[f]
}

// freeAddrs returns addresses on which nothing listens, all different.
func freeAddrs() (a, b, c string, err error) {
	var addr [3]string
	for i := range addr {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", "", "", err
		}
		defer ln.Close()
		addr[i] = ln.Addr().String()
	}
	return addr[0], addr[1], addr[2], nil
}

// serverAddrs returns n addresses of servers on this host: Linux answers for all of
// 127.0.0.0/8. They share a port.
func serverAddrs(n, port int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("127.0.%d.%d:%d", i/250, i%250+1, port)
	}
	return all
}

// writeCert makes a certificate for localhost in folder dir.
func writeCert(dir string) (cert, key, both string, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", "", err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"},
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(30 * 24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, IsCA: true,
	}
	public, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return "", "", "", err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return "", "", "", err
	}
	c := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: public})
	k := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
	cert, key, both = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "both.pem")
	for file, text := range map[string][]byte{cert: c, key: k, both: append(c, k...)} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			return "", "", "", err
		}
	}
	return cert, key, both, nil
}
