// SPDX-License-Identifier: Apache-2.0

package kube_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sort"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	discovery "k8s.io/api/discovery/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/balance/kube"
)

func TestConditionsAreStates(t *testing.T) {
	yes, no := true, false
	for _, test := range []struct {
		ready, serving, terminating *bool
		want                        string // beside a server that is ready
	}{
		{nil, nil, nil, "a=10.0.0.1:8080"},
		{&yes, &yes, &no, "a=10.0.0.1:8080"},
		{&yes, &no, &no, "a=10.0.0.1:8080"},   // publishNotReadyAddresses
		{&no, &yes, &yes, "a=10.0.0.1:8080*"}, // terminates, and serves still
		{&no, nil, &yes, "a=10.0.0.1:8080*"},  // the same
		{&no, &yes, &no, "a=10.0.0.1:8080*"},  // not by Kubernetes' own controller
		{&no, &no, &yes, ""},                  // terminates, and no longer serves
		{&no, &no, &no, ""},                   // not ready yet, or no longer
		{&no, &no, nil, ""},                   //
	} {
		synctest.Test(t, func(t *testing.T) {
			s := slice("web-1", "a 10.0.0.1", "z 10.0.0.9")
			s.Endpoints[0].Conditions = discovery.EndpointConditions{Ready: test.ready, Serving: test.serving, Terminating: test.terminating}
			a := newAPI()
			a.put(t, s)
			f := follow(t, &kube.Source{Client: a})
			require.Equal(t, strings.TrimSpace(test.want+" z=10.0.0.9:8080"), f.servers())
			require.Empty(t, f.failures())
		})
	}
}

// A rollout of a single pod, or of all at once, leaves those that terminate.
func TestTerminatingServersServeIfNoOtherDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI()
		a.put(t, slice("web-1", "a 10.0.0.1 drain", "b 10.0.0.2 drain"), slice("web-2", "c 10.0.0.3 gone"))
		f := follow(t, &kube.Source{Client: a, Edit: func(e *balance.Endpoint) { e.Weight = 5 }})
		require.Equal(t, "a=10.0.0.1:8080 b=10.0.0.2:8080", f.servers())
		require.Equal(t, 5, f.Server("a").Endpoint().Weight)
		a.put(t, slice("web-2", "c 10.0.0.3 ready"))
		settle()
		require.Equal(t, "a=10.0.0.1:8080* b=10.0.0.2:8080* c=10.0.0.3:8080", f.servers(), "whatever Edit says")
		_, err := f.Acquire(t.Context(), balance.Request{})
		require.NoError(t, err)
	})
}

func TestPorts(t *testing.T) {
	port := func(name string, n int32) discovery.EndpointPort {
		return discovery.EndpointPort{Name: &name, Port: &n}
	}
	for _, test := range []struct {
		port  string
		ports []discovery.EndpointPort
		want  string // the port, or an error
	}{
		{"", []discovery.EndpointPort{port("", 8080)}, "8080"},
		{"", []discovery.EndpointPort{port("http", 8080)}, "8080"},
		{"http", []discovery.EndpointPort{port("metrics", 9090), port("http", 8080)}, "8080"},
		{"9090", []discovery.EndpointPort{port("metrics", 9090), port("http", 8080)}, "9090"},
		{"80", nil, "80"}, // headless, without ports
		{"80", []discovery.EndpointPort{port("http", 8080)}, `kube: EndpointSlice web-1: no port "80": there is "http" (8080)`},
		{"https", []discovery.EndpointPort{port("http", 8080)}, `kube: EndpointSlice web-1: no port "https": there is "http" (8080)`},
		{"http", nil, `kube: EndpointSlice web-1: no port "http": there is none`},
		{"", []discovery.EndpointPort{port("a", 1), port("b", 2)}, `kube: EndpointSlice web-1: the field Port must say which port is meant of those there are: "a" (1), "b" (2)`},
		{"", []discovery.EndpointPort{{}}, `kube: EndpointSlice web-1: the field Port must say which port is meant of those there are: none`},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := slice("web-1", "a 10.0.0.1")
			s.Ports = test.ports
			a := newAPI()
			a.put(t, s)
			f := follow(t, &kube.Source{Client: a, Port: test.port})
			if strings.HasPrefix(test.want, "kube:") {
				require.Equal(t, []string{test.want}, f.failures())
				var se *kube.SliceError
				st, _ := f.SourceState()
				require.ErrorAs(t, st.Err, &se)
				require.Equal(t, "web-1", se.Slice)
				return
			}
			require.Equal(t, "a=10.0.0.1:"+test.want, f.servers())
		})
	}
}

