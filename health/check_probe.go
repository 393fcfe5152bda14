// SPDX-License-Identifier: Apache-2.0

package health

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpguts"

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
	m.If(d.Proxy > ProxyV2, "Connect.Proxy", uint8(d.Proxy), "must be one of the constants of ProxyVersion")
	return m.Err()
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
func (p LDAP) Check() error { return dialed("LDAP", p.Connect) }

// Check returns what is wrong with p.
func (p MySQL) Check() error { return dialed("MySQL", p.Connect) }

// Check returns what is wrong with p.
func (p PostgreSQL) Check() error { return dialed("PostgreSQL", p.Connect) }

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
	m.If(strings.ContainsAny(p.Hello, "\r\n"), "SMTP.Hello", p.Hello, "must be one line without its end")
	return m.Err()
}

// checkHost wants a host that requests can be made for, or none.
func checkHost(m *penstock.Mistakes, field, host string) {
	if host == "" {
		return
	}
	u, err := url.Parse("http://" + host + "/")
	m.If(err != nil || u.Host != host || u.Path != "/" || strings.ContainsAny(host, " \t"), field, host, "must be a host, or host:port")
}

// Check returns what is wrong with p.
func (p HTTP) Check() error {
	var m penstock.Mistakes
	m.In("HTTP.Connect", p.Connect)
	m.If(p.Method != "" && !httpguts.ValidHeaderFieldName(p.Method), "HTTP.Method", p.Method, "must be a method, such as GET")
	m.If(p.Method == strings.ToLower(p.Method) && p.Method != "", "HTTP.Method", p.Method, "must be in capitals: methods are case-sensitive")
	m.If(p.Path != "" && p.Path[0] != '/' && (p.Path != "*" || p.Method != http.MethodOptions), "HTTP.Path", p.Path, "must begin with a slash: write "+fmt.Sprintf("%q", "/"+p.Path))
	m.If(strings.ContainsAny(p.Path, " \t\r\n#"), "HTTP.Path", p.Path, "must be as in a request: spaces are written %20")
	if strings.HasPrefix(p.Path, "/") {
		_, err := url.ParseRequestURI(p.Path)
		m.If(err != nil, "HTTP.Path", p.Path, "must be as in a request: a % comes before two hexadecimal digits, and there are no control characters")
	}
	checkHost(&m, "HTTP.Host", p.Host)
	if host, given := p.field("Host"); given && p.Host == "" {
		checkHost(&m, "HTTP.Header.Host", host)
	}
	checkFields(&m, "HTTP.Header", p.Header)
	for i, f := range p.Fields {
		m.In(fmt.Sprintf("HTTP.Fields[%d]", i), f)
	}
	for i, h := range p.Headers {
		m.In(fmt.Sprintf("HTTP.Headers[%d]", i), h)
	}
	for i, r := range p.Status {
		m.In(fmt.Sprintf("HTTP.Status[%d]", i), r)
	}
	for i, r := range p.Stop {
		m.In(fmt.Sprintf("HTTP.Stop[%d]", i), r)
	}
	return m.Err()
}

// checkFields looks at the fields that a request is sent with.
func checkFields(m *penstock.Mistakes, field string, h http.Header) {
	for name, values := range h {
		m.If(!httpguts.ValidHeaderFieldName(name), field, name, "must be the name of a field")
		for _, v := range values {
			m.If(!httpguts.ValidHeaderFieldValue(v), field+"."+name, v, "must be the value of a field")
		}
	}
}

// Check returns what is wrong with f.
func (f Field) Check() error {
	var m penstock.Mistakes
	m.If(!httpguts.ValidHeaderFieldName(f.Name), "Field.Name", f.Name, "must be the name of a field")
	m.If(!httpguts.ValidHeaderFieldValue(f.Value), "Field.Value", f.Value, "must be the value of a field")
	return m.Err()
}

// Check returns what is wrong with r.
func (r StatusRange) Check() error {
	var m penstock.Mistakes
	m.If(r.From < 100 || r.From > 999, "StatusRange.From", r.From, "must be a status, from 100 to 999")
	m.If(r.To != 0 && r.To < r.From || r.To > 999, "StatusRange.To", r.To, "must be a status that is not below From, or 0")
	return m.Err()
}

// Check returns what is wrong with h.
func (h HeaderMatch) Check() error {
	var m penstock.Mistakes
	m.If(!httpguts.ValidHeaderFieldName(h.Name), "HeaderMatch.Name", h.Name, "must be the name of a field")
	return m.Err()
}

// Check returns what is wrong with p and its steps.
func (p Script) Check() error {
	var m penstock.Mistakes
	m.In("Script.Connect", p.Connect)
	for i, s := range p.Steps {
		m.In(fmt.Sprintf("Script.Steps[%d]", i), s)
	}
	return m.Err()
}

// Check returns what is wrong with s.
func (s Step) Check() error {
	var m penstock.Mistakes
	m.If(s.Min < 0, "Step.Min", s.Min, notNegative)
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
