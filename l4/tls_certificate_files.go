// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/penstock-lb/penstock"
)

// CertificateFiles keeps [Certificates] as files have them: certbot, cert-manager or an
// operator replaces the files, and the next handshake shows the new certificate.
//
//	files := &l4.CertificateFiles{
//		Pairs:        []l4.KeyPair{{CertFile: "a.crt", KeyFile: "a.key"}, {CertFile: "b.pem"}},
//		Certificates: certs,
//	}
//	err := files.Load()    // before it serves
//	go files.Run(ctx)      // while it does
//
// A pair whose files have changed is read anew. One that cannot be used (a file is
// missing, the key is of another certificate, it is not PEM) leaves the one in force
// that was read before, and is told of, once; the other pairs do not wait for it. All
// that have changed at a look take effect at once. Handshakes never touch a file.
//
// A file may be replaced by a rename, by a symbolic link that leads elsewhere, as
// Kubernetes does in volumes of secrets, or be written in place; that takes an Interval
// longer, as half of it may be there.
//
// Its fields must not change once a method is called.
type CertificateFiles struct {
	Pairs        []KeyPair     // in the order of Certificates.Set
	Certificates *Certificates // which Load and Run set

	Interval time.Duration // between two looks at the files; 0 means 10s
	MaxBytes int64         // of a file; 0 means 32 MiB, negative means no limit

	// OnReload is called when files were read anew, or cannot be used. It must not
	// block. Nil means that Logger is told.
	OnReload func(Reload)
	Logger   *slog.Logger // nil means slog.Default()

	sets  []*fileSet
	pairs []*tls.Certificate // by the index of Pairs; nil if none was read
}

// A KeyPair names the files of a certificate, both PEM.
type KeyPair struct {
	CertFile string // of the certificate and, after it, those between it and the authority
	KeyFile  string // "" means that the key is in CertFile, as HAProxy has it
}

// Check returns what is wrong with f, each a [*penstock.ConfigError]. Load and Run call it.
func (f *CertificateFiles) Check() error {
	var m penstock.Mistakes
	m.If(len(f.Pairs) == 0, "CertificateFiles.Pairs", nil, "must name the files of a certificate")
	for i, p := range f.Pairs {
		m.In(fmt.Sprintf("CertificateFiles.Pairs[%d]", i), p)
	}
	m.Need("CertificateFiles.Certificates", f.Certificates, "must be the Certificates to set")
	m.In("CertificateFiles.Certificates", f.Certificates)
	m.If(f.Interval < 0, "CertificateFiles.Interval", f.Interval, notNegative)
	return m.Err()
}

// Check returns what is wrong with p.
func (p KeyPair) Check() error {
	var m penstock.Mistakes
	m.If(p.CertFile == "", "KeyPair.CertFile", p.CertFile, "must be the path of a file")
	return m.Err()
}

// Load reads the files now and sets Certificates to the pairs that can be used. The
// error names the others. It must not be called while Run runs.
func (f *CertificateFiles) Load() error {
	if err := f.Check(); err != nil {
		return err
	}
	return f.load()
}

func (f *CertificateFiles) load() error {
	f.open()
	err := load(f.sets)
	return errors.Join(err, f.set())
}

// Run follows the files until ctx ends, and returns why it did. It loads them first, if
// that was not done.
func (f *CertificateFiles) Run(ctx context.Context) error {
	if f.sets == nil {
		if err := f.Check(); err != nil {
			return err
		}
		if err := f.load(); err != nil {
			tellReload(f.Logger, f.OnReload, Reload{Err: err})
		}
	}
	return follow(ctx, f.sets, f.Interval, func() { _ = f.set() }, func(r Reload) { tellReload(f.Logger, f.OnReload, r) })
}

func (f *CertificateFiles) open() {
	if f.sets != nil {
		return
	}
	f.pairs = make([]*tls.Certificate, len(f.Pairs))
	for i, p := range f.Pairs {
		paths := []string{p.CertFile}
		if p.KeyFile != "" {
			paths = append(paths, p.KeyFile)
		}
		f.sets = append(f.sets, &fileSet{paths: paths, most: fileBytes(f.MaxBytes), use: func(contents [][]byte) error {
			cert, err := tls.X509KeyPair(contents[0], contents[len(contents)-1])
			if err == nil {
				f.pairs[i] = &cert
			}
			return err
		}})
	}
}

// set makes the pairs those of Certificates. None of them is wrong.
func (f *CertificateFiles) set() error {
	var certs []tls.Certificate
	for _, c := range f.pairs {
		if c != nil {
			certs = append(certs, *c)
		}
	}
	return f.Certificates.Set(certs...)
}
