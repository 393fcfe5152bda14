// SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/balance"
)

// A Registration keeps a key for this process while it runs. Its fields must not change
// once Run is called.
//
// The key has a lease of TTL, which is renewed each third of TTL. If this process dies,
// its key expires after TTL; if etcd was unreachable for longer, or the key was removed,
// it is put again. If another process puts its own endpoint there, that stays until that
// process ends: names must be unique.
type Registration struct {
	Client   *clientv3.Client // the caller closes it
	Prefix   string           // such as "/services/web/"; the name of Endpoint follows, or its address if it has none
	Endpoint balance.Endpoint // of this process; its Value is not told
	TTL      time.Duration    // in whole seconds, at least 1s; 0 means 15s
	Timeout  time.Duration    // of one question to etcd; 0 means a third of TTL
	GRPC     bool             // write the value as etcd's own package naming/endpoints does: address and Labels only
	Logger   *slog.Logger     // of failures; nil means slog.Default()

	registered atomic.Bool
}

// Check returns what is wrong with r, each a [*penstock.ConfigError]. [Registration.Run] calls it.
func (r *Registration) Check() error {
	var m penstock.Mistakes
	m.Need("Registration.Client", r.Client, "must be a client of etcd")
	m.If(r.Prefix == "", "Registration.Prefix", r.Prefix, "must be the prefix of the keys")
	m.Add("Registration.Endpoint", r.Endpoint.Check())
	m.If(r.Endpoint.Addr == "", "Registration.Endpoint.Addr", "", "must be the address to reach this process at")
	m.If(r.TTL != 0 && (r.TTL < time.Second || r.TTL%time.Second != 0), "Registration.TTL", r.TTL, "must be whole seconds, at least one")
	m.If(r.Timeout < 0, "Registration.Timeout", r.Timeout, "must not be negative")
	return m.Err()
}

// Registered reports whether the key was there and the lease good when etcd was asked last,
// which is a third of TTL ago at most while Run runs and etcd answers.
func (r *Registration) Registered() bool { return r.registered.Load() }

// Run registers until ctx ends, and then removes the key and returns ctx's cause; a
// server should go on serving for as long as gateways need to hear of it. It returns at
// once what Check says. Failures meanwhile are logged and tried again.
func (r *Registration) Run(ctx context.Context) error {
	if err := r.Check(); err != nil {
		return err
	}
	k := &keeper{Registration: r, key: r.Prefix + cmp.Or(r.Endpoint.Name, r.Endpoint.Addr), value: format(r.Endpoint, r.GRPC)}
	if k.logger = r.Logger; k.logger == nil {
		k.logger = slog.Default()
	}
	k.ttl = cmp.Or(r.TTL, 15*time.Second)
	k.timeout = cmp.Or(r.Timeout, k.ttl/3)
	defer k.leave(ctx)
	for pause := shortest; ; {
		err := k.beat(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		k.told(err)
		next := k.ttl / 3
		if err != nil { // twice as late each time, and a fleet not all at once
			next = min(next, pause-time.Duration(rand.Int64N(int64(pause/2))))
			pause = min(2*pause, k.ttl/3)
		} else {
			pause = shortest
		}
		if !sleep(ctx, next) {
			return context.Cause(ctx)
		}
	}
}

// shortest is the pause after a first failure.
const shortest = 200 * time.Millisecond

// errTaken means that another process has the key.
var errTaken = errors.New("another process has registered by this name")

// A keeper is what one Run knows.
type keeper struct {
	*Registration

	key, value   string
	ttl, timeout time.Duration
	logger       *slog.Logger
	lease        clientv3.LeaseID // NoLease before the first, and when it was lost
	placed       bool             // the key was put once
	failed       string           // the last failure that was logged; empty if all is well
}

// beat renews the lease, or begins a new one, and puts the key if it is missing.
func (k *keeper) beat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	if k.lease != clientv3.NoLease {
		switch _, err := k.Client.KeepAliveOnce(ctx, k.lease); {
		case errors.Is(err, rpctypes.ErrLeaseNotFound):
			k.lease = clientv3.NoLease
		case err != nil:
			return err
		}
	}
	if k.lease == clientv3.NoLease {
		granted, err := k.Client.Grant(ctx, int64(k.ttl/time.Second))
		if err != nil {
			return err
		}
		k.lease = granted.ID
	}
	err := k.put(ctx)
	k.placed = k.placed || err == nil
	return err
}

// put puts the key if it is not there. At first it puts it in any case: what is there is
// from this process before it was started anew.
func (k *keeper) put(ctx context.Context) error {
	put := clientv3.OpPut(k.key, k.value, clientv3.WithLease(k.lease))
	if !k.placed {
		_, err := k.Client.Do(ctx, put)
		return err
	}
	now, err := k.Client.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(k.key), "=", 0)).
		Then(put).Else(clientv3.OpGet(k.key)).Commit()
	if err != nil || now.Succeeded {
		return err
	}
	for _, kv := range now.Responses[0].GetResponseRange().Kvs {
		if clientv3.LeaseID(kv.Lease) != k.lease {
			return errTaken
		}
	}
	return nil
}

// told logs err unless it is the error that was logged last.
func (k *keeper) told(err error) {
	k.registered.Store(err == nil)
	switch {
	case err == nil && k.failed != "":
		k.failed = ""
		k.logger.Info("etcd: registered again", "key", k.key)
	case err != nil && k.failed != err.Error():
		k.failed = err.Error()
		k.logger.Warn("etcd: not registered", "key", k.key, "error", err)
	}
}

// leave ends the lease, and so removes the key, if it is still ours.
func (k *keeper) leave(ctx context.Context) {
	k.registered.Store(false)
	if k.lease == clientv3.NoLease {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), k.timeout)
	defer cancel()
	if _, err := k.Client.Revoke(ctx, k.lease); err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		k.logger.Warn("etcd: the key stays until its lease ends", "key", k.key, "ttl", k.ttl, "error", err)
	}
}

// sleep waits for d and reports whether ctx has not ended.
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