func TestFamilies(t *testing.T) {
	for network, want := range map[string]string{
		"":    "- a=10.0.0.1:8080 b=[2001:db8::2]:8080 c=10.0.0.3:8080",
		"ip":  "- a=10.0.0.1:8080 b=[2001:db8::2]:8080 c=10.0.0.3:8080",
		"ip4": "- a=10.0.0.1:8080 c=10.0.0.3:8080",
		"ip6": "- a=[2001:db8::1]:8080 b=[2001:db8::2]:8080",
	} {
		synctest.Test(t, func(t *testing.T) {
			a := newAPI()
			a.put(t, slice("web-a6", "a 2001:db8::1", "b 2001:db8::2"), slice("web-b4", "a 10.0.0.1", "c 10.0.0.3"))
			f := follow(t, &kube.Source{Client: a, Network: network})
			require.Equal(t, want, "- "+f.servers())
		})
	}
}

// A pod of two families terminates, and the slice of one family changes before that of the
// other: the pod keeps its address.
func TestFamiliesThatDisagreeForAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI()
		a.put(t, slice("web-a6", "a 2001:db8::1", "b 2001:db8::2"), slice("web-b4", "a 10.0.0.1", "b 10.0.0.2"))
		f := follow(t, &kube.Source{Client: a})
		a.put(t, slice("web-b4", "a 10.0.0.1 drain", "b 10.0.0.2 gone"))
		settle()
		require.Equal(t, "a=10.0.0.1:8080", f.servers(), "and serves, as no other does")
		a.put(t, slice("web-a6", "a 2001:db8::1 drain", "b 2001:db8::2 gone"))
		settle()
		require.Equal(t, "a=10.0.0.1:8080", f.servers())
	})
}

func TestLabelsAndZones(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI()
		s := slice("web-1", "a 10.0.0.1 zone=east node=n1", "- 10.0.0.2", "b 10.0.0.3 zone=west drain")
		host := "web-0"
		s.Endpoints[0].Hostname = &host
		a.put(t, s)
		f := follow(t, &kube.Source{Client: a, Edit: func(e *balance.Endpoint) { e.MaxConns = 7 }})
		require.Equal(t, "10.0.0.2:8080=10.0.0.2:8080 a=10.0.0.1:8080@east b=10.0.0.3:8080*@west", f.servers())
		require.Equal(t, map[string]string{"pod": "a", "node": "n1", "zone": "east", "hostname": "web-0"}, f.Server("a").Endpoint().Labels)
		require.Equal(t, 7, f.Server("a").Endpoint().MaxConns)

		// Hints count if all that are ready have one, as with kube-proxy.
		a.put(t, slice("web-1", "a 10.0.0.1 zone=east for=west", "b 10.0.0.2 zone=east for=north+east", "c 10.0.0.3 zone=east"))
		settle()
		require.Equal(t, "a=10.0.0.1:8080@east b=10.0.0.2:8080@east c=10.0.0.3:8080@east", f.servers())
		a.put(t, slice("web-1", "a 10.0.0.1 zone=east for=west", "b 10.0.0.2 zone=east for=north+east", "c 10.0.0.3 zone=east drain"))
		settle()
		require.Equal(t, "a=10.0.0.1:8080@west b=10.0.0.2:8080@east c=10.0.0.3:8080*@east", f.servers())
		require.Equal(t, "east", f.Server("a").Endpoint().Labels["zone"])
	})
}

