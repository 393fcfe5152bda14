// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"
	"regexp"
	"strings"
)

// EditHeader changes the header fields of requests, of replies, or of both.
// Replies that the gateway makes itself (errors, redirects) are changed too.
// Edits are made in order; fields that no edit is about keep their order and
// their bytes.
//
//	&l7.EditHeader{
//		Request: []l7.FieldEdit{l7.SetField{Name: "X-Env", Value: "prod"}},
//		Reply:   []l7.FieldEdit{l7.DelField{Prefix: "X-Internal-"}},
//		Next:    proxy,
//	}
type EditHeader struct {
	Request []FieldEdit
	Reply   []FieldEdit

	Next http.Handler

	checked
}

// A FieldEdit changes a list of fields: the request's or the reply's. It may
// be asked by several goroutines at once.
type FieldEdit interface {
	EditFields(x *Exchange, f *Fields)
}

// FieldEditFunc is a func as a [FieldEdit].
type FieldEditFunc func(x *Exchange, f *Fields)

// EditFields calls e.
func (e FieldEditFunc) EditFields(x *Exchange, f *Fields) { e(x, f) }

// ServeExchange implements [Handler].
func (h *EditHeader) ServeExchange(x *Exchange) {
	for _, e := range h.Request {
		e.EditFields(x, &x.Header)
	}
	if len(h.Reply) > 0 {
		x.OnReply(h)
	}
	Serve(h.Next, x)
}

// EditReply implements [ReplyEditor].
func (h *EditHeader) EditReply(x *Exchange, r *Reply) {
	for _, e := range h.Reply {
		e.EditFields(x, &r.Header)
	}
}

// ServeHTTP implements [http.Handler].
func (h *EditHeader) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(h, w, r) }

// SetField gives a field one line, whatever it had before, in both spellings of
// its name ([Fields.Set]).
type SetField struct {
	Name  string
	Value string
	From  func(x *Exchange) string // instead of Value; "" leaves the field as it is: put a DelField before it where what a client sent must not pass

	IfNone bool // only if there is no line of that name yet
}

// EditFields implements [FieldEdit].
func (s SetField) EditFields(x *Exchange, f *Fields) {
	if s.IfNone && f.Has(s.Name) {
		return
	}
	v := s.Value
	if s.From != nil {
		if v = s.From(x); v == "" {
			return
		}
	}
	f.Set(s.Name, v)
}

// AddField adds a line to a field.
type AddField struct {
	Name  string
	Value string
	From  func(x *Exchange) string // instead of Value; "" adds nothing
}

// EditFields implements [FieldEdit].
func (a AddField) EditFields(x *Exchange, f *Fields) {
	v := a.Value
	if a.From != nil {
		if v = a.From(x); v == "" {
			return
		}
	}
	f.Add(a.Name, v)
}

// DelField removes the lines of every field whose name fits one of the
// criteria that are set. All ignore the case in which a client sends a name, and
// take a "_" in it for a "-" ([Fields.Set] says why). Regexp sees the name in its
// canonical form, as [http.CanonicalHeaderKey] has it, and with dashes as well if
// that is another.
type DelField struct {
	Name     string
	Prefix   string
	Suffix   string
	Contains string
	Regexp   *regexp.Regexp
}

// EditFields implements [FieldEdit].
func (d DelField) EditFields(_ *Exchange, f *Fields) {
	if d == (DelField{Name: d.Name}) {
		f.Del(d.Name)
		return
	}
	c := d.rule()
	f.ownField(c)
	f.DelFunc(func(name, _ string) bool { return c.fits(name) })
}

func (d DelField) rule() ownName {
	return ownName{d.Name, d.Prefix, d.Suffix, d.Contains, d.Regexp}
}

// ReplaceField replaces what an expression finds in the lines of a field, in
// both spellings of its name ([Fields.Set]), by
// With, in which $1 and ${name} stand for groups (regexp.Regexp.Expand). It
// replaces each time the expression is found; anchor it to replace whole
// values.
type ReplaceField struct {
	Name   string
	Regexp *regexp.Regexp
	With   string

	// Items has the expression look at each item of the comma-separated list
	// by itself. Items that it empties are removed.
	Items bool
}

// EditFields implements [FieldEdit].
func (e ReplaceField) EditFields(_ *Exchange, f *Fields) {
	f.ownField(ownName{name: e.Name})
	f.Edit(func(name, value string) string {
		switch {
		case !alike(name, e.Name):
			return value
		case !e.Items:
			return e.Regexp.ReplaceAllString(value, e.With)
		}
		var items []string
		changed := false
		eachItem(value, func(item string) {
			v := e.Regexp.ReplaceAllString(item, e.With)
			changed = changed || v != item
			if v != "" {
				items = append(items, v)
			}
		})
		if !changed {
			return value // as it was, spaces and all
		}
		return strings.Join(items, ", ")
	})
}

// SetForwarded is a [FieldEdit] of requests that writes Forwarded (RFC 7239)
// with nodes of the host's choice: the other end's port, a name that tells
// nothing. It goes with a Proxy whose Forward is ForwardNone. What a client
// sent is dropped, unless [TrustForwarded] believes it: then the element is
// put behind that of others.
type SetForwarded struct {
	For func(x *Exchange) string // who sent the request; nil means the other end's address
	By  func(x *Exchange) string // who took it; nil leaves it out

	Host, Proto bool // tell the host and the scheme that were asked for
}

// EditFields implements [FieldEdit]. A node is an address, an address with a
// port, or an obfuscated name, "_" and some letters, digits or ._-; what is
// none of these becomes "unknown".
func (e SetForwarded) EditFields(x *Exchange, f *Fields) {
	var b strings.Builder
	if x.trusted {
		for v := range f.Values("Forwarded") {
			b.WriteString(v)
			b.WriteString(", ")
		}
	}
	f.Del("Forwarded")
	node := x.Remote.Addr().String()
	if e.For != nil {
		node = e.For(x)
	}
	b.WriteString("for=" + forwardedNode(node))
	if e.By != nil {
		b.WriteString(";by=" + forwardedNode(e.By(x)))
	}
	if e.Host && x.Record.Host != "" {
		b.WriteString(`;host="` + x.Record.Host + `"`)
	}
	if e.Proto {
		b.WriteString(";proto=" + x.Scheme)
	}
	f.edited = true
	f.list = append(f.list, Field{Name: "Forwarded", Value: b.String()}) // of no kind: the proxy lets it pass
}

// EditInterim implements [InterimEditor].
func (h *EditHeader) EditInterim(x *Exchange, r *Reply) { h.EditReply(x, r) }
