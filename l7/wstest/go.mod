module github.com/penstock-lb/penstock/l7/wstest

go 1.26.0

require (
	github.com/coder/websocket v1.8.15
	github.com/gorilla/websocket v1.5.3
	github.com/penstock-lb/penstock v0.1.0
	golang.org/x/net v0.62.0
)

require (
	golang.org/x/text v0.43.0 // indirect
	golang.org/x/time v0.16.0 // indirect
)

replace github.com/penstock-lb/penstock => ../..
