// SPDX-License-Identifier: Apache-2.0

// Package model simulates a server of a large language model, as far as a load balancer
// can tell: requests wait for a place in the batch, a prompt is read at some speed unless
// its beginning is in the KV cache, and then a token comes every so often. It serves the
// API of OpenAI and the metrics of vLLM, and runs in a bubble of testing/synctest.
package model

import (
	"container/list"
	"context"
	"hash/maphash"
	"sync"
	"time"
)

// A Server is one of them. Its fields must not change once it is used. The figures that 0
// stands for are of the order of a model of some ten billion parameters on one accelerator.
type Server struct {
	Batch   int           // requests that generate at once; 0 means 16
	Blocks  int           // of the KV cache, 16 tokens each; 0 means 4096
	Prefill time.Duration // that reading a block of the prompt takes; 0 means 4ms, which is 4000 tokens a second
	Decode  time.Duration // between tokens; 0 means 20ms

	once  sync.Once
	batch chan struct{} // places
	core  chan struct{} // one prompt is read at a time

	mu      sync.Mutex
	cache   map[uint64]*list.Element // of blocks that are kept, by hash
	order   *list.List               // of their hashes, most recently used first
	figures Figures
}

// Figures are what a Server has to say of itself.
type Figures struct {
	Waiting int // requests without a place
	Running int
	InUse   int // blocks of requests that are running
	Blocks  int // in all
	Hits    int // blocks of prompts that were in the cache
	Asked   int // blocks of prompts
}

// CacheUsage returns the part of the cache that running requests use.
func (f Figures) CacheUsage() float64 { return min(1, float64(f.InUse)/float64(f.Blocks)) }

// Figures returns those of now.
func (s *Server) Figures() Figures {
	s.init()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.figures
}

func (s *Server) init() {
	s.once.Do(func() {
		s.batch = make(chan struct{}, or(s.Batch, 16))
		s.core = make(chan struct{}, 1)
		s.cache, s.order = map[uint64]*list.Element{}, list.New()
		s.figures.Blocks = or(s.Blocks, 4096)
	})
}

func or[T int | time.Duration](v, zero T) T {
	if v <= 0 {
		return zero
	}
	return v
}

// blockBytes is how much text a block holds: 16 tokens of about 4 letters.
const blockBytes = 64

// seed is the same for all servers of a process.
var seed = maphash.MakeSeed()

// Split returns a hash for each block of a prompt. It stands for all of the prompt up to
// its end, since attention looks back at everything.
func Split(prompt string) (blocks []uint64) {
	var h maphash.Hash
	h.SetSeed(seed)
	for len(prompt) > 0 {
		n := min(blockBytes, len(prompt))
		_, _ = h.WriteString(prompt[:n])
		blocks = append(blocks, h.Sum64())
		prompt = prompt[n:]
	}
	return blocks
}

// Generate answers a prompt, given as blocks, with some tokens, and calls emit for each,
// from this goroutine. It returns the error of emit or the cause of ctx's end.
func (s *Server) Generate(ctx context.Context, prompt []uint64, tokens int, emit func(i int) error) error {
	s.init()
	s.count(func(f *Figures) { f.Waiting++ })
	err := wait(ctx, s.batch)
	s.count(func(f *Figures) { f.Waiting-- })
	if err != nil {
		return err
	}
	defer func() { <-s.batch }()
	held := len(prompt) + tokens/16
	s.count(func(f *Figures) { f.Running++; f.InUse += held })
	defer s.count(func(f *Figures) { f.Running--; f.InUse -= held })
	if err := s.prefill(ctx, prompt); err != nil {
		return err
	}
	for i := range tokens {
		if i > 0 {
			if err := sleep(ctx, or(s.Decode, 20*time.Millisecond)); err != nil {
				return err
			}
		}
		if err := emit(i); err != nil {
			return err
		}
	}
	return nil
}

// prefill reads the part of a prompt that is not in the cache, and at least one block.
func (s *Server) prefill(ctx context.Context, prompt []uint64) error {
	if err := wait(ctx, s.core); err != nil {
		return err
	}
	defer func() { <-s.core }()
	cold := len(prompt) - s.look(prompt)
	return sleep(ctx, time.Duration(max(cold, 1))*or(s.Prefill, 4*time.Millisecond))
}

// look returns how many blocks at the beginning of a prompt are in the cache, and puts all
// of them there, in place of what was not used for longest.
func (s *Server) look(prompt []uint64) (hits int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for hits < len(prompt) && s.cache[prompt[hits]] != nil {
		hits++
	}
	for i := len(prompt) - 1; i >= 0; i-- { // the end of a prompt goes first
		if e := s.cache[prompt[i]]; e != nil {
			s.order.MoveToFront(e)
		} else {
			s.cache[prompt[i]] = s.order.PushFront(prompt[i])
		}
	}
	for s.order.Len() > s.figures.Blocks {
		delete(s.cache, s.order.Remove(s.order.Back()).(uint64))
	}
	s.figures.Hits += hits
	s.figures.Asked += len(prompt)
	return hits
}

func (s *Server) count(f func(*Figures)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.figures)
}

// wait takes a place in c.
func wait(ctx context.Context, c chan struct{}) error {
	select {
	case c <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
