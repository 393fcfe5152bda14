// SPDX-License-Identifier: Apache-2.0

package file

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/penstock-lb/penstock/balance"
)

// A ParseError says where a file is wrong.
type ParseError struct {
	Line int // from 1
	Err  error
}

func (e *ParseError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }

// Unwrap returns Err.
func (e *ParseError) Unwrap() error { return e.Err }

// Parse reads endpoints from JSON or lines; what begins with [ or { is JSON. It does not
// check what they say: [balance.Pool.Set] does. The error is a *[ParseError].
func Parse(text []byte) ([]balance.Endpoint, error) {
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	if t := bytes.TrimSpace(text); len(t) > 0 && (t[0] == '[' || t[0] == '{') {
		return parseJSON(text)
	}
	return parseLines(string(text))
}

// ParseOne reads one endpoint, an object of JSON or a line: the form for a store that has
// an entry for each server. It does not check what it says. The error is a *[ParseError].
func ParseOne(text []byte) (balance.Endpoint, error) {
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	if t := bytes.TrimSpace(text); len(t) > 0 && t[0] == '{' {
		var e endpoint
		err := decode(text, &e)
		return e.real(), err
	}
	eps, err := parseLines(string(text))
	if err == nil && len(eps) != 1 {
		err = &ParseError{1, fmt.Errorf("%d endpoints where one is wanted", len(eps))}
	}
	if err != nil {
		return balance.Endpoint{}, err
	}
	return eps[0], nil
}

// AppendJSON appends e to b as an object that [ParseOne] reads. Value is left out.
func AppendJSON(b []byte, e balance.Endpoint) []byte {
	text, err := json.Marshal(endpoint{Name: e.Name, Addr: e.Addr, Weight: e.Weight, MaxConns: e.MaxConns, MinConns: e.MinConns,
		MaxQueue: e.MaxQueue, Tier: e.Tier, Zone: e.Zone, Labels: e.Labels})
	if err != nil {
		panic(err) // strings and numbers always have a form in JSON
	}
	return append(b, text...)
}

// endpoint is a [balance.Endpoint] in JSON.
type endpoint struct {
	Name     string            `json:"name,omitempty"`
	Addr     string            `json:"addr,omitempty"`
	Weight   int               `json:"weight,omitempty"`
	MaxConns int               `json:"max_conns,omitempty"`
	MinConns int               `json:"min_conns,omitempty"`
	MaxQueue int               `json:"max_queue,omitempty"`
	Tier     int               `json:"tier,omitempty"`
	Zone     string            `json:"zone,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
}

func (e *endpoint) real() balance.Endpoint {
	return balance.Endpoint{Name: e.Name, Addr: e.Addr, Weight: e.Weight, MaxConns: e.MaxConns, MinConns: e.MinConns, MaxQueue: e.MaxQueue,
		Tier: e.Tier, Zone: e.Zone, Labels: e.Labels}
}

func parseJSON(text []byte) ([]balance.Endpoint, error) {
	var list []endpoint
	var whole struct {
		Endpoints []endpoint `json:"endpoints"`
	}
	var to any = &list
	if bytes.TrimSpace(text)[0] == '{' {
		to = &whole
	}
	if err := decode(text, to); err != nil {
		return nil, err
	}
	list = append(list, whole.Endpoints...)
	eps := make([]balance.Endpoint, len(list))
	for i := range list {
		eps[i] = list[i].real()
	}
	return eps, nil
}

// decode reads all of text, and no field that to does not have.
func decode(text []byte, to any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	err := d.Decode(to)
	at := d.InputOffset()
	if err == nil {
		if _, more := d.Token(); more != io.EOF {
			err = errors.New("there is more after the end")
		}
	}
	if err != nil {
		var syntax *json.SyntaxError
		var kind *json.UnmarshalTypeError
		switch {
		case errors.Is(err, io.ErrUnexpectedEOF):
			at = int64(len(text))
		case errors.As(err, &syntax):
			at = syntax.Offset
		case errors.As(err, &kind):
			at = kind.Offset
		}
		return &ParseError{1 + bytes.Count(text[:min(max(at, 0), int64(len(text)))], []byte("\n")), err}
	}
	return nil
}

func parseLines(text string) ([]balance.Endpoint, error) {
	eps := []balance.Endpoint{}
	n := 0
	for line := range strings.Lines(text) {
		n++
		f := strings.Fields(line)
		if len(f) == 0 || f[0][0] == '#' {
			continue
		}
		e, err := parseLine(f)
		if err != nil {
			return nil, &ParseError{n, err}
		}
		eps = append(eps, e)
	}
	return eps, nil
}

// parseLine reads an address and fields, up to a comment.
func parseLine(f []string) (balance.Endpoint, error) {
	e := balance.Endpoint{Addr: f[0]}
	if strings.Contains(e.Addr, "=") {
		return e, fmt.Errorf("%q is no address: it comes first", e.Addr)
	}
	seen := make(map[string]bool)
	for _, field := range f[1:] {
		if field[0] == '#' {
			break
		}
		key, value, ok := strings.Cut(field, "=")
		if !ok || value == "" {
			return e, fmt.Errorf("%q is no key=value", field)
		}
		if seen[key] {
			return e, fmt.Errorf("%q comes twice", key)
		}
		seen[key] = true
		if err := set(&e, key, value); err != nil {
			return e, err
		}
	}
	return e, nil
}

// set sets the field of that key.
func set(e *balance.Endpoint, key, value string) error {
	if label, ok := strings.CutPrefix(key, "label."); ok && label != "" {
		if e.Labels == nil {
			e.Labels = make(map[string]string)
		}
		e.Labels[label] = value
		return nil
	}
	texts := map[string]*string{"name": &e.Name, "zone": &e.Zone}
	numbers := map[string]*int{"weight": &e.Weight, "max_conns": &e.MaxConns, "min_conns": &e.MinConns, "max_queue": &e.MaxQueue, "tier": &e.Tier}
	if to := texts[key]; to != nil {
		*to = value
		return nil
	}
	to := numbers[key]
	if to == nil {
		return fmt.Errorf("there is no field %q", key)
	}
	n, err := strconv.Atoi(value)
	if err != nil {
		return fmt.Errorf("%s: %q is no number", key, value)
	}
	*to = n
	return nil
}
