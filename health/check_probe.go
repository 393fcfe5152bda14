// SPDX-License-Identifier: Apache-2.0

package health

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/balance"
)

// Check returns what is wrong with d.
func (d Connect) Check() error {
	var m penstock.Mistakes
	if d.Addr != "" {
		var addr *penstock.ConfigError
		if errors.As((balance.Endpoint{Addr: d.Addr}).Check(), &addr) {
			m.If(true, "Connect.Addr", d.Addr, addr.Reason)
		}
	}
	m.If(d.Port < 0 || d.Port > 65535, "Connect.Port", d.Port, "must be a port, or 0 for that of the address")
	m.If(d.Port != 0 && strings.HasPrefix(d.Addr, "unix:"), "Connect.Port", d.Port, "must be 0: a unix socket has no port")
	checkTLS(&m, d.TLS)
	m.If(d.Proxy > ProxyV2, "Connect.Proxy", uint8(d.Proxy), "must be a constant of type health.ProxyVersion")
	return m.Err()
}

// checkTLS looks for what lets no handshake succeed, whatever the server is.
func checkTLS(m *penstock.Mistakes, cfg *tls.Config) {
	if cfg == nil {
		return
	}
	m.If(cfg.MinVersion > cfg.MaxVersion && cfg.MaxVersion != 0, "Connect.TLS.MinVersion", cfg.MinVersion, "must not be above MaxVersion")
	name := cfg.ServerName
	if _, err := netip.ParseAddr(name); err == nil || name == "" {
		return
	}
	var wrong *penstock.ConfigError
	if strings.ContainsAny(name, ":/") {
		m.If(true, "Connect.TLS.ServerName", name, "must be the name in the certificate alone, without a scheme or a port")
	} else if errors.As((balance.Endpoint{Addr: name + ":1"}).Check(), &wrong) {
		m.If(true, "Connect.TLS.ServerName", name, wrong.Reason)
	}
}

// dialing is a probe with a Connect.
type dialing interface{ connect() *Connect }

func (p TCP) connect() *Connect        { return &p.Connect }
func (p TLS) connect() *Connect        { return &p.Connect }
func (p HTTP) connect() *Connect       { return &p.Connect }
func (p GRPC) connect() *Connect       { return &p.Connect }
func (p LDAP) connect() *Connect       { return &p.Connect }
func (p MySQL) connect() *Connect      { return &p.Connect }
func (p PostgreSQL) connect() *Connect { return &p.Connect }
func (p Redis) connect() *Connect      { return &p.Connect }
func (p SMTP) connect() *Connect       { return &p.Connect }
func (p Script) connect() *Connect     { return &p.Connect }

// dialed returns the mistakes of a probe that has nothing but a Connect.
func dialed(name string, d Connect) error {
	var m penstock.Mistakes
	m.In(name+".Connect", d)
	return m.Err()
}

// Check returns what is wrong with p. A [Checker] calls it when it begins to
// run, as it does the Check of every probe that has one.
func (p TCP) Check() error { return dialed("TCP", p.Connect) }

// Check returns what is wrong with p.
func (p TLS) Check() error { return dialed("TLS", p.Connect) }

// Check returns what is wrong with a.
func (a Agent) Check() error { return dialed("Agent", a.Connect) }

// Check returns what is wrong with p.
func (p LDAP) Check() error {
	var m penstock.Mistakes
	m.In("LDAP.Connect", p.Connect)
	m.If(p.DN != "" && p.Password == "", "LDAP.DN", p.DN, "must come with a Password: a bind without one proves nothing (RFC 4513, section 5.1.2)")
	m.If(p.DN == "" && p.Password != "", "LDAP.Password", "(hidden)", "must come with a DN: an anonymous bind has no password")
	return m.Err()
}

const noNUL = "must have no NUL, which ends it in the protocol"

// Check returns what is wrong with p.
func (p MySQL) Check() error {
	var m penstock.Mistakes
	m.In("MySQL.Connect", p.Connect)
	m.If(strings.Contains(p.User, "\x00"), "MySQL.User", p.User, noNUL)
	return m.Err()
}

// Check returns what is wrong with p.
func (p PostgreSQL) Check() error {
	var m penstock.Mistakes
	m.In("PostgreSQL.Connect", p.Connect)
	m.If(strings.Contains(p.User, "\x00"), "PostgreSQL.User", p.User, noNUL)
	m.If(strings.Contains(p.Database, "\x00"), "PostgreSQL.Database", p.Database, noNUL)
	return m.Err()
}

// Check returns what is wrong with p.
func (p GRPC) Check() error {
	var m penstock.Mistakes
	m.In("GRPC.Connect", p.Connect)
	checkHost(&m, "GRPC.Host", p.Host)
	checkFields(&m, "GRPC.Header", p.Header)
	return m.Err()
}

// Check returns what is wrong with p.
func (p Redis) Check() error {
	var m penstock.Mistakes
	m.In("Redis.Connect", p.Connect)
	m.If(p.Role != "" && p.Role != "master" && p.Role != "slave", "Redis.Role", p.Role, `must be "master" or "slave", the words of Redis, or empty`)
	m.If(p.User != "" && p.Password == "", "Redis.User", p.User, "must come with a Password: without one there is no AUTH")
	return m.Err()
}

// Check returns what is wrong with p.
func (p SMTP) Check() error {
	var m penstock.Mistakes
	m.In("SMTP.Connect", p.Connect)
	m.If(p.StartTLS && p.Connect.TLS == nil, "SMTP.StartTLS", p.StartTLS, "must come with Connect.TLS, the configuration that it uses")
	if p.Hello != "" {
		command, name, _ := strings.Cut(p.Hello, " ")
		known := slices.ContainsFunc([]string{"EHLO", "HELO", "LHLO"}, func(s string) bool { return strings.EqualFold(s, command) })
		m.If(!known || name == "" || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r > '~' }), "SMTP.Hello", p.Hello,
			`must be EHLO, HELO or LHLO and a name, on one line in ASCII, as in "EHLO gateway.example"`)
	}
	return m.Err()
}

// Check returns what is wrong with p and its steps.
func (p Script) Check() error {
	var m penstock.Mistakes
	m.In("Script.Connect", p.Connect)
	for i, s := range p.Steps {
		step := fmt.Sprintf("Script.Steps[%d]", i)
		m.In(step, s)
		m.If(s.Min > maxBytes(p.MaxBytes), step+".Min", s.Min, "must not be more than MaxBytes of the Script: there are never as many")
		m.If(tooLong(s.Expect, p.MaxBytes), step+".Expect.Contains", s.Expect.Contains, "must not be longer than MaxBytes of the Script: it would never be found")
	}
	return m.Err()
}

// Check returns what is wrong with s.
func (s Step) Check() error {
	var m penstock.Mistakes
	m.If(s.Min < 0, "Step.Min", s.Min, notNegative)
	m.If(s.Expect.Not && s.Expect.zero(), "Step.Expect.Not", true, notNothing)
	return m.Err()
}

// Check returns what is wrong with the probes.
func (a All) Check() error { return checkProbes("All", a) }

// Check returns what is wrong with the probes. An Any without one never passes.
func (a Any) Check() error {
	var m penstock.Mistakes
	m.If(len(a) == 0, "Any", a, "must have a probe to pass")
	m.Add("", checkProbes("Any", a))
	return m.Err()
}

func checkProbes(name string, list []Probe) error {
	var m penstock.Mistakes
	for i, p := range list {
		field := fmt.Sprintf("%s[%d]", name, i)
		m.Need(field, p, "must be a probe")
		m.In(field, p)
	}
	return m.Err()
}
