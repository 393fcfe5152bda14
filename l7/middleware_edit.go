// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"
	"regexp"
	"strings"
)

// EditHeader changes the header fields of requests, of replies, or of both.
// Replies that the gateway makes itself (errors, redirects) are changed too.
// Edits are applied in order; other fields keep their order and their bytes.
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

// A FieldEdit changes a list of fields: the request's or the reply's. It may be
// called by several goroutines at once.
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

// SetField replaces all lines of a field by one, in both spellings of its name
// ([Fields.Set]). Host is set by [Rewrite] instead; Check refuses it, and the other fields
// that the proxy writes itself, since an edit of them has no effect (see [Fields]).
type SetField struct {
	Name  string
	Value string
	From  func(x *Exchange) string // instead of Value; "" leaves the field unchanged: put a DelField before it if the client's value must not pass

	IfNone bool // only if there is no line of that name
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

// DelField removes the lines of every field whose name matches one of the
// criteria that are set. All of them ignore case, and treat "_" like "-"
// ([Fields.Set] says why). Regexp is matched against the canonical form of the
// name ([http.CanonicalHeaderKey]), and against the form with dashes if that
// differs.
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
	f.ownRule(c)
	f.DelFunc(func(name, _ string) bool { return c.fits(name) })
}

func (d DelField) rule() ownName {
	return ownName{d.Name, d.Prefix, d.Suffix, d.Contains, d.Regexp}
}

// ReplaceField replaces each match of an expression in the lines of a field, in
// both spellings of its name ([Fields.Set]), by With, in which $1 and ${name}
// stand for groups (regexp.Regexp.Expand). Anchor the expression to replace
// whole values.
type ReplaceField struct {
	Name   string
	Regexp *regexp.Regexp
	With   string

	// Items applies the expression to each item of the comma-separated list. Items
	// that become empty are removed.
	Items bool
}

// EditFields implements [FieldEdit].
func (e ReplaceField) EditFields(_ *Exchange, f *Fields) {
	f.ownField(e.Name)
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
			return value // unchanged, with its spaces
		}
		return strings.Join(items, ", ")
	})
}

// SetForwarded is a [FieldEdit] of requests that writes Forwarded (RFC 7239)
// with nodes that you choose: with the client's port, or with a name that hides
// the address. Use it with a Proxy whose Forward is ForwardNone. The client's
// field is dropped, unless [TrustForwarded] trusts it: then the element is
// appended to it.
type SetForwarded struct {
	For func(x *Exchange) string // the client; nil means the address of the other end
	By  func(x *Exchange) string // the gateway; nil leaves it out

	Host, Proto bool // add the host and the scheme of the request
}

// EditFields implements [FieldEdit]. A node is an address, an address with a
// port, or an obfuscated name ("_" and letters, digits or ._-). Anything else
// becomes "unknown".
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
	f.list = append(f.list, Field{Name: "Forwarded", Value: b.String()}) // without a kind, so that the proxy forwards it
}

// EditInterim implements [InterimEditor].
func (h *EditHeader) EditInterim(x *Exchange, r *Reply) { h.EditReply(x, r) }
