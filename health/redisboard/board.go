// SPDX-License-Identifier: Apache-2.0

package redisboard

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/health"
)

// A Board is a [health.Board] in Redis 5 or later, single or cluster. The results for all
// servers of a Name are one hash, by the clock of Redis; each second each gateway reads
// all of it, about 80 bytes a server. All methods may be called at once; the fields must
// not change after first use.
type Board struct {
	// Client is a *redis.Client, *redis.ClusterClient or *redis.Ring, with
	// ContextTimeoutEnabled in its options: without it the client would wait for a
	// slow Redis longer than a probe may. The caller closes it.
	Client redis.Scripter

	Name   string // of the servers that are checked alike: a pool, and how
	Prefix string // goes before Name; "" means "penstock:board:"
}

var _ health.Board = (*Board)(nil)

//go:embed tell.lua
var tellScript string

//go:embed all.lua
var allScript string

var (
	tell = redis.NewScript(tellScript)
	all  = redis.NewScript(allScript)
)

// Check returns what is wrong with b, each a [*penstock.ConfigError].
func (b *Board) Check() error {
	var m penstock.Mistakes
	m.Need("Board.Client", b.Client, "must be a client of Redis")
	m.If(b.Name == "", "Board.Name", b.Name, "must tell these servers from others")
	return m.Err()
}

// Tell implements [health.Board].
func (b *Board) Tell(ctx context.Context, server string, t health.Told) error {
	if err := b.Check(); err != nil {
		return err
	}
	text, err := json.Marshal(t)
	if err != nil {
		return err
	}
	if err := tell.Run(ctx, b.Client, b.key(), server, text).Err(); err != nil {
		return fmt.Errorf("redisboard: %w", err)
	}
	return nil
}

// All implements [health.Board].
func (b *Board) All(ctx context.Context, span time.Duration) (map[string]health.Told, error) {
	if err := b.Check(); err != nil {
		return nil, err
	}
	list, err := all.Run(ctx, b.Client, b.key(), span.Milliseconds()).StringSlice()
	if err != nil {
		return nil, fmt.Errorf("redisboard: %w", err)
	}
	told := make(map[string]health.Told, len(list)/2)
	for i := 0; i+1 < len(list); i += 2 {
		var t health.Told
		if err := json.Unmarshal([]byte(list[i+1]), &t); err != nil {
			return nil, fmt.Errorf("redisboard: of %q: %w", list[i], err)
		}
		told[list[i]] = t
	}
	return told, nil
}

func (b *Board) key() []string {
	prefix := b.Prefix
	if prefix == "" {
		prefix = "penstock:board:"
	}
	return []string{prefix + b.Name}
}
