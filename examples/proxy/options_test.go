// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestOptions(t *testing.T) {
	o, err := ParseOptions(strings.Fields("-http :8080 -tcp 127.0.0.1:9000 -balance leastconn -check-path /up -check-interval 5s -timeout 3s -to a:1 -to unix:/run/b -to h2c://a:1 -to HTTPS://b:443/ -insecure"), &strings.Builder{})
	require.NoError(t, err)
	require.Equal(t, ":8080", o.HTTP)
	require.Equal(t, 5*time.Second, o.CheckInterval)
	var names []string
	for _, e := range o.Endpoints() {
		names = append(names, e.Labels["scheme"]+" "+e.Addr+" "+e.Name)
	}
	require.Equal(t, []string{"http a:1 ", "http unix:/run/b ", "h2c a:1 a:1#2", "https b:443 "}, names)
}

func TestOptionsSayWhatIsWrong(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"-to a:1", "at least one of -http, -tls, -tcp and -udp"},
		{"-http :80", "at least one -to"},
		{"-http :80 -to a", `invalid value "a" for flag -to: want HOST:PORT`},
		{"-http :80 -to :80", "want HOST:PORT"},
		{"-http :80 -to ftp://a:1", "want HOST:PORT"},
		{"-http :80 -to http://a:1/path", "want HOST:PORT"},
		{"-http :80 -to https://a", "want HOST:PORT"},
		{"-http :80 -to unix:", "want HOST:PORT"},
		{"-http :80 -to h2c://a:1 -insecure", "-ca and -insecure are of no use"},
		{"-http :80 -to a:1 -ca none", "-ca and -insecure are of no use"},
		{"-http :80 -to https://a:1 -ca none", "-ca: open none"},
		{"-http :80 -to https://a:1 -ca options.go", "no certificate"},
		{"-http :80 -to https://a:1 -ca none -insecure", "-ca is of no use"},
		{"-http 80 -to a:1", `-http "80": want HOST:PORT`},
		{"-tcp x -to a:1", `-tcp "x"`},
		{"-tls :443 -cert c -to a:1", "-tls needs -cert and -key"},
		{"-tls :443 -cert none -key none -to a:1", `-cert "none"`},
		{"-http :80 -key k -to a:1", "without -tls"},
		{"-http :80 -balance best -to a:1", `-balance "best": want roundrobin|leastconn|`},
		{"-http :80 -front fast -to a:1", `-front "fast": want byte or standard`},
		{"-http :80 -check-path up -to a:1", "begins with /"},
		{"-http :80 -check-interval -1s -to a:1", "-check-interval -1s"},
		{"-http :80 -timeout soon -to a:1", `"soon" for flag -timeout`},
		{"-http :80 -timeout -3s -to a:1", "-timeout -3s"},
		{"-http :80 -to a:1 b:1", `unexpected argument "b:1"`},
		{"-http :80 -to a:1 -from options.go", "-to is of no use with -from"},
		{"-http :80 -from none", `-from "none": open none`},
		{"-http :80 -from options.go", `-from "options.go": line 1: `},
		{"-http :80 -from " + os.DevNull, "no server in it"},
		{"-htpp :80", "not defined: -htpp"},
	} {
		var said strings.Builder
		_, err := ParseOptions(strings.Fields(c.args), &said)
		require.Error(t, err, c.args)
		require.Contains(t, said.String(), c.want, c.args)
	}
	_, err := ParseOptions([]string{"-h"}, &strings.Builder{})
	require.ErrorIs(t, err, flag.ErrHelp)
}

func TestEveryPolicyHasAName(t *testing.T) {
	for name := range strings.SplitSeq(policyNames, "|") {
		p, _ := policyOf(name)
		require.NotNil(t, p, name)
	}
	p, _ := policyOf("none")
	require.Nil(t, p)
}
