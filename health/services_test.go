// SPDX-License-Identifier: Apache-2.0

package health_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/health"
	"github.com/penstock-lb/penstock/health/healthtest"
	"github.com/penstock-lb/penstock/l4/l4test"
)

const addr = "10.0.0.1:1000"

// fake serves a service on a network in memory; it must be in a bubble.
func fake(t *testing.T, v healthtest.Service) (*healthtest.Server, *l4test.Network) {
	n := l4test.NewNetwork()
	ln, err := n.Listen("tcp", addr)
	require.NoError(t, err)
	s := &healthtest.Server{Service: v}
	done := make(chan error)
	go func() { done <- s.Serve(ln) }()
	t.Cleanup(func() {
		s.Close()
		<-done
	})
	return s, n
}

// TestServices puts each probe before each failure. Time is fake: a silent or
// slow server costs the whole timeout, and no more.
func TestServices(t *testing.T) {
	type answers map[healthtest.Mode]string
	for _, tt := range []struct {
		name    string
		service healthtest.Service
		probe   func(health.Connect) health.Probe
		want    answers
	}{
		{"Redis", healthtest.Redis{}, func(d health.Connect) health.Probe { return health.Redis{Connect: d} }, answers{
			healthtest.Healthy:  "ok",
			healthtest.Starting: "bad status / PING: LOADING Redis is loading the dataset in memory",
			healthtest.Denying:  "not authorized / PING: NOAUTH Authentication required.",
			healthtest.Silent:   "timeout / PING: no answer within 2s",
			healthtest.Closing:  "closed / PING: connection closed",
			healthtest.Garbage:  `protocol error / PING: unexpected answer "\x7fzzzz\x00\xff\xfe"`,
			healthtest.Endless:  "protocol error / PING: answer longer than 16384 bytes",
			healthtest.Slow:     "timeout / PING: no answer within 2s",
		}},
		{"Redis with password", healthtest.Redis{Password: "x"}, func(d health.Connect) health.Probe { return health.Redis{Connect: d, Password: "x", Role: "master"} }, answers{
			healthtest.Healthy: "ok",
			healthtest.Denying: "not authorized / AUTH: WRONGPASS invalid username-password pair or user is disabled.",
			healthtest.Silent:  "timeout / AUTH: no answer within 2s",
		}},
		{"Redis with a wrong password", healthtest.Redis{Password: "x"}, func(d health.Connect) health.Probe { return health.Redis{Connect: d, User: "u", Password: "y"} }, answers{
			healthtest.Healthy: "not authorized / AUTH: WRONGPASS invalid username-password pair or user is disabled.",
		}},
		{"Redis that should be a replica", healthtest.Redis{}, func(d health.Connect) health.Probe { return health.Redis{Connect: d, Role: "slave"} }, answers{
			healthtest.Healthy: "unexpected content / ROLE: the role is master, not slave",
		}},
		{"PostgreSQL", healthtest.PostgreSQL{}, func(d health.Connect) health.Probe { return health.PostgreSQL{Connect: d} }, answers{
			healthtest.Healthy:  "ok",
			healthtest.Starting: "bad status / startup: 57P03 the database system is starting up",
			healthtest.Denying:  "not authorized / startup: 28000 pg_hba.conf rejects connection",
			healthtest.Silent:   "timeout / startup: no answer within 2s",
			healthtest.Closing:  "closed / startup: connection closed",
			healthtest.Garbage:  `protocol error / startup: unexpected answer "\x7fzzzz"`,
			healthtest.Endless:  `protocol error / startup: unexpected answer "00000"`,
			healthtest.Slow:     "timeout / startup: no answer within 2s",
		}},
		{"PostgreSQL that trusts", healthtest.PostgreSQL{Trust: true}, func(d health.Connect) health.Probe { return health.PostgreSQL{Connect: d, User: "u", Database: "d"} }, answers{
			healthtest.Healthy: "ok",
		}},
		{"MySQL", healthtest.MySQL{}, func(d health.Connect) health.Probe { return health.MySQL{Connect: d} }, answers{
			healthtest.Healthy:  "ok",
			healthtest.Starting: "bad status / greeting: 1040 Too many connections",
			healthtest.Denying:  "ok",
			healthtest.Silent:   "timeout / greeting: no answer within 2s",
			healthtest.Closing:  "closed / greeting: connection closed",
			healthtest.Garbage:  `protocol error / greeting: unexpected answer "\x7fzzzz"`,
			healthtest.Endless:  `protocol error / greeting: unexpected answer "00000"`,
			healthtest.Slow:     "timeout / greeting: no answer within 2s",
		}},
		{"MySQL with login", healthtest.MySQL{}, func(d health.Connect) health.Probe { return health.MySQL{Connect: d, User: "check"} }, answers{
			healthtest.Healthy: "ok",
			healthtest.Denying: "not authorized / login: 1045 Access denied for user 'check'",
		}},
		{"SMTP", healthtest.SMTP{}, func(d health.Connect) health.Probe { return health.SMTP{Connect: d} }, answers{
			healthtest.Healthy:  "ok",
			healthtest.Starting: "bad status / greeting: 421 4.3.2 mail.example.com not ready",
			healthtest.Denying:  "bad status / greeting: 554 5.7.1 no service for you",
			healthtest.Silent:   "timeout / greeting: no answer within 2s",
			healthtest.Closing:  "closed / greeting: connection closed",
			healthtest.Garbage:  `protocol error / greeting: unexpected answer "\x7fzzzz\x00\xff\xfe"`,
			healthtest.Endless:  "protocol error / greeting: answer longer than 16384 bytes",
			healthtest.Slow:     "timeout / greeting: no answer within 2s",
		}},
		{"SMTP with HELO", healthtest.SMTP{}, func(d health.Connect) health.Probe { return health.SMTP{Connect: d, Hello: "HELO x"} }, answers{
			healthtest.Healthy: "ok",
		}},
		{"SMTP with nonsense", healthtest.SMTP{}, func(d health.Connect) health.Probe { return health.SMTP{Connect: d, Hello: "HALLO x"} }, answers{
			healthtest.Healthy: "bad status / HALLO: 502 not implemented",
		}},
		{"LDAP", healthtest.LDAP{}, func(d health.Connect) health.Probe { return health.LDAP{Connect: d} }, answers{
			healthtest.Healthy:  "ok",
			healthtest.Starting: "bad status / bind: result 51",
			healthtest.Denying:  "not authorized / bind: result 49",
			healthtest.Silent:   "timeout / bind: no answer within 2s",
			healthtest.Closing:  "closed / bind: connection closed",
			healthtest.Garbage:  `protocol error / bind: unexpected answer "\x7fz"`,
			healthtest.Endless:  `protocol error / bind: unexpected answer "000000000000000000000000000000000000000000000000"`, // 0 is a sequence,
			healthtest.Slow:     "timeout / bind: no answer within 2s",
		}},
		{"HTTP", healthtest.HTTP{}, func(d health.Connect) health.Probe { return health.HTTP{Connect: d} }, answers{
			healthtest.Healthy:  "ok",
			healthtest.Starting: "bad status / HTTP: status 503",
			healthtest.Denying:  "bad status / HTTP: status 401",
			healthtest.Silent:   "timeout / HTTP: no answer within 2s",
			healthtest.Closing:  "closed / HTTP: connection closed",
			healthtest.Endless:  "protocol error / HTTP: answer longer than 16384 bytes",
			healthtest.Slow:     "timeout / HTTP: no answer within 2s",
		}},
		{"HTTP/2", healthtest.HTTP{}, func(d health.Connect) health.Probe { return health.HTTP{Connect: d, HTTP2: true} }, answers{
			healthtest.Healthy:  "ok",
			healthtest.Starting: "bad status / HTTP/2: status 503",
			healthtest.Silent:   "timeout / HTTP/2: no answer within 2s",
			healthtest.Closing:  "closed / HTTP/2: connection closed",
			healthtest.Slow:     "timeout / HTTP/2: no answer within 2s",
		}},
		{"gRPC", healthtest.GRPC{}, func(d health.Connect) health.Probe { return health.GRPC{Connect: d} }, answers{
			healthtest.Healthy:  "ok",
			healthtest.Starting: "bad status / gRPC: NOT_SERVING",
			healthtest.Denying:  "not authorized / gRPC: status 16 who are you",
			healthtest.Silent:   "timeout / HTTP/2: no answer within 2s",
			healthtest.Closing:  "closed / HTTP/2: connection closed",
			healthtest.Slow:     "timeout / HTTP/2: no answer within 2s",
		}},
		{"gRPC of a service", healthtest.GRPC{Services: []string{"a.B"}}, func(d health.Connect) health.Probe { return health.GRPC{Connect: d, Service: "a.B"} }, answers{
			healthtest.Healthy: "ok",
		}},
		{"gRPC of an unknown service", healthtest.GRPC{}, func(d health.Connect) health.Probe { return health.GRPC{Connect: d, Service: "a.B"} }, answers{
			healthtest.Healthy: "bad status / gRPC: service unknown",
		}},
		{"gRPC of something else", healthtest.HTTP{}, func(d health.Connect) health.Probe { return health.GRPC{Connect: d} }, answers{
			healthtest.Healthy: `protocol error / gRPC: content type ""`,
		}},
		{"agent", healthtest.Agent{}, func(d health.Connect) health.Probe { return health.Agent{Connect: d} }, answers{
			healthtest.Healthy:  "ok",
			healthtest.Starting: "stopping / agent: drain",
			healthtest.Denying:  "bad status / agent: maint",
			healthtest.Silent:   "timeout / agent: no answer within 2s",
			healthtest.Endless:  "protocol error / agent: answer longer than 16384 bytes",
			healthtest.Slow:     "timeout / agent: no answer within 2s",
		}},
	} {
		for mode, want := range tt.want {
			t.Run(tt.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s, n := fake(t, tt.service)
					s.Set(mode)
					p := tt.probe(health.Connect{Dial: n.DialContext})
					ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
					defer cancel()
					begin := time.Now()
					err := p.Probe(ctx, balance.Endpoint{Addr: addr})
					require.Equal(t, want, verdict(err), "mode %d", mode)
					if health.CodeOf(err) != health.CodeTimeout {
						require.Zero(t, time.Since(begin), "nothing waits")
					} else {
						require.Equal(t, 2*time.Second, time.Since(begin))
					}
					synctest.Wait()
					if mode != healthtest.Slow { // it notices with its next write
						require.Zero(t, s.Open(), "the connection is closed")
					}
				})
			})
		}
	}
}

