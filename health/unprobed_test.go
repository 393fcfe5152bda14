// SPDX-License-Identifier: Apache-2.0

package health_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/health"
)

// syscallError is what a dial returns when a system call fails.
func syscallError(call string, errno syscall.Errno) error {
	return &net.OpError{Op: "dial", Net: "unix", Err: os.NewSyscallError(call, errno)}
}

// A safeBuffer is a log that a test may read.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

// take returns what was logged since the last call.
func (s *safeBuffer) take() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := s.b.String()
	s.b.Reset()
	return text
}

// TestWhatThisMachineLacksIsToldOnce has a machine without descriptors for a minute.
func TestWhatThisMachineLacksIsToldOnce(t *testing.T) {
	for _, agents := range []bool{false, true} {
		t.Run(fmt.Sprint("agents ", agents), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log safeBuffer
				logger := slog.New(slog.NewTextHandler(&log, nil))
				p := pool(t, "a", "b", "c")
				var mu sync.Mutex
				errno := syscall.EMFILE
				dial := func(context.Context, string, string) (net.Conn, error) {
					mu.Lock()
					defer mu.Unlock()
					if errno != 0 {
						return nil, syscallError("socket", errno)
					}
					near, far := net.Pipe()
					go func() { _, _ = io.Copy(far, strings.NewReader("up\n")); far.Close() }()
					return near, nil
				}
				d := health.Connect{Dial: dial}
				if agents {
					a := &health.AgentChecker{Pools: []*balance.Pool{p}, Agent: health.Agent{Connect: d}, Logger: logger, Spread: -1}
					ctx, cancel := context.WithCancel(t.Context())
					done := make(chan error, 1)
					go func() { done <- a.Run(ctx) }()
					defer func() { cancel(); require.ErrorIs(t, <-done, context.Canceled) }()
				} else {
					run(t, &health.Checker{Pools: []*balance.Pool{p}, Probe: health.TCP{Connect: d}, Logger: logger, Spread: -1})
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				said := log.take()
				require.Equal(t, 1, strings.Count(said, "\n"), "%s", said)
				require.Contains(t, said, "cannot check health")
				require.Contains(t, said, "too many open files")
				require.Equal(t, 3, p.Usable())
				if !agents {
					require.Equal(t, "a: used: check says unknown: could not check: connect: too many open files", p.Explain()[0].String())
				}

				mu.Lock()
				errno = syscall.EADDRNOTAVAIL
				mu.Unlock()
				time.Sleep(time.Minute)
				synctest.Wait()
				said = log.take()
				require.Equal(t, 1, strings.Count(said, "\n"), "another reason: %s", said)
				require.Contains(t, said, "cannot assign requested address")

				mu.Lock()
				errno = 0
				mu.Unlock()
				time.Sleep(time.Minute)
				synctest.Wait()
				said = log.take()
				require.Equal(t, 1, strings.Count(said, "can check health again"), "%s", said)
				require.Equal(t, "a: used", p.Explain()[0].String())
			})
		})
	}
}

// TestServerThatLeavesUnprobedIsForgotten has the only server that could not be probed
// leave; the next one with the same trouble is news.
func TestServerThatLeavesUnprobedIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log safeBuffer
		p := pool(t, "a")
		run(t, &health.Checker{Pools: []*balance.Pool{p}, Logger: slog.New(slog.NewTextHandler(&log, nil)), Probe: health.Func(func(context.Context, balance.Endpoint) error {
			return syscallError("socket", syscall.ENFILE)
		})})
		for _, name := range []string{"a", "b"} {
			join(t, p, name)
			time.Sleep(time.Minute)
			synctest.Wait()
			require.Equal(t, 1, strings.Count(log.take(), "cannot check health"), name)
		}
	})
}

// TestPermissionDeniedIsTheServersFault has sockets that let nobody in. (HAProxy: the
// server goes DOWN, "Permission denied".)
func TestPermissionDeniedIsTheServersFault(t *testing.T) {
	for _, tt := range []struct {
		call  string
		errno syscall.Errno
		want  string
	}{
		{"connect", syscall.EACCES, "unreachable / connect: permission denied"},
		{"connect", syscall.EPERM, "unreachable / connect: operation not permitted"},
		{"socket", syscall.EACCES, "internal error / connect: permission denied"},
		{"connect", syscall.EADDRNOTAVAIL, "internal error / connect: cannot assign requested address"},
		{"socket", syscall.EMFILE, "internal error / connect: too many open files"},
	} {
		d := health.Connect{Dial: func(context.Context, string, string) (net.Conn, error) { return nil, syscallError(tt.call, tt.errno) }}
		require.Equal(t, tt.want, verdict(health.TCP{Connect: d}.Probe(t.Context(), balance.Endpoint{Addr: "unix:/x"})))
	}
}

