// SPDX-License-Identifier: Apache-2.0

package health

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/balance"
)

const notNothing = "must be of a Match that looks for something"

// tooLong reports whether m looks for more than is read.
func tooLong(m Match, max int) bool { return !m.Not && len(m.Contains) > maxBytes(max) }

// checkHost wants a host that requests can be made for, or none.
func checkHost(m *penstock.Mistakes, field, host string) {
	if host == "" {
		return
	}
	u, err := url.Parse("http://" + host + "/")
	if err != nil || u.Host != host || u.Path != "/" || strings.ContainsAny(host, " \t") {
		m.If(true, field, host, "must be a host, or host:port")
		return
	}
	if port := u.Port(); port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		m.If(err != nil || n == 0, field, host, "must have a port from 1 to 65535")
	}
	if _, err := netip.ParseAddr(u.Hostname()); err == nil {
		return
	}
	var wrong *penstock.ConfigError
	if errors.As((balance.Endpoint{Addr: u.Hostname() + ":1"}).Check(), &wrong) {
		m.If(true, field, host, wrong.Reason)
	}
}

// Check returns what is wrong with p.
func (p HTTP) Check() error {
	var m penstock.Mistakes
	m.In("HTTP.Connect", p.Connect)
	p.checkTarget(&m)
	checkHost(&m, "HTTP.Host", p.Host)
	checkFields(&m, "HTTP.Header", p.Header)
	for i, f := range p.Fields {
		m.In(fmt.Sprintf("HTTP.Fields[%d]", i), f)
	}
	p.checkFraming(&m)
	for i, h := range p.Headers {
		m.In(fmt.Sprintf("HTTP.Headers[%d]", i), h)
	}
	for i, r := range p.Status {
		m.In(fmt.Sprintf("HTTP.Status[%d]", i), r)
	}
	for i, r := range p.Stop {
		m.In(fmt.Sprintf("HTTP.Stop[%d]", i), r)
	}
	m.If(p.Content.Not && p.Content.zero(), "HTTP.Content.Not", true, notNothing)
	m.If(tooLong(p.Content, p.MaxBytes), "HTTP.Content.Contains", p.Content.Contains, "must not be longer than MaxBytes: it would never be found")
	m.If(p.Method == http.MethodHead && !p.Content.zero() && p.Judge == nil, "HTTP.Content", p.Content.String(), "must be left out: the reply to a HEAD has no body")
	return m.Err()
}

// checkTarget looks at the first line of the request.
func (p *HTTP) checkTarget(m *penstock.Mistakes) {
	m.If(p.Method != "" && !httpguts.ValidHeaderFieldName(p.Method), "HTTP.Method", p.Method, "must be a method, such as GET")
	m.If(p.Method == strings.ToLower(p.Method) && p.Method != "", "HTTP.Method", p.Method, "must be in capitals: methods are case-sensitive")
	m.If(p.Method == http.MethodConnect, "HTTP.Method", p.Method, "must ask for a resource, such as GET: CONNECT asks a proxy for a tunnel")
	m.If(p.Path != "" && p.Path[0] != '/' && (p.Path != "*" || p.Method != http.MethodOptions), "HTTP.Path", p.Path, "must begin with a slash: write "+fmt.Sprintf("%q", "/"+p.Path))
	m.If(strings.ContainsAny(p.Path, " \t\r\n#"), "HTTP.Path", p.Path, "must be as in a request: spaces are written %20")
	if strings.HasPrefix(p.Path, "/") {
		_, err := url.ParseRequestURI(p.Path)
		m.If(err != nil, "HTTP.Path", p.Path, "must be as in a request: a % comes before two hexadecimal digits, and there are no control characters")
	}
}

// checkFraming looks at fields that say how the request is sent. One that is not as the
// request is would have the server wait for more, or refuse it.
func (p *HTTP) checkFraming(m *penstock.Mistakes) {
	hosts := 0
	for f := range p.fields {
		field := "HTTP.Header." + f.Name
		if slices.Contains(p.Fields, f) {
			field = "HTTP.Fields." + f.Name
		}
		switch strings.ToLower(f.Name) {
		case "host":
			if hosts++; hosts > 1 {
				m.If(true, field, f.Value, "must be left out: the one before it is sent")
			} else if p.Host == "" {
				checkHost(m, field, f.Value)
			}
		case "content-length":
			m.If(f.Value != strconv.Itoa(len(p.Body)), field, f.Value, fmt.Sprintf("must be %d, the length of Body", len(p.Body)))
		case "transfer-encoding":
			m.If(true, field, f.Value, "must be left out: Body is sent as it is, with its length")
		case "upgrade":
			m.If(p.HTTP2, field, f.Value, "must be left out: HTTP/2 has no such field (RFC 9113, section 8.2.2)")
		}
	}
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
