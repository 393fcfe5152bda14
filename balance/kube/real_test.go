// SPDX-License-Identifier: Apache-2.0

package kube_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/balance/kube"
)

// A real API server: the account has no rights, then gets them; 1000 endpoints in 11 slices
// are added and removed; API server and etcd are killed, and restarted.
func TestWithKubernetes(t *testing.T) {
	c := start(t)
	c.namespace()
	token := c.account()
	for _, kind := range []string{"Deployment", "Service"} {
		c.apply(kind) // the rest of the manifest is valid, too
	}
	f := &followed{Pool: &balance.Pool{AllowEmpty: true}}
	f.OnEvent = func(e balance.Event) {
		if e.Kind == balance.SourceFailed {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.failed = append(f.failed, e.Reason)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- f.Follow(ctx, &kube.Source{Client: c.client(token), Namespace: "shop", Service: "web", Port: "http"})
	}()
	defer func() {
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
	}()
	require.True(t, eventually(func() bool { st, _ := f.SourceState(); return apierrors.IsForbidden(st.Err) }))
	c.rights()
	require.True(t, eventually(func() bool { st, _ := f.SourceState(); return !apierrors.IsForbidden(st.Err) }))

	admin := c.client("admin").EndpointSlices("shop")
	const slicesOf, pods = 11, 1000
	rng := rand.New(rand.NewPCG(1, 2))
	in, state := make([]int, pods), make([]string, pods)
	put := func(k int) {
		var eps []string
		for p := range in {
			if in[p] == k {
				eps = append(eps, fmt.Sprintf("pod-%d 10.0.%d.%d %s", p, p/250, 1+p%250, state[p]))
			}
		}
		s := slice(fmt.Sprintf("web-%d", k), eps...)
		tcp := core.ProtocolTCP
		s.Ports[0].Protocol = &tcp
		_, err := admin.Update(ctx, s, meta.UpdateOptions{})
		if apierrors.IsNotFound(err) {
			_, err = admin.Create(ctx, s, meta.CreateOptions{})
		}
		require.NoError(t, err)
	}
	want := func() string {
		var all []string
		for p := range in {
			if in[p] >= 0 && state[p] != "gone" {
				text := fmt.Sprintf("pod-%d=10.0.%d.%d:8080", p, p/250, 1+p%250)
				if state[p] == "drain" {
					text += "*"
				}
				all = append(all, text)
			}
		}
		sort.Slice(all, func(i, j int) bool { return name(all[i]) < name(all[j]) })
		return strings.Join(all, " ")
	}
	churn := func(n int) {
		for range n {
			touched := map[int]bool{}
			for range 40 {
				p := rng.IntN(pods)
				touched[in[p]] = true
				in[p], state[p] = rng.IntN(slicesOf), []string{"ready", "drain", "gone"}[rng.IntN(3)]
				touched[in[p]] = true
			}
			for k := range touched {
				put(k)
			}
		}
	}
	for p := range in {
		in[p], state[p] = p%slicesOf, "ready"
	}
	for k := range slicesOf {
		put(k)
	}
	f.becomes(t, want())
	churn(5)
	begin := time.Now()
	f.becomes(t, want())
	t.Logf("the last change of 5 x 40 was followed within %v", time.Since(begin).Round(time.Millisecond))

	c.kill()
	down := time.Now()
	require.True(t, eventually(func() bool { st, _ := f.SourceState(); return st.Err != nil }))
	st, _ := f.SourceState()
	t.Logf("the outage was told after %v: %v", time.Since(down).Round(time.Millisecond), st.Err)
	time.Sleep(5 * time.Second)
	require.Equal(t, want(), f.servers())
	c.up()
	up := time.Now()
	churn(1)
	f.becomes(t, want())
	require.True(t, eventually(func() bool { st, _ := f.SourceState(); return st.Err == nil }))
	t.Logf("a change after it was followed %v after the API server was ready", time.Since(up).Round(time.Millisecond))

	for k := range slicesOf {
		require.NoError(t, admin.Delete(ctx, fmt.Sprintf("web-%d", k), meta.DeleteOptions{}))
	}
	f.becomes(t, "")
}
