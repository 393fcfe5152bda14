// SPDX-License-Identifier: Apache-2.0

package l4_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
)

func ExampleCertificateFiles() {
	dir, _ := os.MkdirTemp("", "example")
	defer os.RemoveAll(dir)
	ca := l4test.NewAuthority("authority")
	deploy := func(name string) {
		certs, key := l4test.CertificatePEM(ca.Issue(name))
		_ = os.WriteFile(filepath.Join(dir, "new"), append(certs, key...), 0o600)
		_ = os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "gateway.pem"))
	}
	deploy("a.test")

	certs := new(l4.Certificates)
	read := make(chan l4.Reload)
	files := &l4.CertificateFiles{
		Pairs: []l4.KeyPair{{CertFile: filepath.Join(dir, "gateway.pem")}}, Certificates: certs,
		Interval: 10 * time.Millisecond, OnReload: func(r l4.Reload) { read <- r },
	}
	fmt.Println(files.Load())
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go files.Run(ctx)
	show := func() {
		for c := range certs.All() {
			fmt.Println(c.Leaf.DNSNames)
		}
	}
	show()
	deploy("b.test")
	<-read
	show()
	// Output:
	// <nil>
	// [a.test]
	// [b.test]
}
