// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/penstock-lb/penstock/l7"
)

// A SIGTERM ends the gateway when its requests have been answered, and after ten seconds in
// any case: a WebSocket or a stream of events may go on for ever.
func ExampleServer_Shutdown() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	gateway := &l7.Server{Addr: "127.0.0.1:0", Handler: http.NotFoundHandler()}
	ended := make(chan error, 1)
	go func() {
		<-ctx.Done()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		ended <- gateway.Shutdown(ctx)
	}()
	time.AfterFunc(50*time.Millisecond, stop) // in place of the signal
	fmt.Println(gateway.ListenAndServe())
	fmt.Println(<-ended)
	// Output:
	// http: Server closed
	// <nil>
}
