// SPDX-License-Identifier: Apache-2.0

package penstock

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// A ConfigError names one setting that cannot be used. Every package of the
// module returns it, by itself or several joined: from the Check method of a
// literal, and from the method that first uses the literal (Serve, Run, Set).
type ConfigError struct {
	Field  string // the path to it, in Go's words: "Server.Handler.Router.Routes[2].Match"
	Value  any    // what it holds
	Reason string // what is wrong, and what to write instead: "must not be negative"
}

// Error returns "penstock: FIELD: VALUE REASON".
func (e *ConfigError) Error() string {
	format := "penstock: %s: %v %s"
	if v := reflect.ValueOf(e.Value); v.Kind() == reflect.String {
		format = "penstock: %s: %q %s"
	}
	return fmt.Sprintf(format, e.Field, e.Value, e.Reason)
}

// Mistakes collects what is wrong with a literal. It is what Check methods are
// written with, those of the module and those of a host's own handlers,
// probes and policies:
//
//	func (h *Mine) Check() error {
//		var m penstock.Mistakes
//		m.If(h.Delay < 0, "Mine.Delay", h.Delay, "must not be negative")
//		m.Need("Mine.Next", h.Next, "must be the handler that goes on")
//		m.In("Mine.Next", h.Next)
//		return m.Err()
//	}
//
// The zero value is empty. It is for one goroutine.
type Mistakes struct {
	errs []error
	seen map[any]bool // what Once came to, shared with those below
}

// If adds a mistake if wrong is true.
func (m *Mistakes) If(wrong bool, field string, value any, reason string) {
	if wrong {
		m.errs = append(m.errs, &ConfigError{field, value, reason})
	}
}

// Need adds a mistake if value is nil, or holds a nil pointer, func, map, slice
// or channel.
func (m *Mistakes) Need(field string, value any, reason string) {
	m.If(isNil(value), field, nil, reason)
}

// In adds the mistakes of what a field holds, with the path to the field put
// before theirs. A value that has no method Check, or is nil, has none.
func (m *Mistakes) In(path string, value any) {
	if c, ok := value.(interface{ Check() error }); ok && !isNil(value) {
		m.Add(path, c.Check())
	}
}

// Once is In for what may lead back to itself, such as a handler of handlers: check,
// which is value's own, is called when value comes up for the first time among these
// mistakes and those that check is given to add to, and not again. An In that leads back
// does not end. A value that is nil has no mistakes; one that is not comparable, such as a
// slice, is checked each time.
func (m *Mistakes) Once(path string, value any, check func(*Mistakes)) {
	if isNil(value) {
		return
	}
	if m.seen == nil {
		m.seen = make(map[any]bool)
	}
	if reflect.TypeOf(value).Comparable() {
		if m.seen[value] {
			return
		}
		m.seen[value] = true
	}
	below := Mistakes{seen: m.seen}
	check(&below)
	m.Add(path, below.Err())
}

// Add adds the mistakes of err, with path put before theirs: each
// [*ConfigError] of errors that were joined, and anything else as it is. An
// empty path changes nothing. A nil err adds nothing.
func (m *Mistakes) Add(path string, err error) {
	switch e := err.(type) { //nolint:errorlint // what is wrapped keeps the words around it
	case nil:
	case *ConfigError:
		m.errs = append(m.errs, &ConfigError{joinPath(path, e.Field), e.Value, e.Reason})
	case interface{ Unwrap() []error }:
		for _, err := range e.Unwrap() {
			m.Add(path, err)
		}
	default:
		if path != "" {
			err = fmt.Errorf("penstock: %s: %w", path, err)
		}
		m.errs = append(m.errs, err)
	}
}

// Err returns the mistakes, joined as [errors.Join] does, or nil if there are none.
func (m *Mistakes) Err() error { return errors.Join(m.errs...) }

// joinPath puts path before field. A field whose type has the name of the field
// that holds it is named once: Proxy.Pool and Pool.Panic are Proxy.Pool.Panic,
// Checker.Pools[1] and Pool.Panic are Checker.Pools[1].Panic.
func joinPath(path, field string) string {
	if path == "" {
		return field
	}
	last := path[strings.LastIndexByte(path, '.')+1:]
	last, _, _ = strings.Cut(last, "[")
	first, rest, ok := strings.Cut(field, ".")
	switch {
	case last != first && last != first+"s":
		return path + "." + field
	case ok:
		return path + "." + rest
	}
	return path
}

func isNil(value any) bool {
	if value == nil {
		return true
	}
	v := reflect.ValueOf(value)
	switch v.Kind() {
	case reflect.Pointer, reflect.Func, reflect.Map, reflect.Slice, reflect.Chan, reflect.UnsafePointer:
		return v.IsNil()
	}
	return false
}
