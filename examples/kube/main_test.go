// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	core "k8s.io/api/core/v1"
	api "k8s.io/api/discovery/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"
	fakediscovery "k8s.io/client-go/kubernetes/typed/discovery/v1/fake"
	clienttest "k8s.io/client-go/testing"
)

// A fake is client-go's of the API server.
type fake struct {
	fakediscovery.FakeDiscoveryV1
	tracker clienttest.ObjectTracker
}

// IsWatchListSemanticsUnSupported says that this is a fake.
func (*fake) IsWatchListSemanticsUnSupported() bool { return true }

func newFake() *fake {
	scheme := runtime.NewScheme()
	if err := api.AddToScheme(scheme); err != nil {
		panic(err)
	}
	f := &fake{tracker: clienttest.NewObjectTracker(scheme, serializer.NewCodecFactory(scheme).UniversalDecoder())}
	f.FakeDiscoveryV1.Fake = new(clienttest.Fake)
	f.AddReactor("*", "*", clienttest.ObjectReaction(f.tracker))
	f.AddWatchReactor("*", func(a clienttest.Action) (bool, watch.Interface, error) {
		w, err := f.tracker.Watch(a.GetResource(), a.GetNamespace())
		return true, w, err
	})
	return f
}

func TestGateway(t *testing.T) {
	f := newFake()
	slice := &api.EndpointSlice{ObjectMeta: meta.ObjectMeta{Name: "web-1", Namespace: "shop", Labels: map[string]string{api.LabelServiceName: "web"}}}
	for i := range 2 { // a slice has one port for all, so here it is one of each
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, i) }))
		defer s.Close()
		addr := s.Listener.Addr().(*net.TCPAddr)
		port, name := int32(addr.Port), "http"
		one := slice.DeepCopy()
		one.Name = fmt.Sprint("web-", i)
		one.Ports = []api.EndpointPort{{Name: &name, Port: &port}}
		one.Endpoints = []api.Endpoint{{Addresses: []string{addr.IP.String()}, TargetRef: &core.ObjectReference{Kind: "Pod", Name: fmt.Sprint("pod-", i)}}}
		require.NoError(t, f.tracker.Add(one))
	}
	front, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	page, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- (&Gateway{API: f, Namespace: "shop", Service: "web", Port: "http", Zone: "east"}).Run(ctx, front, page)
	}()
	get := func(ln net.Listener, path string) (int, string) {
		res, err := http.Get("http://" + ln.Addr().String() + path)
		if err != nil {
			return 0, ""
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(body)
	}
	require.Eventually(t, func() bool { status, _ := get(page, "/ready"); return status == http.StatusOK }, 10*time.Second, 10*time.Millisecond)
	seen := map[string]bool{}
	require.Eventually(t, func() bool {
		_, body := get(front, "/")
		seen[body] = true
		return len(seen) == 2
	}, 10*time.Second, time.Millisecond)
	_, body := get(page, "/")
	require.Contains(t, body, "pod-1")
	cancel()
	require.NoError(t, <-ended)
}
