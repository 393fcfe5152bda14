// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"errors"
	"net/http"

	"github.com/penstock-lb/penstock/l4"
)

// Handlers may write anything into an Exchange and a Reply, so both are checked
// just before they are written: a value with a line end in it would become
// another request, or another reply, on the wire. Values from the parsers and
// from the methods of Fields are marked as checked and cost only a comparison.

// asked is the client's request line as it was parsed, and whether a body came with it.
type asked struct {
	method, scheme, host, path, query string
	body                              bool
}

// An unsendableError says which value, written by a handler, cannot be sent, and what to
// write.
type unsendableError struct{ what, value, rule string }

func (e *unsendableError) Error() string {
	const most = 100
	v := e.value
	if len(v) > most {
		v = v[:most]
	}
	return "l7: a handler wrote " + e.what + " " + quote(v) + ", which cannot be sent: it must " + e.rule
}

const (
	ruleMethod = "be a token such as GET, and CONNECT if and only if the client sent CONNECT"
	ruleHost   = "be a host or host:port, and host:port for CONNECT"
	rulePath   = "begin with a slash, with ?, # and all but visible ASCII escaped by %; only OPTIONS may have *, and CONNECT has none"
	ruleQuery  = "begin with ? and follow a path, with # and all but visible ASCII escaped by %"
	ruleScheme = "be http or https"
	ruleName   = "be a token such as X-Name"
	ruleValue  = "have no line end, and no control character but tabs"
	ruleStatus = "be from 200 to 999"
)

// isReplaced reports whether another reply has been sent in place of one whose
// head could not be written.
func isReplaced(err error) bool {
	if err == nil {
		return false
	}
	if _, ok := errors.AsType[*unsendableError](err); ok {
		return true
	}
	_, ok := errors.AsType[*RefusedError](err)
	return ok
}

// unsendable returns an error if the request as it stands must not be written.
func (x *Exchange) unsendable() *unsendableError {
	a := &x.asked
	switch {
	case x.Method != a.method && (!isToken(x.Method) || x.Method == http.MethodConnect || a.method == http.MethodConnect):
		return &unsendableError{"Method", x.Method, ruleMethod} // both sides must agree on whether there is a tunnel
	case x.Host != a.host && (x.Host != "" && !validHost(x.Host) || x.Method == http.MethodConnect && hostPort(x.Host) == ""):
		return &unsendableError{"Host", x.Host, ruleHost}
	case (x.Path != a.path || x.Method != a.method) && !x.pathFits():
		return &unsendableError{"Path", x.Path, rulePath}
	case x.Query != a.query && x.Query != "" && (x.Query[0] != '?' || x.Path == "" || !all(x.Query, isTargetByte)):
		return &unsendableError{"Query", x.Query, ruleQuery}
	case x.Scheme != a.scheme && x.Scheme != "http" && x.Scheme != "https":
		return &unsendableError{"Scheme", x.Scheme, ruleScheme}
	case x.Record.Host != a.host && x.Record.Host != "" && !validHost(x.Record.Host):
		return &unsendableError{"Record.Host", x.Record.Host, ruleHost}
	case x.upgrade != "" && !validValue(x.upgrade):
		return &unsendableError{"Upgrade", x.upgrade, ruleValue}
	}
	return x.Header.unsendable()
}

// pathFits reports whether the path is allowed for the method (RFC 9112,
// section 3.2).
func (x *Exchange) pathFits() bool {
	switch x.Method {
	case http.MethodConnect:
		return x.Path == ""
	case http.MethodOptions:
		return pathOK(x.Path) && (x.Path != "*" || x.Query == "")
	}
	return x.Path != "*" && pathOK(x.Path)
}

// unsendable returns an error for the first line that must not be written.
func (f *Fields) unsendable() *unsendableError {
	for i := range f.list {
		if fd := &f.list[i]; !fd.checked && !fd.kind.owned() {
			if !isToken(fd.Name) {
				return &unsendableError{"a field name", fd.Name, ruleName}
			}
			if !validValue(fd.Value) {
				return &unsendableError{"field " + fd.Name, fd.Value, ruleValue}
			}
		}
	}
	return nil
}

// unsendable returns an error if the reply must not be written as a final one.
func (r *Reply) unsendable() *unsendableError {
	if r.Status < 200 || r.Status > 999 {
		return &unsendableError{"Status", formatInt(int64(r.Status)), ruleStatus}
	}
	return r.Header.unsendable()
}

// refuse answers 500 in place of a value that must not be sent.
func (x *Exchange) refuse(e *unsendableError) {
	x.Record.Err = e
	x.Error(http.StatusInternalServerError, endOf(l4.Internal, l4.PhaseRequest))
}

// replace sends a 500 in place of a reply that must not be sent, and returns e.
// The editors do not run again, since one of them may be at fault.
func (x *Exchange) replace(r *Reply, e *unsendableError) error {
	body := statusLine(http.StatusInternalServerError) + "\n"
	*r = Reply{
		Status: http.StatusInternalServerError, Local: true, ContentLength: int64(len(body)),
		Header: MakeFields("Content-Type", "text/plain; charset=utf-8"),
	}
	x.Record.Status, x.Record.Err = r.Status, e
	x.Record.Termination = endOf(l4.Internal, l4.PhaseHeaders)
	if err := x.down.writeHead(r); err != nil {
		return err
	}
	if !x.bodiless(r.Status) {
		_ = x.writeBody(unsafeBytes(body))
	}
	_ = x.down.finish(nil)
	return e
}

// bodiless reports whether a final reply of that status has no body. That
// depends on the method that the client sent, not on the one that a handler has
// set, since the client has to find the end of the reply (RFC 9112, section
// 6.3).
func (x *Exchange) bodiless(status int) bool {
	return x.asked.method == http.MethodHead || !bodyAllowed(status) || x.opensTunnel(status)
}

// opensTunnel reports whether a client treats the bytes after the head of a
// reply as those of a tunnel (RFC 9110, section 9.3.6).
func (x *Exchange) opensTunnel(status int) bool {
	return x.asked.method == http.MethodConnect && status/100 == 2
}
