// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	discovery "k8s.io/api/discovery/v1"

	"github.com/penstock-lb/penstock/balance"
)

// state sums up the conditions of an endpoint.
type state int

const (
	gone     state = iota // gets no traffic
	draining              // gets persistent traffic only
	ready
)

// stateOf returns the state for conditions. An absent condition has the value that the API
// defines for it. (EndpointConditions, discovery/v1.)
func stateOf(c discovery.EndpointConditions) state {
	is := func(b *bool) bool { return b == nil || *b }
	switch {
	case is(c.Ready):
		return ready
	case is(c.Serving):
		return draining
	}
	return gone
}

// A candidate is an endpoint of one slice.
type candidate struct {
	endpoint balance.Endpoint
	state    state
	family   discovery.AddressType
	hints    []discovery.ForZone
	slice    string
}

// better reports whether c is used for its pod rather than o. The family is compared first:
// the slices of two families do not change at the same time, and a pod must not change its
// address in between.
func (c *candidate) better(o *candidate) bool {
	if c.family != o.family {
		return c.family == discovery.AddressTypeIPv4
	}
	if c.state != o.state {
		return c.state > o.state
	}
	return c.slice < o.slice
}

// merge returns the endpoints of all slices, sorted by name, and the errors of those that
// cannot be used.
func (s *Source) merge(all []*discovery.EndpointSlice) ([]balance.Endpoint, error) {
	slices.SortFunc(all, func(a, b *discovery.EndpointSlice) int { return cmp.Compare(a.Name, b.Name) })
	var errs []error
	byName := make(map[string]*candidate)
	for _, slice := range all {
		for c, err := range s.candidates(slice) {
			if err != nil {
				errs = append(errs, &SliceError{slice.Name, err})
				continue
			}
			name := cmp.Or(c.endpoint.Name, c.endpoint.Addr)
			if o := byName[name]; o == nil || c.better(o) {
				byName[name] = c
			}
		}
	}
	if len(all) == 0 {
		errs = append(errs, fmt.Errorf("%w of the Service %s/%s", ErrNoSlices, s.Namespace, s.Service))
	}
	eps, wrong := s.endpoints(byName)
	return eps, errors.Join(append(errs, wrong...)...)
}

// candidates yields the endpoints of one slice, or the error for which it has none.
func (s *Source) candidates(slice *discovery.EndpointSlice) func(yield func(*candidate, error) bool) {
	return func(yield func(*candidate, error) bool) {
		if len(slice.Endpoints) == 0 || !s.family(slice.AddressType) {
			return
		}
		port, err := s.port(slice.Ports)
		if err != nil {
			yield(nil, err)
			return
		}
		for i := range slice.Endpoints {
			e := &slice.Endpoints[i]
			if len(e.Addresses) == 0 {
				continue
			}
			c := &candidate{state: stateOf(e.Conditions), family: slice.AddressType, slice: slice.Name}
			if e.Hints != nil {
				c.hints = e.Hints.ForZones
			}
			c.endpoint = balance.Endpoint{Addr: net.JoinHostPort(e.Addresses[0], port), Labels: make(map[string]string)}
			if e.TargetRef != nil && e.TargetRef.Kind == "Pod" {
				c.endpoint.Name = e.TargetRef.Name
				c.endpoint.Labels["pod"] = e.TargetRef.Name
			}
			for label, value := range map[string]*string{"node": e.NodeName, "zone": e.Zone, "hostname": e.Hostname} {
				if value != nil && *value != "" {
					c.endpoint.Labels[label] = *value
				}
			}
			c.endpoint.Zone = c.endpoint.Labels["zone"]
			if !yield(c, nil) {
				return
			}
		}
	}
}

// family reports whether addresses of type t are wanted.
func (s *Source) family(t discovery.AddressType) bool {
	switch s.Network {
	case "ip4":
		return t == discovery.AddressTypeIPv4
	case "ip6":
		return t == discovery.AddressTypeIPv6
	}
	return true
}

// port returns the number of the port among those of a slice.
func (s *Source) port(ports []discovery.EndpointPort) (string, error) {
	number, err := strconv.Atoi(s.Port)
	numbered := err == nil
	if numbered && len(ports) == 0 { // headless, without ports: all there are
		return s.Port, nil
	}
	var names []string
	for _, p := range ports {
		if p.Port == nil {
			continue
		}
		name := ""
		if p.Name != nil {
			name = *p.Name
		}
		if numbered && int(*p.Port) == number || !numbered && name == s.Port && name != "" || s.Port == "" && len(ports) == 1 {
			return strconv.Itoa(int(*p.Port)), nil
		}
		names = append(names, fmt.Sprintf("%q (%d)", name, *p.Port))
	}
	have := "none"
	if len(names) > 0 {
		have = strings.Join(names, ", ")
	}
	if s.Port == "" {
		return "", fmt.Errorf("the field Port must say which port is meant of those there are: %s", have)
	}
	return "", fmt.Errorf("no port %q: there is %s", s.Port, have)
}

// endpoints turns the candidates into endpoints, with zones, weights and Edit applied.
func (s *Source) endpoints(byName map[string]*candidate) (eps []balance.Endpoint, errs []error) {
	anyReady, hinted := false, true
	for _, c := range byName {
		anyReady = anyReady || c.state == ready
		hinted = hinted && (c.state != ready || len(c.hints) > 0)
	}
	eps = make([]balance.Endpoint, 0, len(byName))
	names := make(map[string]bool, len(byName))
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		c := byName[name]
		if c.state == gone {
			continue
		}
		e := c.endpoint
		if anyReady && hinted {
			e.Zone = hint(c.hints, e.Zone)
		}
		if s.Edit != nil {
			s.Edit(&e)
		}
		if c.state == draining && anyReady {
			e.Weight = -1
		}
		if err := e.Check(); err != nil {
			errs = append(errs, &SliceError{c.slice, err})
			continue
		}
		final := cmp.Or(e.Name, e.Addr) // Edit may have changed it
		if names[final] {
			errs = append(errs, &SliceError{c.slice, fmt.Errorf("%s: another endpoint has the name %q already", name, final)})
			continue
		}
		names[final] = true
		eps = append(eps, e)
	}
	slices.SortFunc(eps, func(a, b balance.Endpoint) int { return cmp.Compare(cmp.Or(a.Name, a.Addr), cmp.Or(b.Name, b.Addr)) })
	slices.SortFunc(errs, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	return eps, errs
}

// hint returns the zone that the hints assign an endpoint to: its own if that is among them.
func hint(hints []discovery.ForZone, own string) string {
	if len(hints) == 0 || slices.Contains(hints, discovery.ForZone{Name: own}) {
		return own
	}
	return hints[0].Name
}
