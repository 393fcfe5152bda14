// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestMain lets the test binary be the gateways and servers that the trial starts.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == "gateway" || os.Args[1] == "server") {
		if err := run(context.Background(), os.Args[1:]); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestFleet kills two servers, each gateway, Redis and etcd in turn, under load.
func TestFleet(t *testing.T) {
	for _, engine := range []string{"redis-server", "etcd"} {
		if _, err := exec.LookPath(engine); err != nil {
			t.Skip("no " + engine + " here")
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 170*time.Second)
	defer cancel()
	r, err := try(ctx, true)
	require.NoError(t, err)
	t.Log("\n" + r.String())
	require.NoError(t, r.wrong())
	for _, s := range r.settled {
		require.Less(t, max(s.killed, s.back), 30*time.Second, s.what)
	}
}

func TestArguments(t *testing.T) {
	require.ErrorContains(t, run(t.Context(), nil), "want gateway, server or try")
	require.ErrorContains(t, run(t.Context(), []string{"other"}), "none of")
	require.Error(t, run(t.Context(), []string{"gateway", "-http", "127.0.0.1:x"}))
}
