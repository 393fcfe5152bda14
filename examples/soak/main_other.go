// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "soak needs Linux: it hands sockets over, and reads /proc")
	os.Exit(1)
}
