module github.com/penstock-lb/penstock/l7/jwt

go 1.26.0

require (
	github.com/golang-jwt/jwt/v5 v5.3.0
	github.com/penstock-lb/penstock v0.1.0
	github.com/stretchr/testify v1.12.1
)

require (
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/net v0.62.0 // indirect
	golang.org/x/text v0.43.0 // indirect
	golang.org/x/time v0.16.0 // indirect
)

replace github.com/penstock-lb/penstock => ../..
