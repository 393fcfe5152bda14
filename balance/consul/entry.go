// SPDX-License-Identifier: Apache-2.0

package consul

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/penstock-lb/penstock/balance"
)

// endpoints returns the endpoints of all entries, by name, and what is wrong with the rest.
func (s *Source) endpoints(entries []*api.ServiceEntry) ([]balance.Endpoint, error) {
	var errs []error
	eps := make([]balance.Endpoint, 0, len(entries))
	names := make(map[string]bool, len(entries))
	entries = slices.DeleteFunc(entries, func(e *api.ServiceEntry) bool { return e == nil || e.Node == nil || e.Service == nil })
	slices.SortFunc(entries, func(a, b *api.ServiceEntry) int {
		return cmp.Or(cmp.Compare(a.Node.Node, b.Node.Node), cmp.Compare(a.Service.ID, b.Service.ID))
	})
	for _, entry := range entries {
		weight, ok := weight(entry)
		if !ok {
			continue
		}
		e := endpoint(entry)
		name := e.Name
		e.Weight = max(weight, 0)
		if s.Edit != nil {
			s.Edit(&e)
		}
		if weight < 0 {
			e.Weight = weight
		}
		if err := e.Check(); err != nil {
			errs = append(errs, &InstanceError{name, err})
			continue
		}
		// Slashes in names of nodes and ids can make two alike, and so can Edit.
		final := cmp.Or(e.Name, e.Addr)
		if names[final] {
			errs = append(errs, &InstanceError{name, fmt.Errorf("another one has the name %q already", final)})
			continue
		}
		names[final] = true
		eps = append(eps, e)
	}
	slices.SortFunc(eps, func(a, b balance.Endpoint) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(errs, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	return eps, errors.Join(errs...)
}

// weight returns the weight of an instance by its checks and those of its node, -1 for
// persistent traffic only, or that it is critical.
func weight(entry *api.ServiceEntry) (weight int, ok bool) {
	maintained, warning := false, false
	for _, c := range entry.Checks {
		switch {
		case c.CheckID == api.NodeMaint || strings.HasPrefix(c.CheckID, api.ServiceMaintPrefix):
			maintained = true
		case c.Status == api.HealthPassing:
		case c.Status == api.HealthWarning:
			warning = true
		default:
			return 0, false
		}
	}
	w := entry.Service.Weights
	switch {
	case maintained:
		return -1, true
	case w == api.AgentWeights{}: // Consul before 1.2.3 has none
		return 1, true
	case warning:
		return cmp.Or(w.Warning, -1), true
	}
	return cmp.Or(w.Passing, -1), true
}

// endpoint returns what an entry says but for its weight.
func endpoint(entry *api.ServiceEntry) balance.Endpoint {
	service, node := entry.Service, entry.Node
	e := balance.Endpoint{Name: node.Node + "/" + service.ID, Labels: map[string]string{"node": node.Node}}
	if service.SocketPath != "" {
		e.Addr = "unix:" + service.SocketPath
	} else {
		e.Addr = net.JoinHostPort(cmp.Or(service.Address, node.Address), strconv.Itoa(service.Port))
	}
	if node.Datacenter != "" {
		e.Labels["datacenter"] = node.Datacenter
	}
	if len(service.Tags) > 0 {
		e.Labels["tags"] = strings.Join(service.Tags, ",")
	}
	maps.Copy(e.Labels, service.Meta)
	e.Zone = cmp.Or(zone(service.Locality), zone(node.Locality), service.Meta["zone"], node.Meta["zone"])
	return e
}

func zone(l *api.Locality) string {
	if l == nil {
		return ""
	}
	return l.Zone
}
