// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"fmt"
	"net"
	"reflect"
)

// Dialed makes what a func of the host's has returned, such as Dial, either a connection or
// an error. No connection (nil, or a nil pointer) and no error is an error that names the
// func by field, such as "l4: Proxy.Dial". A connection beside an error is closed, also if
// closing panics, as that of a *tls.Conn over none does.
//
// It is for what calls such funcs: packages l4, l7 and health.
func Dialed(field string, c net.Conn, err error) (net.Conn, error) {
	v := reflect.ValueOf(c)
	none := !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil()
	switch {
	case err == nil && none:
		return nil, fmt.Errorf("%s has returned no connection and no error, but %#v: it must return one of them", field, c)
	case err == nil:
		return c, nil
	case !none:
		closeQuietly(c)
	}
	return nil, err
}

func closeQuietly(c net.Conn) {
	defer func() { _ = recover() }()
	_ = c.Close()
}
