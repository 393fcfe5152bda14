// SPDX-License-Identifier: Apache-2.0

package kube_test

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/watch"
	client "k8s.io/client-go/kubernetes/typed/discovery/v1"
	fakediscovery "k8s.io/client-go/kubernetes/typed/discovery/v1/fake"
	clienttest "k8s.io/client-go/testing"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/balance/kube"
)

// TestMain removes client-go's error handlers: one waits until a millisecond has passed since
// the last error, which in a synctest bubble is decades in the future.
func TestMain(m *testing.M) {
	utilruntime.ErrorHandlers = nil
	m.Run()
}

var errDown = fmt.Errorf("the API server is away: %w", syscall.ECONNREFUSED)

// An api is client-go's fake, which a test can take down, and whose watch events a test
// can make.
type api struct {
	fakediscovery.FakeDiscoveryV1
	tracker clienttest.ObjectTracker
	streams bool // the first list comes by a watch

	mu      sync.Mutex
	down    bool
	watcher *watch.RaceFreeFakeWatcher // the last one
	asked   int
}

func newAPI() *api {
	scheme := runtime.NewScheme()
	if err := discovery.AddToScheme(scheme); err != nil {
		panic(err)
	}
	a := &api{tracker: clienttest.NewObjectTracker(scheme, serializer.NewCodecFactory(scheme).UniversalDecoder())}
	a.FakeDiscoveryV1.Fake = new(clienttest.Fake)
	a.AddReactor("list", "*", func(action clienttest.Action) (bool, runtime.Object, error) {
		if err := a.ask(); err != nil {
			return true, nil, err
		}
		return clienttest.ObjectReaction(a.tracker)(action)
	})
	a.AddWatchReactor("*", func(action clienttest.Action) (bool, watch.Interface, error) {
		if err := a.ask(); err != nil {
			return true, nil, err
		}
		w, err := a.tracker.Watch(action.GetResource(), action.GetNamespace())
		a.mu.Lock()
		defer a.mu.Unlock()
		a.watcher, _ = w.(*watch.RaceFreeFakeWatcher)
		return true, w, err
	})
	return a
}

// IsWatchListSemanticsUnSupported says whether reflectors are to list, which they need not if
// streams is set.
func (a *api) IsWatchListSemanticsUnSupported() bool { return !a.streams }

var _ client.EndpointSlicesGetter = (*api)(nil)

func (a *api) ask() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked++
	if a.down {
		return &url.Error{Op: "Get", URL: fmt.Sprintf("https://api/?timeoutSeconds=%d", a.asked), Err: errDown}
	}
	return nil
}

// say sends an event to the watch.
func (a *api) say(what watch.EventType, s *discovery.EndpointSlice) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.watcher.Action(what, s)
}

// setDown takes the API server down, with its watch, or brings it back.
func (a *api) setDown(down bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.down = down
	if down && a.watcher != nil {
		a.watcher.Stop()
	}
}

var resource = discovery.SchemeGroupVersion.WithResource("endpointslices")

// put creates or replaces slices.
func (a *api) put(t *testing.T, all ...*discovery.EndpointSlice) {
	t.Helper()
	for _, s := range all {
		if a.tracker.Update(resource, s, "shop") != nil {
			require.NoError(t, a.tracker.Create(resource, s, "shop"))
		}
	}
}

func (a *api) remove(t *testing.T, name string) {
	t.Helper()
	require.NoError(t, a.tracker.Delete(resource, "shop", name))
}

// slice makes an EndpointSlice of the Service web with a port "http", 8080. An endpoint is
// "pod address", or "- address" without a pod; conditions follow: drain, gone, and
// zone=z, node=n, for=z1+z2.
func slice(name string, endpoints ...string) *discovery.EndpointSlice {
	port, portName := int32(8080), "http"
	s := &discovery.EndpointSlice{
		ObjectMeta:  meta.ObjectMeta{Name: name, Namespace: "shop", Labels: map[string]string{discovery.LabelServiceName: "web"}},
		AddressType: discovery.AddressTypeIPv4,
		Ports:       []discovery.EndpointPort{{Name: &portName, Port: &port}},
	}
	for _, text := range endpoints {
		f := strings.Fields(text)
		e := discovery.Endpoint{Addresses: []string{f[1]}}
		if f[0] != "-" {
			e.TargetRef = &core.ObjectReference{Kind: "Pod", Name: f[0]}
		}
		for _, what := range f[2:] {
			yes, no := true, false
			key, value, _ := strings.Cut(what, "=")
			switch key {
			case "ready":
				e.Conditions = discovery.EndpointConditions{Ready: &yes, Serving: &yes, Terminating: &no}
			case "drain":
				e.Conditions = discovery.EndpointConditions{Ready: &no, Serving: &yes, Terminating: &yes}
			case "gone":
				e.Conditions = discovery.EndpointConditions{Ready: &no, Serving: &no}
			case "zone":
				e.Zone = &value
			case "node":
				e.NodeName = &value
			case "for":
				e.Hints = new(discovery.EndpointHints)
				for _, z := range strings.Split(value, "+") {
					e.Hints.ForZones = append(e.Hints.ForZones, discovery.ForZone{Name: z})
				}
			}
		}
		s.Endpoints = append(s.Endpoints, e)
		if strings.Contains(f[1], ":") {
			s.AddressType = discovery.AddressTypeIPv6
		}
	}
	return s
}

// A followed pool, with the failures that were reported to it.
type followed struct {
	*balance.Pool

	mu     sync.Mutex
	failed []string
}

func follow(t *testing.T, src *kube.Source) *followed {
	t.Helper()
	if src.Namespace == "" {
		src.Namespace, src.Service = "shop", "web"
	}
	f := &followed{}
	f.Pool = &balance.Pool{AllowEmpty: true, OnEvent: func(e balance.Event) {
		if e.Kind == balance.SourceFailed {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.failed = append(f.failed, e.Reason)
		}
	}}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- f.Follow(ctx, src) }()
	t.Cleanup(func() {
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
	})
	settle()
	return f
}

// settle waits until changes have been reported.
func settle() {
	time.Sleep(50 * time.Millisecond)
	synctest.Wait()
}

// servers lists each server as name=address, with * if it gets persistent traffic only, and
// @zone.
func (f *followed) servers() string {
	var all []string
	for s := range f.All() {
		e := s.Endpoint()
		text := fmt.Sprintf("%s=%s", s.Name(), s.Addr())
		if e.Weight < 0 {
			text += "*"
		}
		if e.Zone != "" {
			text += "@" + e.Zone
		}
		all = append(all, text)
	}
	return strings.Join(all, " ")
}

func (f *followed) failures() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed
}
