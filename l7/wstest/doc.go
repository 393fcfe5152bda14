// SPDX-License-Identifier: Apache-2.0

// Package wstest runs WebSocket clients and servers of others (gorilla/websocket
// and coder/websocket) through l7, over HTTP/1 and HTTP/2 on either side: messages
// and fragments, pings, close codes, compression, and what a hostile peer sends. It
// is a module of its own for what it depends on.
package wstest
