// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"math"
	"os/exec"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4/l4test"
)

func ticketSecret(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }

// resumes makes one connection and reports whether its session was resumed. The
// client's sessions are kept in cache.
func resumes(t *testing.T, keys *TicketKeys, version uint16, cache tls.ClientSessionCache) bool {
	t.Helper()
	client, server := l4test.Pipe()
	config := &tls.Config{
		Certificates: []tls.Certificate{l4test.NewAuthority("authority").Issue("a.test")}, MaxVersion: version,
		WrapSession: keys.Wrap, UnwrapSession: keys.Unwrap,
	}
	go func() {
		s := tls.Server(server, config)
		if s.Handshake() == nil {
			s.Write([]byte("x"))
		}
		s.Close()
	}()
	c := tls.Client(client, &tls.Config{ServerName: "a.test", InsecureSkipVerify: true, ClientSessionCache: cache})
	defer c.Close()
	_, err := io.ReadAll(c) // a ticket of TLS 1.3 comes with the data
	require.NoError(t, err)
	return c.ConnectionState().DidResume
}

// Each step is another gateway, a literal of its own.
func TestTicketsOfOtherGateways(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cache := tls.NewLRUClientSessionCache(0)
				a, b := ticketSecret('a'), ticketSecret('b')
				at := func(keys *TicketKeys) bool { return resumes(t, keys, version, cache) }
				require.False(t, at(&TicketKeys{Keys: [][]byte{a}}))
				require.True(t, at(&TicketKeys{Keys: [][]byte{a}}), "same secret, another gateway")
				require.True(t, at(&TicketKeys{Keys: [][]byte{b, a}}), "the old secret still opens")
				require.True(t, at(&TicketKeys{Keys: [][]byte{b}}), "and the new one has sealed")
				require.False(t, at(&TicketKeys{Keys: [][]byte{a}}), "the new one is not known there")
				require.False(t, at(&TicketKeys{Keys: [][]byte{a}, Scope: "admin"}))
				require.True(t, at(&TicketKeys{Keys: [][]byte{a}, Scope: "admin"}))
				require.False(t, at(&TicketKeys{Keys: [][]byte{a}, Scope: "admin", Lifetime: time.Hour}))
				require.True(t, at(&TicketKeys{Keys: [][]byte{a}, Scope: "admin", Lifetime: time.Hour}))
			})
		})
	}
}

// A client that is not Go's takes its session from one gateway to the other.
func TestTicketsWithOpenSSL(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl here")
	}
	gateway := func() string {
		keys := &TicketKeys{Keys: [][]byte{ticketSecret('a')}}
		ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
			Certificates: []tls.Certificate{l4test.NewAuthority("authority").Issue("a.test")},
			WrapSession:  keys.Wrap, UnwrapSession: keys.Unwrap,
		})
		require.NoError(t, err)
		t.Cleanup(func() { ln.Close() })
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				io.WriteString(c, "hello\n")
				c.Close()
			}
		}()
		return ln.Addr().String()
	}
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		session := filepath.Join(t.TempDir(), "session")
		ask := func(addr string, args ...string) string {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			out, _ := exec.CommandContext(ctx, openssl, append([]string{"s_client", "-connect", addr, version, "-ign_eof"}, args...)...).CombinedOutput()
			return string(out)
		}
		require.Contains(t, ask(gateway(), "-sess_out", session), "New, TLSv1")
		require.Contains(t, ask(gateway(), "-sess_in", session), "Reused, TLSv1", version)
	}
}

func TestTicketsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := &TicketKeys{Keys: [][]byte{ticketSecret('a')}, Lifetime: time.Hour}
		session, err := tls.ParseSessionState(sessionBytes(t))
		require.NoError(t, err)
		ticket, err := keys.Wrap(tls.ConnectionState{}, session)
		require.NoError(t, err)
		made, expired := time.Now(), time.Duration(0)
		for ; expired == 0; time.Sleep(time.Minute) {
			require.Less(t, time.Since(made), 2*time.Hour)
			got, err := keys.Unwrap(ticket, tls.ConnectionState{})
			require.NoError(t, err)
			require.LessOrEqual(t, len(keys.opened), 6)
			if got == nil {
				expired = time.Since(made)
			}
		}
		require.GreaterOrEqual(t, expired, time.Hour)
		require.LessOrEqual(t, expired, 75*time.Minute)

		// A gateway whose clock is a quarter behind opens what the others seal.
		ticket, err = keys.Wrap(tls.ConnectionState{}, session)
		require.NoError(t, err)
		behind := &TicketKeys{Keys: keys.Keys, Lifetime: time.Hour}
		aead, err := behind.key(0, behind.quarter(time.Now()), behind.quarter(time.Now().Add(-15*time.Minute)))
		require.NoError(t, err)
		_, err = aead.Open(nil, ticket[8:ticketHead], ticket[ticketHead:], ticket[:8])
		require.NoError(t, err)
	})
}

// sessionBytes is a session as a server has it.
func sessionBytes(t testing.TB) []byte {
	var plain []byte
	client, server := l4test.Pipe()
	go func() {
		s := tls.Server(server, &tls.Config{
			Certificates: []tls.Certificate{l4test.NewAuthority("authority").Issue("a.test")},
			WrapSession: func(_ tls.ConnectionState, s *tls.SessionState) (_ []byte, err error) {
				plain, err = s.Bytes()
				return nil, err
			},
		})
		s.Handshake()
		s.Close()
	}()
	c := tls.Client(client, &tls.Config{ServerName: "a.test", InsecureSkipVerify: true, ClientSessionCache: tls.NewLRUClientSessionCache(0)})
	defer c.Close()
	io.ReadAll(c)
	require.NotEmpty(t, plain)
	return plain
}

func TestTicketsAreChecked(t *testing.T) {
	for field, keys := range map[string]*TicketKeys{
		"TicketKeys.Keys: ":     {},
		"TicketKeys.Keys[1]: ":  {Keys: [][]byte{ticketSecret('a'), []byte("short")}},
		"TicketKeys.Keys[0]: ":  {Keys: [][]byte{make([]byte, 32), ticketSecret('a')}},
		"TicketKeys.Lifetime: ": {Keys: [][]byte{ticketSecret('a')}, Lifetime: time.Second},
	} {
		require.ErrorContains(t, keys.Check(), field)
		_, err := keys.Wrap(tls.ConnectionState{}, &tls.SessionState{})
		require.ErrorContains(t, err, field)
		_, err = keys.Unwrap(nil, tls.ConnectionState{})
		require.ErrorContains(t, err, field)
		require.NotContains(t, err.Error(), "short", "secrets are not told")
	}
	require.ErrorContains(t, (&TicketKeys{Lifetime: math.MaxInt64}).Check(), "TicketKeys.Lifetime")
}

// FuzzTicket opens what comes from clients.
func FuzzTicket(f *testing.F) {
	keys := &TicketKeys{Keys: [][]byte{ticketSecret('a'), ticketSecret('b')}}
	session, err := tls.ParseSessionState(sessionBytes(f))
	require.NoError(f, err)
	ticket, err := keys.Wrap(tls.ConnectionState{}, session)
	require.NoError(f, err)
	f.Add(ticket)
	f.Add(ticket[:ticketHead])
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := keys.Unwrap(data, tls.ConnectionState{})
		require.NoError(t, err)
		if got != nil { // then nothing near it is a ticket
			other := bytes.Clone(data)
			other[len(other)-1]++
			got, err = keys.Unwrap(other, tls.ConnectionState{})
			require.NoError(t, err)
			require.Nil(t, got)
		}
		require.LessOrEqual(t, len(keys.opened), 12)
	})
}