// An endpoint moves to another slice, with events of the two in either order, and there are
// events of slices that are gone or were never added.
func TestEventsInAnyOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI()
		a.put(t, slice("web-1", "a 10.0.0.1", "b 10.0.0.2"))
		f := follow(t, &kube.Source{Client: a})
		a.say(watch.Modified, slice("web-2", "b 10.0.0.2", "c 10.0.0.3 gone")) // before it was added
		settle()
		require.Equal(t, "a=10.0.0.1:8080 b=10.0.0.2:8080", f.servers())
		before := f.Server("b")
		a.say(watch.Modified, slice("web-1", "a 10.0.0.1"))
		settle()
		require.Equal(t, "a=10.0.0.1:8080 b=10.0.0.2:8080", f.servers())
		a.say(watch.Modified, slice("web-2"))
		a.say(watch.Modified, slice("web-1", "a 10.0.0.1", "b 10.0.0.2")) // back, in one go
		settle()
		require.Equal(t, "a=10.0.0.1:8080 b=10.0.0.2:8080", f.servers())
		require.Same(t, before, f.Server("b"), "it is the same server all the time")
		a.say(watch.Deleted, slice("web-9"))
		a.say(watch.Deleted, slice("web-2"))
		a.say(watch.Added, slice("web-1", "a 10.0.0.1")) // again
		settle()
		require.Equal(t, "a=10.0.0.1:8080", f.servers())

		// Of an endpoint in two slices, the one that is ready counts.
		a.say(watch.Added, slice("web-0", "a 10.0.0.1 gone"))
		a.say(watch.Added, slice("web-3", "a 10.0.0.1 drain"))
		settle()
		require.Equal(t, "a=10.0.0.1:8080", f.servers())
		require.Empty(t, f.failures())
	})
}

// While the API server is down the set stays, and its age can be read.
func TestOutageKeepsTheLastGoodSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI()
		a.put(t, slice("web-1", "a 10.0.0.1"))
		f := follow(t, &kube.Source{Client: a})
		for range 60 { // bookmarks
			time.Sleep(time.Minute)
			a.say(watch.Bookmark, &discovery.EndpointSlice{ObjectMeta: meta.ObjectMeta{ResourceVersion: "7"}})
		}
		settle()
		st, _ := f.SourceState()
		require.NoError(t, st.Err)
		require.Less(t, time.Since(st.Good), time.Second, "a set that is confirmed is not old")

		down := time.Now()
		a.setDown(true)
		a.put(t, slice("web-1", "a 10.0.0.1", "b 10.0.0.2"))
		time.Sleep(time.Minute)
		synctest.Wait()
		st, _ = f.SourceState()
		require.ErrorIs(t, st.Err, errDown)
		require.ErrorContains(t, st.Err, "kube: EndpointSlices of shop/web: ")
		time.Sleep(12 * time.Hour)
		require.Equal(t, "a=10.0.0.1:8080", f.servers())
		require.Len(t, f.failures(), 1, "what lasts is told once")
		st, _ = f.SourceState()
		require.LessOrEqual(t, st.Good, down)
		a.mu.Lock()
		require.Less(t, a.asked, 12*3600/4, "ever later")
		a.mu.Unlock()

		a.setDown(false)
		time.Sleep(time.Minute)
		settle()
		require.Equal(t, "a=10.0.0.1:8080 b=10.0.0.2:8080", f.servers())
		st, _ = f.SourceState()
		require.NoError(t, st.Err)
		a.put(t, slice("web-1", "b 10.0.0.2"))
		settle()
		require.Equal(t, "b=10.0.0.2:8080", f.servers())
	})
}

// The first list may come slice by slice. (KEP-3157, "Watch List".)
func TestNothingIsToldBeforeAllIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI()
		a.streams = true
		f := follow(t, &kube.Source{Client: a})
		first := slice("web-1", "a 10.0.0.1")
		a.say(watch.Added, first)
		settle()
		st, _ := f.SourceState()
		require.NoError(t, st.Err)
		require.Zero(t, st.Good)
		a.say(watch.Added, slice("web-2", "b 10.0.0.2"))
		end := &discovery.EndpointSlice{ObjectMeta: meta.ObjectMeta{ResourceVersion: "7", Annotations: map[string]string{meta.InitialEventsAnnotationKey: "true"}}}
		a.say(watch.Bookmark, end)
		settle()
		require.Equal(t, "a=10.0.0.1:8080 b=10.0.0.2:8080", f.servers())
	})
}

