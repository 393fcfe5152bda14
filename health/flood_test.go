// SPDX-License-Identifier: Apache-2.0

package health_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/health"
	"github.com/penstock-lb/penstock/health/healthtest"
)

// A flood is an answer that a probe likes, and that does not end.
type flood struct {
	first, again string
	probe        func(health.Connect) health.Probe
}

// floods has one for each probe.
func floods() map[string]flood {
	return map[string]flood{
		"Redis":      {"", "+", func(d health.Connect) health.Probe { return health.Redis{Connect: d} }},
		"PostgreSQL": {"", "N\x00\x00\x00\x04", func(d health.Connect) health.Probe { return health.PostgreSQL{Connect: d} }},
		"MySQL":      {"", "\x14\x00\x00\x00\x0a8\x001234123456780\xff\xf7!", func(d health.Connect) health.Probe { return health.MySQL{Connect: d, User: "u"} }},
		"SMTP":       {"", "220-more\r\n", func(d health.Connect) health.Probe { return health.SMTP{Connect: d} }},
		"LDAP":       {"0\x82\x3f\x00", "a", func(d health.Connect) health.Probe { return health.LDAP{Connect: d} }},
		"agent":      {"", "up ", func(d health.Connect) health.Probe { return health.Agent{Connect: d} }},
		"HTTP": {"HTTP/1.1 200 OK\r\n", "A: b\r\n", func(d health.Connect) health.Probe {
			return health.HTTP{Connect: d}
		}},
		"HTTP body": {"", "HTTP/1.1 200 OK\r\n\r\n", func(d health.Connect) health.Probe {
			return health.HTTP{Connect: d, Content: health.Match{Contains: "nope"}}
		}},
		"HTTP/2": {settings, settings, func(d health.Connect) health.Probe { return health.HTTP{Connect: d, HTTP2: true} }},
		"gRPC":   {settings, "\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678", func(d health.Connect) health.Probe { return health.GRPC{Connect: d} }},
		"script": {"", "a", func(d health.Connect) health.Probe {
			return health.Script{Connect: d, Steps: []health.Step{{Expect: health.Match{Contains: "b"}}}}
		}},
		"TLS": {"\x16\x03\x03\x40\x00", strings.Repeat("\x02", 1<<14), func(d health.Connect) health.Probe { return health.TLS{Connect: d} }},
	}
}

// TestEndlessAnswers gives each probe a gigabyte of what it likes best.
func TestEndlessAnswers(t *testing.T) {
	for name, tt := range floods() {
		t.Run(name, func(t *testing.T) {
			c := &canned{data: tt.first + strings.Repeat(tt.again, 1<<20/len(tt.again)), endless: true}
			err := feed(t, c, tt.probe)
			require.Error(t, err)
			t.Log(err)
		})
	}
	c := &canned{data: "0\x83\x00\x40\x01"}
	require.EqualError(t, feed(t, c, func(d health.Connect) health.Probe { return health.LDAP{Connect: d} }),
		"bind: answer longer than 16384 bytes", "who announces too much is not read any further")
}

// TestSlowAnswers gives each probe a byte of it each tenth of a second: no deadline of
// a single read would ever pass.
func TestSlowAnswers(t *testing.T) {
	for name, tt := range floods() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, n := fake(t, serviceFunc(func(c net.Conn, _ healthtest.Mode) {
					_, err := c.Write([]byte(tt.first))
					for i := 0; err == nil; i++ {
						_, err = c.Write([]byte{tt.again[i%len(tt.again)]})
						time.Sleep(100 * time.Millisecond)
					}
				}))
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				defer cancel()
				begin := time.Now()
				err := tt.probe(health.Connect{Dial: n.DialContext}).Probe(ctx, balance.Endpoint{Addr: addr})
				require.Equal(t, health.CodeTimeout, health.CodeOf(err), "%v", err)
				require.ErrorContains(t, err, "no answer within 2s")
				require.Equal(t, 2*time.Second, time.Since(begin))
				time.Sleep(time.Second) // the server notices with its next write
				synctest.Wait()
				require.Zero(t, s.Open())
			})
		})
	}
}
