// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"cmp"
	"slices"
)

// Locality prefers the servers of the caller's own zone, as far as they can carry it.
// With all callers alike, each zone's servers get Share of the load if they are that
// share of the weight. If the own zone has less than its share, that part is served
// locally, and the rest goes to zones with more than their share, in proportion to
// their surplus. (Envoy, "Zone aware routing".)
type Locality struct {
	Zone       string  // of this process; empty means that zones do not count
	Share      float64 // part of all callers that are in Zone; 0 means one divided by the number of zones
	MinServers int     // with fewer usable servers in the tier zones do not count; 0 means 6, negative means none
}

// split divides the share of a tier over the zones of its servers.
func (l Locality) split(tier int, servers []*Server, share float64) []part {
	whole := []part{{tier: tier, servers: servers, share: share}}
	least := l.MinServers
	if least == 0 {
		least = 6
	}
	if l.Zone == "" || len(servers) < least {
		return whole
	}
	type zone struct {
		name    string
		servers []*Server
		weight  float64
	}
	var zones []zone
	var total float64
	for _, s := range servers {
		name := s.ep.Load().Zone
		i := slices.IndexFunc(zones, func(z zone) bool { return z.name == name })
		if i < 0 {
			i = len(zones)
			zones = append(zones, zone{name: name})
		}
		z := &zones[i]
		z.servers = append(z.servers, s)
		z.weight += float64(s.status.weight)
		total += float64(s.status.weight)
	}
	slices.SortFunc(zones, func(a, b zone) int { // own zone first, then by name
		if a.name == l.Zone || b.name == l.Zone {
			return cmp.Compare(b2i(b.name == l.Zone), b2i(a.name == l.Zone))
		}
		return cmp.Compare(a.name, b.name)
	})
	if len(zones) < 2 || zones[0].name != l.Zone {
		return whole
	}
	even := 1 / float64(len(zones))
	callers := l.Share
	if callers == 0 {
		callers = even
	}
	local := min(1, zones[0].weight/total/callers)
	others := (1 - callers) / float64(len(zones)-1)
	var spare float64
	for _, z := range zones[1:] {
		spare += max(0, z.weight/total-others)
	}
	parts := []part{{tier: tier, servers: zones[0].servers, share: share * local}}
	for _, z := range zones[1:] {
		p := part{tier: tier, servers: z.servers}
		if spare > 0 {
			p.share = share * (1 - local) * max(0, z.weight/total-others) / spare
		}
		parts = append(parts, p)
	}
	return parts
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