func TestScript(t *testing.T) {
	begin := []health.Step{{Expect: health.Match{Contains: "ESMTP"}}}
	for _, tt := range []struct {
		name  string
		steps []health.Step
		want  string
	}{
		{"none", nil, "ok"},
		{"a greeting", begin, "ok"},
		{"same bytes again", append(begin, health.Step{Expect: health.Match{Contains: "220-mail"}}), "ok"},
		{"a send forgets them", append(begin, health.Step{Send: "HELO a\r\n", Expect: health.Match{Contains: "ESMTP"}}), "timeout / step 2: no answer within 2s"},
		{"a dialog", append(begin, health.Step{Send: "HELO a\r\n", Expect: health.Match{Contains: "250 "}}, health.Step{Send: "QUIT\r\n", Expect: health.Match{Contains: "221 bye"}}), "ok"},
		{"what must not be", append(begin, health.Step{Name: "no size", Send: "HELO a\r\n", Min: 40, Expect: health.Match{Contains: "SIZE", Not: true}}),
			`unexpected content / no size: found "SIZE" in "250-mail.example.com\r\n250 SIZE 1000000\r\n"`},
		{"it waits for enough", []health.Step{{Min: 38, Expect: health.Match{Contains: "nope", Not: true}}}, "timeout / step 1: no answer within 2s"},
		{"enough is enough", []health.Step{{Min: 30, Expect: health.Match{Contains: "nope", Not: true}}}, "ok"},
		{"the end decides", []health.Step{{Send: "QUIT\r\n", Expect: health.Match{Contains: "nope"}}},
			`unexpected content / step 1: no "nope" in "220-mail.example.com\r\n220 ESMTP\r\n221 bye\r\n"`},
		{"the end is not enough", []health.Step{{Send: "QUIT\r\n", Min: 1000}}, "unexpected content / step 1: 42 bytes of 1000"},
		{"or it is", []health.Step{{Send: "QUIT\r\n", Min: 1000, Expect: health.Match{Contains: "nope", Not: true}}}, "ok"},
		{"after the end", []health.Step{{Send: "QUIT\r\n", Expect: health.Match{Contains: "bye"}}, {Send: "HELO\r\n", Min: 1}}, "closed / step 2: connection closed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, n := fake(t, healthtest.SMTP{})
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				defer cancel()
				p := health.Script{Connect: health.Connect{Dial: n.DialContext}, Steps: tt.steps}
				require.Equal(t, tt.want, verdict(p.Probe(ctx, balance.Endpoint{Addr: addr})))
			})
		})
	}
}

