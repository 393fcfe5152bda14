// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/go-logr/logr"
	discovery "k8s.io/api/discovery/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	client "k8s.io/client-go/kubernetes/typed/discovery/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/balance"
)

// A Source is a [balance.Source] of the endpoints of a Service. Its fields must not change
// once Watch is called.
//
// All EndpointSlices of the Service are merged. An endpoint that is ready serves. One that is
// serving but not ready, because its pod terminates, has a Weight of -1: it keeps its
// persistent traffic and gets no other. The rest are left out. If no endpoint is ready,
// those that terminate get all traffic, as with kube-proxy. (KEP-1669, "Proxy Terminating
// Endpoints".)
//
// The name of an endpoint is that of its pod, so a pod that has two addresses, or is in two
// slices for a moment, is one server. Without a pod it is the address. Labels are "pod",
// "node", "hostname" and "zone", as far as they are known. Zone is the zone of the endpoint,
// or, if all endpoints that are ready have hints for topology aware routing, the zone of its
// hint.
//
// While the API server cannot be reached, the last good set stays, without a time limit:
// [balance.Pool.SourceState] says how old it is, to about a minute, since an API server sends
// a bookmark that often. Attempts to reach it begin half a second to a second apart and end
// 5 to 10 s apart. A pod that ends meanwhile fails requests, so a proxy should retry, and
// pods should keep serving for a while before they end (preStop).
//
// A slice or an endpoint that cannot be used is reported as a *[SliceError], and the others
// are used.
type Source struct {
	Client    client.EndpointSlicesGetter // such as Clientset.DiscoveryV1()
	Namespace string                      // of the Service
	Service   string                      // its name; it may be headless
	Port      string                      // its name in the Service, or its number in the pods; empty means the only one there is
	Network   string                      // "ip4" or "ip6" for addresses of one family; empty means "ip": both, and the IPv4 address of a pod that has both

	Edit func(*balance.Endpoint) // may change each endpoint before it is used, except the Weight of one that terminates; nil means none
}

// A SliceError says that something of an EndpointSlice cannot be used.
type SliceError struct {
	Slice string // its name
	Err   error
}

func (e *SliceError) Error() string { return fmt.Sprintf("kube: EndpointSlice %s: %v", e.Slice, e.Err) }

// Unwrap returns Err.
func (e *SliceError) Unwrap() error { return e.Err }

// ErrNoSlices means that the Service has no EndpointSlice, most likely because there is no
// Service of that name.
var ErrNoSlices = errors.New("kube: no EndpointSlices")

// Check returns what is wrong with s, each a [*penstock.ConfigError]. [Source.Watch] calls it.
func (s *Source) Check() error {
	var m penstock.Mistakes
	m.Need("Source.Client", s.Client, "must be a client of the API server, such as Clientset.DiscoveryV1()")
	m.If(len(validation.IsDNS1123Label(s.Namespace)) > 0, "Source.Namespace", s.Namespace, "must be the name of a namespace")
	m.If(len(validation.IsDNS1123Label(s.Service)) > 0, "Source.Service", s.Service, "must be the name of a Service")
	n, err := strconv.Atoi(s.Port)
	m.If(err == nil && (n <= 0 || n > 65535), "Source.Port", s.Port, "must be a port from 1 to 65535, or the name of one")
	m.If(err != nil && s.Port != "" && len(validation.IsDNS1123Label(s.Port)) > 0, "Source.Port", s.Port, "must be a port from 1 to 65535, or the name of one")
	m.If(s.Network != "" && s.Network != "ip" && s.Network != "ip4" && s.Network != "ip6", "Source.Network", s.Network, `must be "ip", "ip4" or "ip6"`)
	return m.Err()
}

// gather is how long changes are collected before they are reported. One change of a
// Service changes several slices, and policies build new pickers for each reported set.
const gather = 20 * time.Millisecond

// Watch implements [balance.Source]. It returns the error of Check at once, or else when ctx
// ends.
func (s *Source) Watch(ctx context.Context, update func([]balance.Endpoint, error)) error {
	if err := s.Check(); err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m := &mirror{slices: make(map[string]*discovery.EndpointSlice), wake: make(chan struct{}, 1)}
	quiet := klog.New(logr.Discard().GetSink()) // failures are reported by update
	reflector := cache.NewReflectorWithOptions(s.listWatch(m), &discovery.EndpointSlice{}, m,
		cache.ReflectorOptions{Name: "penstock " + s.Namespace + "/" + s.Service, Logger: &quiet, Backoff: backoff()})
	wg.Go(func() { reflector.RunWithContext(klog.NewContext(ctx, quiet)) })
	w := watcher{Source: s, update: update}
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-m.wake:
		}
		if !sleep(ctx, gather) {
			return context.Cause(ctx)
		}
		w.tell(m.take())
	}
}

