// SPDX-License-Identifier: Apache-2.0

package accesslog_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/penstock-lb/penstock/l4/accesslog"
)

func ExampleFile() {
	dir, err := os.MkdirTemp("", "log")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	file := &accesslog.File{Path: filepath.Join(dir, "access.log")}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- file.Run(ctx) }()

	// What an OnDone hook does, with r.AppendCombined for the text.
	file.Put(append(file.Line(), `192.0.2.1 - - [10/Oct/2000:13:55:36 +0000] "GET / HTTP/1.1" 200 12`...))

	stop()
	<-ended // the rest is written
	text, _ := os.ReadFile(file.Path)
	fmt.Print(string(text))
	fmt.Println(file.Stats().Dropped, "dropped")
	// Output:
	// 192.0.2.1 - - [10/Oct/2000:13:55:36 +0000] "GET / HTTP/1.1" 200 12
	// 0 dropped
}
