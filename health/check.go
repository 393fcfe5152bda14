// SPDX-License-Identifier: Apache-2.0

package health

import (
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/balance"
)

// maxConcurrency bounds the room that Run sets aside for results.
const (
	maxConcurrency = 1 << 20
	tooMany        = "must be at most 1048576"
)

// Check returns what is wrong with c, its pools and its probe, each a
// [*penstock.ConfigError]. [Checker.Run] calls it.
func (c *Checker) Check() error {
	var m penstock.Mistakes
	checkPools(&m, "Checker.Pools", c.Pools)
	if c.Probe != nil {
		m.Need("Checker.Probe", c.Probe, "must be left out, or hold a probe: there is a nil pointer in it")
	}
	m.In("Checker.Probe", c.Probe)
	checkEndpoints(&m, "Checker.Probe", c.Probe, c.Pools)
	m.In("Checker.Observe", c.Observe)
	if o := c.Observe; o.Errors > 0 || o.Action != 0 || o.Classify != nil {
		for i, p := range c.Pools {
			m.If(p != nil && !p.HasOnOutcome(), fmt.Sprintf("Checker.Pools[%d].OnOutcome", i), nil,
				"must have the checker's Observed, which is how Observe learns of live traffic: append(pool.OnOutcome, checker.Observed)")
		}
	}
	for _, d := range []struct {
		field string
		value time.Duration
	}{{"Interval", c.Interval}, {"Fast", c.Fast}, {"Down", c.Down}} {
		m.If(d.value < 0, "Checker."+d.field, d.value, notNegative)
	}
	m.If(c.Rise < 0, "Checker.Rise", c.Rise, notNegative)
	m.If(c.Fall < 0, "Checker.Fall", c.Fall, notNegative)
	m.If(c.Concurrency < 0, "Checker.Concurrency", c.Concurrency, notNegative)
	m.If(c.Concurrency > maxConcurrency, "Checker.Concurrency", c.Concurrency, tooMany)
	m.If(!isShare(c.Jitter, 0.5), "Checker.Jitter", c.Jitter, "must be from 0 to 0.5")
	m.If(c.Initial > InitialFullyDown, "Checker.Initial", uint8(c.Initial), "must be a constant of type health.Initial")
	return m.Err()
}

// checkPools demands at least one pool: without one nothing is probed, and all servers
// look well.
func checkPools(m *penstock.Mistakes, field string, pools []*balance.Pool) {
	m.If(len(pools) == 0, field, pools, "must have a pool: without one nothing is probed")
	for i, p := range pools {
		field := fmt.Sprintf("%s[%d]", field, i)
		m.Need(field, p, "must not be nil")
		m.In(field, p)
	}
}

// checkEndpoints looks for servers that a probe, or one of those it is made of, can never
// reach. What joins later is logged by Run.
func checkEndpoints(m *penstock.Mistakes, field string, p Probe, pools []*balance.Pool) {
	switch p := p.(type) {
	case *Divided:
		if p != nil {
			checkEndpoints(m, field+".Divided.Of", p.Of, pools)
		}
	case All:
		for i := range p {
			checkEndpoints(m, fmt.Sprintf("%s.All[%d]", field, i), p[i], pools)
		}
	case Any:
		for i := range p {
			checkEndpoints(m, fmt.Sprintf("%s.Any[%d]", field, i), p[i], pools)
		}
	case dialing:
		if v := reflect.ValueOf(p); v.Kind() == reflect.Pointer && v.IsNil() {
			return // a mistake of its own
		}
		checkPorts(m, field+"."+kindOf(p), p.connect(), pools)
	}
}

// checkPorts looks for a port that is to replace that of a unix socket.
func checkPorts(m *penstock.Mistakes, field string, d *Connect, pools []*balance.Pool) {
	if d.Port == 0 || d.Addr != "" {
		return
	}
	for _, p := range pools {
		if p == nil {
			continue
		}
		for s := range p.All() {
			if addr := s.Addr(); strings.HasPrefix(addr, "unix:") {
				m.If(true, field+".Connect.Port", d.Port, fmt.Sprintf("must be 0 for server %q: %s has no port", s.Name(), addr))
				return
			}
		}
	}
}

// isShare reports whether v is from 0 to most; NaN is not.
func isShare(v, most float64) bool { return v >= 0 && v <= most }

// Check returns what is wrong with a, its pools and its agent.
// [AgentChecker.Run] calls it.
func (a *AgentChecker) Check() error {
	var m penstock.Mistakes
	checkPools(&m, "AgentChecker.Pools", a.Pools)
	m.In("AgentChecker.Agent", a.Agent)
	checkPorts(&m, "AgentChecker.Agent", &a.Agent.Connect, a.Pools)
	m.If(a.Interval < 0, "AgentChecker.Interval", a.Interval, notNegative)
	m.If(a.Concurrency < 0, "AgentChecker.Concurrency", a.Concurrency, notNegative)
	m.If(a.Concurrency > maxConcurrency, "AgentChecker.Concurrency", a.Concurrency, tooMany)
	m.If(!isShare(a.Jitter, 0.5), "AgentChecker.Jitter", a.Jitter, "must be from 0 to 0.5")
	return m.Err()
}

// Check returns what is wrong with o.
func (o Observe) Check() error {
	var m penstock.Mistakes
	m.If(o.Errors < 0, "Observe.Errors", o.Errors, notNegative)
	m.If(o.Action > MarkDown, "Observe.Action", uint8(o.Action), "must be a constant of type health.ErrorAction")
	return m.Err()
}

// Check returns what is wrong with o. [Outlier.Run] calls it.
func (o *Outlier) Check() error {
	var m penstock.Mistakes
	m.Need("Outlier.Pool", o.Pool, "must be the pool whose servers are watched")
	m.In("Outlier.Pool", o.Pool)
	if o.Pool != nil {
		m.If(!o.Pool.HasOnOutcome(), "Outlier.Pool.OnOutcome", nil,
			"must have the outlier's Observe, which is how it learns of outcomes: append(pool.OnOutcome, outlier.Observe)")
	}
	for _, n := range []struct {
		field string
		value int
	}{{"Volume", o.Volume}, {"Servers", o.Servers}, {"Keep", o.Keep}} {
		m.If(n.value < 0, "Outlier."+n.field, n.value, notNegative)
	}
	for _, d := range []struct {
		field string
		value time.Duration
	}{{"Interval", o.Interval}, {"Base", o.Base}, {"Max", o.Max}} {
		m.If(d.value < 0, "Outlier."+d.field, d.value, notNegative)
	}
	m.If(!isShare(o.FailureShare, 1), "Outlier.FailureShare", o.FailureShare, "must be from 0 to 1")
	m.If(!isShare(o.MaxShare, 1), "Outlier.MaxShare", o.MaxShare, "must be from 0 to 1")
	m.If(o.Consecutive < 0 && o.Gateway <= 0 && o.Deviation < 0 && o.FailureShare == 0, "Outlier.Consecutive", o.Consecutive,
		"must not be off if Gateway, Deviation and FailureShare are off: otherwise no server is ever ejected")
	m.If(o.Deviation != o.Deviation, "Outlier.Deviation", o.Deviation, "must be a number")
	return m.Err()
}