// TestAgentChecker plays the life of a server through its agent.
func TestAgentChecker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		says := make(chan string, 1)
		serve := serviceFunc(func(c net.Conn, m healthtest.Mode) {
			select {
			case line := <-says:
				healthtest.Agent{Line: line}.ServeConn(c, m)
			default:
				healthtest.Agent{Line: "ready"}.ServeConn(c, m)
			}
		})
		_, n := fake(t, serve)
		p := &balance.Pool{}
		require.NoError(t, p.Set(balance.Endpoint{Name: "a", Addr: addr, Weight: 100}))
		s := p.Server("a")
		a := &health.AgentChecker{
			Pools: []*balance.Pool{p}, Logger: quiet, Interval: time.Second,
			Agent: health.Agent{Send: "a\n", Connect: health.Connect{Dial: n.DialContext}},
		}
		last := make(chan error, 100)
		a.OnReply = func(_ *balance.Server, _ health.AgentReply, err error) { last <- err }
		says <- "up"
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- a.Run(ctx) }()
		for i, step := range []struct {
			says  string
			state balance.State
			why   string
		}{
			{"75%,maxconn:30,maint,down", balance.StateDown, "down and maint"},
			{"up", balance.StateDown, "still in maint"},
			{"50%", balance.StateDown, "says nothing of it"},
			{"ready", balance.StateUp, ""},
			{"drain", balance.StateStopping, ""},
			{"nonsense", balance.StateStopping, "changes nothing"},
			{"stopped #night", balance.StateDown, ""},
			{"up ready", balance.StateUp, ""},
			{"0%", balance.StateUnweighted, ""},
			{"100%", balance.StateUp, ""},
		} {
			synctest.Wait()
			for len(last) > 0 {
				<-last
			}
			says <- step.says
			time.Sleep(time.Second)
			synctest.Wait()
			require.Equal(t, step.state, s.State(), "step %d, %q: %s", i, step.says, step.why)
			require.Equal(t, step.says == "nonsense", <-last != nil)
		}
		s.SetAdmin(balance.Maint, "operator")
		says <- "ready up"
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, balance.StateMaint, s.State(), "an agent does not undo what the operator does")
		require.ErrorIs(t, a.Run(ctx), health.ErrRunning)
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
	})
}

