// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"
)

func TestParseServers(t *testing.T) {
	servers, err := parseServers(strings.NewReader("# comment\nsearch example\nnameserver 10.0.0.1\nnameserver\nnameserver fe80::1%eth0\n"))
	require.NoError(t, err)
	require.Equal(t, []string{"10.0.0.1:53", "[fe80::1%eth0]:53"}, servers)
	_, err = parseServers(strings.NewReader("search example\n"))
	require.Error(t, err)
}

// FuzzParse feeds messages from a hostile name server.
func FuzzParse(f *testing.F) {
	q, err := newQuestion("a.example", dnsmessage.TypeA)
	require.NoError(f, err)
	q.id = 1
	name := dnsmessage.MustNewName("a.example.")
	header := func(kind dnsmessage.Type) dnsmessage.ResourceHeader {
		return dnsmessage.ResourceHeader{Name: name, Type: kind, Class: dnsmessage.ClassINET, TTL: 1}
	}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 1, Response: true},
		Questions: []dnsmessage.Question{{Name: name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
		Answers: []dnsmessage.Resource{
			{Header: header(dnsmessage.TypeCNAME), Body: &dnsmessage.CNAMEResource{CNAME: name}}, // an alias of itself
			{Header: header(dnsmessage.TypeA), Body: &dnsmessage.AResource{A: [4]byte{10, 0, 0, 1}}},
		},
	}
	msg, err := m.Pack()
	require.NoError(f, err)
	f.Add(msg)
	f.Add(q.packed)
	f.Fuzz(func(t *testing.T, msg []byte) {
		ans, truncated, err := q.parse(msg)
		if err == nil && !truncated && (len(ans.records) == 0 || ans.ttl < 0) {
			t.Errorf("parse accepts a message without records: %+v", ans)
		}
	})
}
