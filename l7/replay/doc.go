// SPDX-License-Identifier: Apache-2.0

// Package replay keeps what a gateway was asked for in a file, and asks another pool
// for the same, at the same pace or another one: to try a new version with yesterday's
// load.
//
//	log := &accesslog.File{Path: "requests.jsonl"}
//	gateway := &l7.Server{Handler: router, OnDone: replay.To(log)}
//
//	player := &replay.Player{To: &l7.Transport{Pool: candidates}, Speed: 2}
//	result, err := player.Run(ctx, file)
//
// Records have neither fields nor bodies of requests, so that no secrets get into the
// file but those in paths and queries, and what is played is GET and HEAD.
package replay