// TestAgentCheckerGoesOn ends Run and begins again.
func TestAgentCheckerGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var line atomic.Value
		_, n := fake(t, serviceFunc(func(c net.Conn, m healthtest.Mode) {
			healthtest.Agent{Line: line.Load().(string)}.ServeConn(c, m)
		}))
		p := &balance.Pool{}
		require.NoError(t, p.Set(balance.Endpoint{Name: "a", Addr: addr, Weight: 100}))
		s := p.Server("a")
		agents := func() *health.AgentChecker {
			return &health.AgentChecker{Pools: []*balance.Pool{p}, Logger: quiet, Agent: health.Agent{Connect: health.Connect{Dial: n.DialContext}}}
		}
		ask := func(a *health.AgentChecker, says string) balance.State {
			line.Store(says)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			require.ErrorIs(t, a.Run(ctx), context.DeadlineExceeded)
			return s.State()
		}
		a := agents()
		require.Equal(t, balance.StateDown, ask(a, "maint #disk"))
		require.Equal(t, balance.StateDown, ask(a, "50%"), "it says nothing of it")
		require.Equal(t, "agent says down: maint: disk", p.Explain()[0].Reason)
		require.Equal(t, balance.StateDown, ask(a, "up"))
		require.Equal(t, balance.StateUp, ask(a, "ready"))
		require.Equal(t, balance.StateDown, ask(a, "stopped"))
		require.Equal(t, balance.StateUp, ask(agents(), "50%"), "one that has heard nothing before")

		require.Equal(t, balance.StateDown, ask(a, "100%"))
		require.NoError(t, p.Set())
		require.NoError(t, p.Set(balance.Endpoint{Name: "a", Addr: addr}))
		s = p.Server("a")
		require.Equal(t, balance.StateUp, ask(a, "100%"), "another server by the same name")
	})
}

type serviceFunc func(net.Conn, healthtest.Mode)

func (f serviceFunc) ServeConn(c net.Conn, m healthtest.Mode) { f(c, m) }

// A Dial function of the host that returns nothing fails the check, not the process.
func TestDialReturnsNothing(t *testing.T) {
	for _, c := range []net.Conn{nil, (*net.TCPConn)(nil)} {
		nothing := func(context.Context, string, string) (net.Conn, error) { return c, nil }
		for _, p := range []health.Probe{health.TCP{Connect: health.Connect{Dial: nothing}}, health.HTTP{Connect: health.Connect{Dial: nothing}}} {
			err := p.Probe(t.Context(), balance.Endpoint{Addr: addr})
			require.ErrorContains(t, err, "Connect.Dial has returned no connection")
			require.NotContains(t, err.Error(), "panic")
		}
	}
	ours, peer := l4test.Pipe()
	both := func(context.Context, string, string) (net.Conn, error) { return ours, errors.New("refused here") }
	require.ErrorContains(t, health.TCP{Connect: health.Connect{Dial: both}}.Probe(t.Context(), balance.Endpoint{Addr: addr}), "refused")
	peer.SetReadDeadline(time.Now().Add(time.Second))
	_, err := peer.Read(make([]byte, 1))
	require.Equal(t, io.EOF, err)
}
