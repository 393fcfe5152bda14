module github.com/penstock-lb/penstock/l7/compress

go 1.26.0

replace github.com/penstock-lb/penstock => ../..

require (
	github.com/andybalholm/brotli v1.3.0
	github.com/klauspost/compress v1.20.1
	github.com/penstock-lb/penstock v0.1.0
	github.com/stretchr/testify v1.12.1
)

require (
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/net v0.62.0 // indirect
	golang.org/x/time v0.16.0 // indirect
)
