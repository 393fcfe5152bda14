// SPDX-License-Identifier: Apache-2.0

package l4test_test

import (
	"context"
	"fmt"
	"io"

	"github.com/penstock-lb/penstock/l4/l4test"
)

func ExampleNetwork() {
	n := l4test.NewNetwork()
	ln, _ := n.Listen("tcp", "echo.test:7")
	go func() {
		c, _ := ln.Accept()
		io.Copy(c, c)
		c.Close()
	}()
	c, _ := n.DialContext(context.Background(), "tcp", "echo.test:7")
	io.WriteString(c, "hello")
	c.(*l4test.Conn).CloseWrite()
	echo, _ := io.ReadAll(c)
	fmt.Println(string(echo), "from", c.RemoteAddr())
	// Output: hello from 198.18.0.1:7
}