// backoff is how long a reflector waits after failures: a sixth of its default, as there are
// few gateways, and pods end without waiting for them.
func backoff() *wait.Backoff {
	return &wait.Backoff{Duration: 500 * time.Millisecond, Cap: 5 * time.Second, Steps: 10, Factor: 2, Jitter: 1}
}

// listWatch asks for the slices of the Service, and notes failure and success in m.
func (s *Source) listWatch(m *mirror) cache.ListerWatcher {
	api := s.Client.EndpointSlices(s.Namespace)
	selector := discovery.LabelServiceName + "=" + s.Service
	fail := func(err error) error {
		if urlErr := (*url.Error)(nil); errors.As(err, &urlErr) {
			err = urlErr.Err // without the URL, which differs each time
		}
		return fmt.Errorf("kube: EndpointSlices of %s/%s: %w", s.Namespace, s.Service, err)
	}
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o meta.ListOptions) (runtime.Object, error) {
			o.LabelSelector = selector
			list, err := api.List(ctx, o)
			if err != nil && ctx.Err() == nil {
				m.failed(fail(err))
			}
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, o meta.ListOptions) (watch.Interface, error) {
			o.LabelSelector = selector
			w, err := api.Watch(ctx, o)
			switch {
			case err == nil:
				m.works()
			case ctx.Err() == nil:
				m.failed(fail(err))
				err = &relistError{err}
			}
			return w, err
		},
	}
	if isFake(s.Client) {
		return cache.ToListWatcherWithWatchListSemantics(lw, noStreams{})
	}
	return cache.ToListWatcherWithWatchListSemantics(lw, s.Client)
}

// isFake reports whether c is client-go's fake, whose watches never say that a list is
// complete, so that a reflector would wait for ever. A fake Clientset has a method for that,
// but its DiscoveryV1 has not; it is recognised by its lack of a REST client.
func isFake(c client.EndpointSlicesGetter) bool {
	if _, ok := c.(interface{ IsWatchListSemanticsUnSupported() bool }); ok {
		return false // reflectors ask this method
	}
	typed, ok := c.(client.DiscoveryV1Interface)
	if !ok {
		return false
	}
	r, ok := typed.RESTClient().(*rest.RESTClient)
	return ok && r == nil
}

// noStreams makes a reflector list, and not expect the list from a watch.
type noStreams struct{}

// IsWatchListSemanticsUnSupported is the method that a reflector looks for.
func (noStreams) IsWatchListSemanticsUnSupported() bool { return true }

// A relistError hides why a watch could not begin, so that the reflector lists again. If it
// saw that the connection was refused, it would try to watch from the same version again. A
// restarted API server accepts that watch and only then reports that the version is too old;
// while the reflector waits after that, an old set would look like a fresh one.
type relistError struct{ err error }

func (e *relistError) Error() string { return e.err.Error() }

// A watcher reports the sets and failures of one Watch.
type watcher struct {
	*Source

	update func([]balance.Endpoint, error)
	told   []balance.Endpoint
	wrong  string // the mistakes in it that were reported; empty if there were none
	failed string // the last failure reported since then
}

// tell reports the set of all slices, if it is known, and then the failure, if there is one.
// It reports an unchanged set again, so that the pool knows its age; but not one that has a
// mistake or is empty, since pools report that as an error.
func (w *watcher) tell(all []*discovery.EndpointSlice, known bool, failure error) {
	if known {
		eps, err := w.merge(all)
		wrong := ""
		if err != nil {
			wrong = err.Error()
		}
		confirmed := wrong == "" && len(eps) > 0
		if confirmed || wrong != w.wrong || !reflect.DeepEqual(eps, w.told) || w.failed != "" {
			w.told, w.wrong, w.failed = eps, wrong, ""
			w.update(slices.Clone(eps), nil)
			if err != nil {
				w.update(nil, err)
			}
		}
	}
	if failure != nil && failure.Error() != w.failed {
		w.failed = failure.Error()
		w.update(nil, failure)
	}
}

// sleep waits for d, and returns false if ctx ends before.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
