// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"cmp"
	"context"
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/penstock-lb/penstock/balance"
)

// weightScale leaves room to divide the weight of a target among its addresses.
const weightScale = 12

// services makes endpoints of the SRV records: the priority becomes the tier, lowest
// first, and the weight is divided among the addresses of the target. A weight of 0
// becomes as small as can be (RFC 2782). A target whose address is not to be found is
// left out, unless none is to be found.
func (s *Source) services(ctx context.Context, c *client) ([]balance.Endpoint, time.Duration, error) {
	name := s.service()
	ans, err := c.ask(ctx, name, dnsmessage.TypeSRV)
	if err != nil {
		return nil, 0, err
	}
	var records []*dnsmessage.SRVResource
	var priorities []uint16
	for _, r := range ans.records {
		// A target of "." says that there is no such service here.
		if srv, ok := r.(*dnsmessage.SRVResource); ok && srv.Target.String() != "." {
			records = append(records, srv)
			priorities = append(priorities, srv.Priority)
		}
	}
	slices.Sort(priorities)
	priorities = slices.Compact(priorities)

	var eps []balance.Endpoint
	var errs error
	ttl := ans.ttl
	seen := make(map[string]bool)
	for _, r := range records {
		target := r.Target.String()
		addrs, addrTTL, err := c.addresses(ctx, target, s.Network)
		if err != nil {
			errs = errors.Join(errs, err)
			// Ask again soon: the rest of the servers is overloaded.
			ttl = min(ttl, or(s.Retry, 5*time.Second))
			continue
		}
		ttl = min(ttl, addrTTL)
		tier, _ := slices.BinarySearch(priorities, r.Priority)
		for _, a := range addrs {
			addr := net.JoinHostPort(a.String(), strconv.Itoa(int(r.Port)))
			if seen[addr] {
				continue
			}
			seen[addr] = true
			eps = append(eps, balance.Endpoint{
				Addr:   addr,
				Weight: min(max(1, int(r.Weight)*weightScale/len(addrs)), balance.MaxWeight),
				Tier:   tier,
				Labels: map[string]string{"target": strings.TrimSuffix(target, ".")},
			})
		}
	}
	if len(eps) == 0 {
		return nil, 0, cmp.Or(errs, ErrNoName)
	}
	// The order of an answer is random; that of a set should not be.
	slices.SortFunc(eps, func(a, b balance.Endpoint) int {
		return cmp.Or(cmp.Compare(a.Tier, b.Tier), cmp.Compare(a.Addr, b.Addr))
	})
	return eps, ttl, nil
}
