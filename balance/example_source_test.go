// SPDX-License-Identifier: Apache-2.0

package balance_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/penstock-lb/penstock/balance"
)

// A source of your own: a registry that tells of each change. Every update is the whole set.
// What cannot be had is reported as an error, and leaves the servers that are known.
func ExampleSourceFunc() {
	registry := make(chan []string) // stands for a subscription to the registry
	src := balance.SourceFunc(func(ctx context.Context, update func([]balance.Endpoint, error)) error {
		for {
			select {
			case addrs := <-registry:
				if addrs == nil {
					update(nil, errors.New("the registry is away"))
					continue
				}
				var set []balance.Endpoint
				for _, a := range addrs {
					set = append(set, balance.Endpoint{Addr: a})
				}
				update(set, nil)
			case <-ctx.Done():
				return nil // before ctx ends, an error would be reported and the func called again
			}
		}
	})

	events := make(chan balance.Event, 10)
	pool := &balance.Pool{Name: "web", OnEvent: func(e balance.Event) { events <- e }}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- pool.Follow(ctx, src) }()
	show := func() {
		e := <-events
		fmt.Println(e.Kind, e.Server, e.Err)
	}
	registry <- []string{"10.0.0.1:80"}
	show()
	registry <- nil
	show()
	fmt.Println(pool.Usable(), "usable")
	stop()
	fmt.Println(<-ended)
	// Output:
	// joined 10.0.0.1:80 <nil>
	// source failed <nil> the registry is away
	// 1 usable
	// context canceled
}

// A source that asks every five seconds, such as the API of a cloud or a table of a database.
func ExamplePoll() {
	list := func(ctx context.Context) ([]balance.Endpoint, error) {
		return []balance.Endpoint{{Addr: "10.0.0.1:80"}, {Addr: "10.0.0.2:80", Weight: 2}}, nil // or an error: the last set stays
	}
	pool := &balance.Pool{Name: "web"}
	ctx, stop := context.WithCancel(context.Background())
	changed := make(chan struct{}, 10)
	pool.Watch(func() { changed <- struct{}{} })
	ended := make(chan error)
	go func() { ended <- pool.Follow(ctx, balance.Poll{Func: list, Interval: 5 * time.Second}) }()
	<-changed
	fmt.Println(pool.Usable())
	stop()
	<-ended
	// Output: 2
}
