// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"strconv"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// A name server that answers with thousands of aliases, in the worst order or in
// a circle, costs in proportion to their number.
func TestAliasesCostLinearTime(t *testing.T) {
	q, err := newQuestion("a0.test", dnsmessage.TypeA)
	if err != nil {
		t.Fatal(err)
	}
	cost := func(n int) time.Duration {
		all := make([]dnsmessage.Resource, n)
		for i := range all { // the alias of the name asked for comes last
			all[n-1-i] = alias("a"+strconv.Itoa(i)+".test.", "a"+strconv.Itoa((i+1)%n)+".test.")
		}
		best := time.Hour
		for range 5 {
			start := cpuTime()
			if ans := q.follow(all); len(ans.records) != 0 {
				t.Fatal("a circle has records")
			}
			best = min(best, cpuTime()-start)
		}
		return best
	}
	if small, large := cost(250), cost(2000); large > 24*small { // quadratic would be 64 times
		t.Errorf("250 aliases cost %v, 2000 cost %v", small, large)
	}
}

func alias(name, target string) dnsmessage.Resource {
	return dnsmessage.Resource{
		Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(name), Type: dnsmessage.TypeCNAME},
		Body:   &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName(target)},
	}
}
