// SPDX-License-Identifier: Apache-2.0

package l4_test

import (
	"context"
	"fmt"

	"github.com/penstock-lb/penstock/l4"
)

// Two listeners share an address: the kernel deals the connections out.
func ExampleListenConfig() {
	lc := &l4.ListenConfig{ReusePort: true}
	a, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer a.Close()
	b, err := lc.Listen(context.Background(), "tcp", a.Addr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer b.Close()
	fmt.Println("both listen:", a.Addr().String() == b.Addr().String())
	// Output: both listen: true
}
