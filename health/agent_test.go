// SPDX-License-Identifier: Apache-2.0

package health_test

import (
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/health"
)

func TestAgentReplies(t *testing.T) {
	for _, tt := range []struct{ line, want, verdict string }{
		{"75%,maxconn:30,maint,down\n", "health=down admin=maint percent=75 limit=30", "bad status / agent: down"},
		{"up", "health=up", "ok"},
		{"UP\tready  100%\r\nignored\n", "health=up admin=ready percent=100", "ok"},
		{"drain", "admin=drain", "stopping / agent: drain"},
		{"maint # disk replaced", `admin=maint text="disk replaced"`, "bad status / agent: maint: disk replaced"},
		{"0%", "percent=0", "stopping / agent: no weight"},
		{"weight:0 up", "health=up weight=0", "stopping / agent: no weight"},
		{"stopped #nightly job\n", `health=stopped text="nightly job"`, "bad status / agent: stopped: nightly job"},
		{"failed", "health=failed", "bad status / agent: failed"},
		{"", "", "closed / agent: connection closed"},
		{"\n", "", `protocol error / agent: the line is empty`},
		{"# nothing\n", "", `protocol error / agent: the line is empty`},
		{"up maybe", "", `protocol error / agent: unexpected word "maybe"`},
		{"-5%", "", `protocol error / agent: unexpected word "-5%"`},
		{"99999%", "", `protocol error / agent: unexpected word "99999%"`},
		{"weight:", "", `protocol error / agent: unexpected word "weight:"`},
	} {
		t.Run(tt.line, func(t *testing.T) {
			addr := speaking(t, tt.line)
			r, err := health.Agent{}.Ask(t.Context(), balance.Endpoint{Addr: addr})
			if err == nil {
				require.Equal(t, tt.want, words(r))
			}
			require.Equal(t, tt.verdict, verdict(probe(t, health.Agent{}, addr)))
		})
	}
}

// words prints what r speaks of.
func words(r health.AgentReply) (s string) {
	add := func(name string, v any) {
		if s != "" {
			s += " "
		}
		s += fmt.Sprintf("%s=%v", name, v)
	}
	for _, f := range []struct{ name, v string }{{"health", r.Health}, {"admin", r.Admin}} {
		if f.v != "" {
			add(f.name, f.v)
		}
	}
	for _, f := range []struct {
		name string
		v    *int
	}{{"percent", r.Percent}, {"weight", r.Weight}, {"limit", r.Limit}} {
		if f.v != nil {
			add(f.name, *f.v)
		}
	}
	if r.Text != "" {
		add("text", fmt.Sprintf("%q", r.Text))
	}
	return s
}

// speaking returns the address of a server that speaks first, and at once.
func speaking(t testing.TB, line string) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, line)
			c.Close()
		}
	}()
	return ln.Addr().String()
}
