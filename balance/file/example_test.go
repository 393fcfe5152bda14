// SPDX-License-Identifier: Apache-2.0

package file_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/balance/file"
)

// A pool follows a file.
func ExampleSource() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "servers")
	_ = os.WriteFile(path, []byte("10.0.0.1:80 name=a weight=3\n10.0.0.2:80 name=b\n"), 0o600)

	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	var pool balance.Pool
	_ = pool.Follow(ctx, &file.Source{Path: path})
	for s := range pool.All() {
		fmt.Println(s.Name(), s.Addr())
	}
	// Output:
	// a 10.0.0.1:80
	// b 10.0.0.2:80
}
