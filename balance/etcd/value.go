// SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"encoding/json"
	"errors"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/balance/file"
)

// named is what etcd's package naming/endpoints writes. (client/v3,
// naming/endpoints/internal/update.go.)
type named struct {
	Op       int // 0 means add
	Addr     string
	Metadata any `json:",omitempty"`
}

// errDeleted is the error of a value that says that there is no endpoint.
var errDeleted = errors.New("says that it is deleted")

// parse reads the value of a key whose last part is name.
func parse(name string, value []byte) (balance.Endpoint, error) {
	e, err := parseNamed(value)
	if err == errNotNamed {
		e, err = file.ParseOne(value)
	}
	if err == nil && e.Name == "" {
		e.Name = name
	}
	return e, err
}

// errNotNamed is the error of a value that does not look like those of etcd's own package.
var errNotNamed = errors.New("not in the format of naming/endpoints")

func parseNamed(value []byte) (balance.Endpoint, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(value, &fields); err != nil || fields["Addr"] == nil { // ours has "addr"
		return balance.Endpoint{}, errNotNamed
	}
	var n named
	if err := json.Unmarshal(value, &n); err != nil {
		return balance.Endpoint{}, err
	}
	if n.Op != 0 {
		return balance.Endpoint{}, errDeleted
	}
	e := balance.Endpoint{Addr: n.Addr}
	if m, ok := n.Metadata.(map[string]any); ok && len(m) > 0 {
		e.Labels = make(map[string]string, len(m))
		for k, v := range m {
			e.Labels[k] = text(v)
		}
	}
	return e, nil
}

// text is v itself if it is a string, and its JSON otherwise.
func text(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	b, _ := json.Marshal(v) // it was made of JSON
	return string(b)
}

// format makes a value of e.
func format(e balance.Endpoint, grpc bool) string {
	if !grpc {
		return string(file.AppendJSON(nil, e))
	}
	n := named{Addr: e.Addr}
	if len(e.Labels) > 0 {
		n.Metadata = e.Labels
	}
	b, _ := json.Marshal(n) // strings only
	return string(b)
}