// A source that begins while the API server is down reports only that.
func TestOutageAtFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI()
		a.setDown(true)
		a.put(t, slice("web-1", "a 10.0.0.1"))
		f := follow(t, &kube.Source{Client: a})
		time.Sleep(time.Second)
		synctest.Wait()
		require.Len(t, f.failures(), 1)
		st, _ := f.SourceState()
		require.Zero(t, st.Good)
		a.setDown(false)
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, "a=10.0.0.1:8080", f.servers())
	})
}

func TestServiceThatIsNotThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI()
		f := follow(t, &kube.Source{Client: a})
		st, _ := f.SourceState()
		require.ErrorIs(t, st.Err, kube.ErrNoSlices)
		require.EqualError(t, st.Err, "kube: no EndpointSlices of the Service shop/web")
		a.put(t, slice("web-1")) // no pods
		settle()
		st, _ = f.SourceState()
		require.NoError(t, st.Err)
		a.put(t, slice("web-1", "a 10.0.0.1"))
		settle()
		require.Equal(t, "a=10.0.0.1:8080", f.servers())
		f.AllowEmpty = false // a field that must not change, but between two sets it may here
		a.put(t, slice("web-1"))
		for range 10 {
			settle()
			a.say(watch.Bookmark, &discovery.EndpointSlice{ObjectMeta: meta.ObjectMeta{ResourceVersion: "7"}})
		}
		settle()
		require.Len(t, f.failures(), 2, "that an empty set is not followed is told once")
	})
}

// One bad endpoint does not affect the others, and is reported once.
func TestBadEndpointsTakeNothingFromOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI()
		a.put(t, slice("web-1", "a 10.0.0.1", "b 10.0.0.2"))
		f := follow(t, &kube.Source{Client: a, Edit: func(e *balance.Endpoint) {
			if e.Name == "b" {
				e.Weight = 1 << 20
			}
		}})
		require.Equal(t, "a=10.0.0.1:8080", f.servers())
		for range 5 {
			a.put(t, slice("web-2", "c 10.0.0.3 gone")) // changes nothing
			settle()
		}
		require.Len(t, f.failures(), 1)
		require.Contains(t, f.failures()[0], "kube: EndpointSlice web-1: penstock: Endpoint.Weight: 1048576 ")
		a.setDown(true)
		time.Sleep(time.Minute)
		st, _ := f.SourceState()
		require.ErrorIs(t, st.Err, errDown)
		a.setDown(false)
		time.Sleep(2 * time.Minute)
		st, _ = f.SourceState()
		require.NotErrorIs(t, st.Err, errDown)
		var se *kube.SliceError
		require.ErrorAs(t, st.Err, &se)
	})
}

// If Edit gives two endpoints the same name, the rest of the set is still used.
func TestNamesThatAreAlike(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI()
		a.put(t, slice("web-1", "a 10.0.0.1", "b 10.0.0.2", "c 10.0.0.3"))
		f := follow(t, &kube.Source{Client: a, Edit: func(e *balance.Endpoint) {
			if e.Name != "c" {
				e.Name = "x"
			}
		}})
		require.Equal(t, "c=10.0.0.3:8080 x=10.0.0.1:8080", f.servers())
		require.Equal(t, []string{`kube: EndpointSlice web-1: b: another endpoint has the name "x" already`}, f.failures())
	})
}

// client-go's fake, as clientset.DiscoveryV1() returns it, never says that a list is complete.
func TestFakeOfClientGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI()
		a.put(t, slice("web-1", "a 10.0.0.1"))
		f := follow(t, &kube.Source{Client: &a.FakeDiscoveryV1})
		require.Equal(t, "a=10.0.0.1:8080", f.servers())
		a.put(t, slice("web-1", "a 10.0.0.1", "b 10.0.0.2"))
		settle()
		require.Equal(t, "a=10.0.0.1:8080 b=10.0.0.2:8080", f.servers())
		require.Empty(t, f.failures())
	})
}

