module github.com/penstock-lb/penstock/examples/http3

go 1.26.0

require (
	github.com/penstock-lb/penstock v0.1.0
	github.com/penstock-lb/penstock/l7/h3 v0.1.0
	github.com/quic-go/quic-go v0.65.0
	github.com/stretchr/testify v1.12.1
)

require (
	github.com/quic-go/qpack v0.6.0 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/net v0.62.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/text v0.43.0 // indirect
	golang.org/x/time v0.16.0 // indirect
)

replace github.com/penstock-lb/penstock => ../..

replace github.com/penstock-lb/penstock/l7/h3 => ../../l7/h3