func TestAsErrorSortsWhatAHostsOwnProbeReturns(t *testing.T) {
	ended, cancel := context.WithTimeout(t.Context(), -1)
	defer cancel()
	for _, tt := range []struct {
		err  error
		want health.Code
	}{
		{ended.Err(), health.CodeTimeout},
		{os.ErrDeadlineExceeded, health.CodeTimeout},
		{syscallError("connect", syscall.ETIMEDOUT), health.CodeTimeout},
		{syscallError("connect", syscall.ECONNREFUSED), health.CodeRefused},
		{syscallError("connect", syscall.EHOSTUNREACH), health.CodeUnreachable},
		{syscallError("connect", syscall.EACCES), health.CodeUnreachable},
		{syscallError("socket", syscall.EMFILE), health.CodeInternal},
		{syscallError("connect", syscall.EADDRNOTAVAIL), health.CodeInternal},
		{&net.DNSError{Err: "no such host", Name: "a.example"}, health.CodeUnreachable},
		{&net.DNSError{Err: "dial udp 10.0.0.1:53: socket: too many open files", Name: "a.example"}, health.CodeInternal},
		{&net.DNSError{Err: "i/o timeout", Name: "a.example", IsTimeout: true}, health.CodeTimeout},
		{io.ErrUnexpectedEOF, health.CodeClosed},
		{syscallError("read", syscall.ECONNRESET), health.CodeClosed},
		{&tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}, health.CodeTLS},
		{tls.AlertError(40), health.CodeTLS},
		{errors.New("too many rows"), health.CodeStatus},
		{&health.Error{Code: health.CodeAuth}, health.CodeAuth},
	} {
		wrapped := fmt.Errorf("orders: %w", tt.err)
		require.Equal(t, tt.want, health.CodeOf(wrapped), "%v", tt.err)
		require.ErrorIs(t, health.AsError(wrapped), tt.err)
	}
}

// TestLookupWithoutDescriptors has no descriptor left to ask for the name of a server with: that
// says nothing of the server.
func TestLookupWithoutDescriptors(t *testing.T) {
	without := net.Dialer{Resolver: &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, syscallError("socket", syscall.EMFILE)
	}}}
	p := health.TCP{Connect: health.Connect{Dial: without.DialContext}}
	require.Equal(t, "internal error / connect: name a.example.com: dial unix: socket: too many open files",
		verdict(p.Probe(t.Context(), balance.Endpoint{Addr: "a.example.com:80"})))
}

// TestRunRefusesAPortOfAUnixSocket has a probe that could never connect.
func TestRunRefusesAPortOfAUnixSocket(t *testing.T) {
	p := &balance.Pool{}
	unix := balance.Endpoint{Name: "local", Addr: "unix:/run/app.sock"}
	require.NoError(t, p.Set(balance.Endpoint{Addr: "a:1"}, unix))
	d := health.Connect{Port: 8080}
	for want, probe := range map[string]health.Probe{
		"Checker.Probe.HTTP.Connect.Port":              health.HTTP{Connect: d},
		"Checker.Probe.All[1].Redis.Connect.Port":      health.All{health.TCP{}, health.Redis{Connect: d}},
		"Checker.Probe.Any[0].All[0].TCP.Connect.Port": health.Any{health.All{&health.TCP{Connect: d}}},
	} {
		var bad *penstock.ConfigError
		require.ErrorAs(t, (&health.Checker{Pools: []*balance.Pool{p}, Probe: probe}).Run(t.Context()), &bad)
		require.Equal(t, want, bad.Field)
		require.Contains(t, bad.Reason, `"local"`)
	}
	var bad *penstock.ConfigError
	require.ErrorAs(t, (&health.AgentChecker{Pools: []*balance.Pool{p}, Agent: health.Agent{Connect: d}}).Run(t.Context()), &bad)
	require.Equal(t, "AgentChecker.Agent.Connect.Port", bad.Field)

	d.Addr = "127.0.0.1:1" // then the address of the server is not asked
	require.NoError(t, (&health.Checker{Pools: []*balance.Pool{p}, Probe: health.TCP{Connect: d}}).Check())
}