// TestThousandEndpoints has 1000 endpoints in 11 slices come and go and move about, and
// compares with a model after each step.
func TestThousandEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const slicesOf, pods = 11, 1000
		rng := rand.New(rand.NewPCG(1, 2))
		a := newAPI()
		in := make([]int, pods) // its slice; -1 means none
		state := make([]string, pods)
		for p := range in {
			in[p], state[p] = p%slicesOf, "ready"
		}
		put := func(k int) {
			var eps []string
			for p := range in {
				if in[p] == k {
					eps = append(eps, fmt.Sprintf("pod-%d 10.0.%d.%d %s", p, p/250, p%250, state[p]))
				}
			}
			a.put(t, slice(fmt.Sprintf("web-%d", k), eps...))
		}
		for k := range slicesOf {
			put(k)
		}
		f := follow(t, &kube.Source{Client: a})
		require.Equal(t, pods, f.Usable())
		for range 50 {
			touched := map[int]bool{}
			for range 1 + rng.IntN(40) {
				p := rng.IntN(pods)
				touched[in[p]] = true
				in[p] = rng.IntN(slicesOf+1) - 1
				touched[in[p]] = true
				state[p] = []string{"ready", "ready", "drain", "gone"}[rng.IntN(4)]
			}
			delete(touched, -1)
			order := make([]int, 0, len(touched))
			for k := range touched {
				order = append(order, k)
			}
			rng.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
			for _, k := range order {
				put(k)
				if rng.IntN(4) == 0 {
					time.Sleep(30 * time.Millisecond) // one that moves may be in none, or in two
				}
			}
			settle()
			var want []string
			for p := range in {
				if in[p] >= 0 && state[p] != "gone" {
					text := fmt.Sprintf("pod-%d=10.0.%d.%d:8080", p, p/250, p%250)
					if state[p] == "drain" {
						text += "*"
					}
					want = append(want, text)
				}
			}
			sort.Slice(want, func(i, j int) bool { return name(want[i]) < name(want[j]) })
			require.Equal(t, strings.Join(want, " "), f.servers())
		}
		a.remove(t, "web-0")
		settle()
		require.Empty(t, f.failures())
	})
}

func name(server string) string { n, _, _ := strings.Cut(server, "="); return n }

// A rollout of several slices is few sets.
func TestChangesAreGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI()
		sets := 0
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go func() {
			time.Sleep(100 * time.Millisecond)
			for i := range 100 {
				a.put(t, slice(fmt.Sprintf("web-%d", i), fmt.Sprintf("pod-%d 10.0.0.%d", i, i)))
				time.Sleep(time.Millisecond)
			}
		}()
		err := (&kube.Source{Client: a, Namespace: "shop", Service: "web"}).Watch(ctx, func([]balance.Endpoint, error) { sets++ })
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Less(t, sets, 10)
		require.Greater(t, sets, 2)
	})
}

func TestBadSource(t *testing.T) {
	good := kube.Source{Client: newAPI(), Namespace: "shop", Service: "web"}
	require.NoError(t, good.Check())
	for field, change := range map[string]func(*kube.Source){
		"Source.Client":    func(s *kube.Source) { s.Client = nil },
		"Source.Namespace": func(s *kube.Source) { s.Namespace = "" },
		"Source.Service":   func(s *kube.Source) { s.Service = "web.shop" },
		"Source.Port":      func(s *kube.Source) { s.Port = "70000" },
		"Source.Network":   func(s *kube.Source) { s.Network = "tcp" },
	} {
		s := good
		change(&s)
		var ce *penstock.ConfigError
		require.ErrorAs(t, s.Watch(t.Context(), nil), &ce, field)
		require.Equal(t, field, ce.Field)
	}
	for _, port := range []string{"0", "-1", "http_1", "Http"} {
		s := good
		s.Port = port
		require.Error(t, s.Check(), port)
	}
}
