// SPDX-License-Identifier: Apache-2.0

package etcd_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/balance/etcd"
)

// run runs r and returns what ends it and waits.
func run(t *testing.T, r *etcd.Registration) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
		require.False(t, r.Registered())
	})
	t.Cleanup(stop)
	return stop
}

// A lines is a log whose lines can be counted.
type lines struct {
	mu  sync.Mutex
	all strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(b)
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.all.String(), text)
}

func TestRegistrationLastsAsLongAsTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, log := newStore(), new(lines)
		r := &etcd.Registration{Client: s.client(t.Context()), Prefix: "/web/", Logger: slog.New(slog.NewTextHandler(log, nil)),
			Endpoint: balance.Endpoint{Name: "a", Addr: "10.0.0.1:80", Weight: 3}}
		stop := run(t, r)
		synctest.Wait()
		value, _ := s.value("/web/a")
		require.Equal(t, `{"name":"a","addr":"10.0.0.1:80","weight":3}`, value)
		require.True(t, r.Registered())
		time.Sleep(time.Hour)
		value, lease := s.value("/web/a")
		require.NotEmpty(t, value)
		require.EqualValues(t, 1, lease, "one lease, renewed")

		// Somebody removes it.
		s.set("/web/a", "")
		time.Sleep(5 * time.Second)
		synctest.Wait()
		value, _ = s.value("/web/a")
		require.NotEmpty(t, value)

		// etcd forgets the lease.
		s.expire(1)
		value, _ = s.value("/web/a")
		require.Empty(t, value)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		value, lease = s.value("/web/a")
		require.NotEmpty(t, value)
		require.EqualValues(t, 2, lease)

		// etcd is away for longer than the lease lasts.
		s.setDown(true)
		time.Sleep(time.Hour)
		require.False(t, r.Registered())
		require.Equal(t, 1, log.count("not registered"), "a failure that stays is logged once")
		s.setDown(false)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		value, lease = s.value("/web/a")
		require.NotEmpty(t, value)
		require.EqualValues(t, 3, lease)
		require.True(t, r.Registered())
		require.Equal(t, 1, log.count("registered again"))

		stop()
		value, _ = s.value("/web/a")
		require.Empty(t, value)
		_, _, leases := s.counts()
		require.Zero(t, leases)
	})
}

// A process that is started anew before the lease of the one before has ended takes the key
// over, and keeps it when the one before leaves.
func TestRegistrationIsTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, log := newStore(), new(lines)
		registration := func(addr string) *etcd.Registration {
			return &etcd.Registration{Client: s.client(t.Context()), Prefix: "/web/", Logger: slog.New(slog.NewTextHandler(log, nil)),
				Endpoint: balance.Endpoint{Name: "a", Addr: addr}}
		}
		old, successor := registration("10.0.0.1:80"), registration("10.0.0.2:80")
		stopOld := run(t, old)
		synctest.Wait()
		stopNew := run(t, successor)
		time.Sleep(time.Minute)
		value, _ := s.value("/web/a")
		require.Contains(t, value, "10.0.0.2")
		require.False(t, old.Registered())
		require.True(t, successor.Registered())
		require.Equal(t, 1, log.count("another process has registered by this name"))
		stopOld()
		value, _ = s.value("/web/a")
		require.Contains(t, value, "10.0.0.2", "is not the old one's to remove")

		stopOld = run(t, old)
		time.Sleep(time.Minute)
		require.False(t, successor.Registered())
		stopOld()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		require.True(t, successor.Registered(), "the key is free again")
		stopNew()
	})
}

// The end does not wait for an etcd that is away.
func TestRegistrationEndsWithoutEtcd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, log := newStore(), new(lines)
		r := &etcd.Registration{Client: s.client(t.Context()), Prefix: "/web/", TTL: 3 * time.Second, Logger: slog.New(slog.NewTextHandler(log, nil)),
			Endpoint: balance.Endpoint{Addr: "10.0.0.1:80", Labels: map[string]string{"os": "x"}}, GRPC: true}
		stop := run(t, r)
		synctest.Wait()
		value, _ := s.value("/web/10.0.0.1:80")
		require.Equal(t, `{"Op":0,"Addr":"10.0.0.1:80","Metadata":{"os":"x"}}`, value)
		s.setDown(true)
		stop()
		require.Equal(t, 1, log.count("the key stays until its lease ends"))
		time.Sleep(3 * time.Second)
		synctest.Wait()
		value, _ = s.value("/web/10.0.0.1:80")
		require.Empty(t, value)
	})
}

func TestBadRegistration(t *testing.T) {
	c, ep := newStore().client(t.Context()), balance.Endpoint{Addr: "10.0.0.1:80"}
	for field, r := range map[string]*etcd.Registration{
		"Registration.Client":          {Prefix: "/web/", Endpoint: ep},
		"Registration.Prefix":          {Client: c, Endpoint: ep},
		"Registration.Endpoint.Addr":   {Client: c, Prefix: "/web/", Endpoint: balance.Endpoint{Name: "a", Value: 1}},
		"Registration.Endpoint.Weight": {Client: c, Prefix: "/web/", Endpoint: balance.Endpoint{Addr: "a:1", Weight: 1 << 20}},
		"Registration.TTL":             {Client: c, Prefix: "/web/", Endpoint: ep, TTL: 1500 * time.Millisecond},
		"Registration.Timeout":         {Client: c, Prefix: "/web/", Endpoint: ep, Timeout: -1},
	} {
		var ce *penstock.ConfigError
		require.ErrorAs(t, r.Run(t.Context()), &ce, field)
		require.Equal(t, field, ce.Field)
	}
}
