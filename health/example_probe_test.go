// SPDX-License-Identifier: Apache-2.0

package health_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/health"
)

// Marker is a probe of your own: a server is down while the file of its name is in a
// folder, as a deployment may leave it there.
type Marker struct{ Dir string }

// Probe implements [health.Probe].
func (m Marker) Probe(_ context.Context, e balance.Endpoint) error {
	if _, err := os.Stat(filepath.Join(m.Dir, e.Name)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return errors.New("marked as down")
}

func ExampleProbe() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "b"), nil, 0o600); err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	marker := Marker{Dir: dir} // in a Checker: Probe: health.All{health.TCP{}, marker}
	fmt.Println(marker.Probe(ctx, balance.Endpoint{Name: "a"}))
	fmt.Println(marker.Probe(ctx, balance.Endpoint{Name: "b"}))

	// A func needs no type.
	var full health.Probe = health.Func(func(_ context.Context, e balance.Endpoint) error {
		return fmt.Errorf("the queue of %s is full", e.Name)
	})
	fmt.Println(full.Probe(ctx, balance.Endpoint{Name: "c"}))
	// Output:
	// <nil>
	// marked as down
	// the queue of c is full
}
