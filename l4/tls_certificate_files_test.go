// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"crypto/tls"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4/l4test"
)

// followed are certificate files that are followed, and what was told.
type followed struct {
	*testing.T
	dir   string
	ca    *l4test.Authority
	certs *Certificates

	mu   sync.Mutex
	said []string
}

// told returns what was told since it was last called.
func (f *followed) told() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	said := f.said
	f.said = nil
	return said
}

func follows(t *testing.T, test func(f *followed)) {
	synctest.Test(t, func(t *testing.T) {
		f := &followed{T: t, dir: t.TempDir(), ca: l4test.NewAuthority("authority"), certs: new(Certificates)}
		test(f)
	})
}

// run follows the pairs while do runs.
func (f *followed) run(do func(), pairs ...KeyPair) {
	f.Helper()
	files := &CertificateFiles{Pairs: pairs, Certificates: f.certs, OnReload: func(r Reload) {
		what := "read"
		if r.Err != nil {
			what = r.Err.Error()
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.said = append(f.said, filepath.Base(r.Files[0])+": "+what)
	}}
	require.NoError(f, files.Load())
	ctx, cancel := context.WithCancel(f.Context())
	ran := make(chan error, 1)
	go func() { ran <- files.Run(ctx) }()
	synctest.Wait()
	do()
	cancel()
	require.ErrorIs(f, <-ran, context.Canceled)
}

// pair writes a pair for a name, and returns its paths and the certificate.
func (f *followed) pair(dir, name string) (KeyPair, tls.Certificate) {
	cert := f.ca.Issue(name)
	certs, key := l4test.CertificatePEM(cert)
	return KeyPair{write(f, dir, "tls.crt", certs), write(f, dir, "tls.key", key)}, cert
}

// requireShown waits for that many looks and requires that the certificate is shown.
func (f *followed) requireShown(looks int, want tls.Certificate) {
	f.Helper()
	time.Sleep(time.Duration(looks) * 10 * time.Second)
	synctest.Wait()
	got, err := f.certs.Get(&tls.ClientHelloInfo{})
	require.NoError(f, err)
	require.Equal(f, want.Leaf.SerialNumber, got.Leaf.SerialNumber)
}

func TestCertificateFilesByRename(t *testing.T) {
	follows(t, func(f *followed) {
		pair, first := f.pair(f.dir, "a.test")
		f.run(func() {
			f.requireShown(3, first)
			require.Empty(f, f.told())
			_, second := f.pair(f.dir, "a.test")
			f.requireShown(1, second)
			require.Equal(f, []string{"tls.crt: read"}, f.told())
			// One file is there before the other: what is shown goes together, and it is no news.
			third := f.ca.Issue("a.test")
			certs, key := l4test.CertificatePEM(third)
			write(f, f.dir, "tls.crt", certs)
			f.requireShown(1, second)
			write(f, f.dir, "tls.key", key)
			f.requireShown(1, third)
			require.Equal(f, []string{"tls.crt: read"}, f.told())
		}, pair)
	})
}

// A pair that cannot be used leaves the old one in force, and is told of once for each
// mistake.
func TestCertificateFilesKeepsWhatWorks(t *testing.T) {
	follows(t, func(f *followed) {
		pair, first := f.pair(f.dir, "a.test")
		good, err := os.ReadFile(pair.CertFile)
		require.NoError(f, err)
		_, foreign := l4test.CertificatePEM(f.ca.Issue("a.test"))
		f.run(func() {
			for _, tt := range []struct {
				file    string
				content []byte
				want    string
			}{
				{"tls.key", foreign, "private key does not match"}, {"tls.crt", []byte("nonsense"), "failed to find any PEM data"}, {"tls.crt", good, "private key does not match"},
			} {
				write(f, f.dir, tt.file, tt.content)
				f.requireShown(5, first)
				told := f.told()
				require.Len(f, told, 1, tt.want)
				require.Contains(f, told[0], tt.want)
			}
			write(f, f.dir, "tls.crt", nil)
			write(f, f.dir, "tls.crt", good[:len(good)/2])
			f.requireShown(5, first)
			write(f, f.dir, "tls.crt", nil)
			f.requireShown(5, first)
			require.Len(f, f.told(), 1, "the same is wrong with both")
			require.NoError(f, os.Remove(pair.CertFile))
			f.requireShown(5, first)
			told := f.told()
			require.Len(f, told, 1)
			require.Contains(f, told[0], "tls.crt: stat ")
			_, second := f.pair(f.dir, "a.test")
			f.requireShown(2, second)
			require.Equal(f, []string{"tls.crt: read"}, f.told())
		}, pair)
	})
}

// Kubernetes mounts a secret as links to a directory that is switched as a whole.
func TestCertificateFilesInVolumeOfKubernetes(t *testing.T) {
	follows(t, func(f *followed) {
		mount := func(version, name string) tls.Certificate {
			require.NoError(f, os.Mkdir(filepath.Join(f.dir, version), 0o700))
			_, cert := f.pair(filepath.Join(f.dir, version), name)
			require.NoError(f, os.Symlink(version, filepath.Join(f.dir, "..data_tmp")))
			require.NoError(f, os.Rename(filepath.Join(f.dir, "..data_tmp"), filepath.Join(f.dir, "..data")))
			return cert
		}
		first := mount("..2026_1", "a.test")
		for _, name := range []string{"tls.crt", "tls.key"} {
			require.NoError(f, os.Symlink(filepath.Join("..data", name), filepath.Join(f.dir, name)))
		}
		f.run(func() {
			f.requireShown(1, first)
			second := mount("..2026_2", "a.test")
			require.NoError(f, os.RemoveAll(filepath.Join(f.dir, "..2026_1")))
			f.requireShown(1, second)
			require.Equal(f, []string{"tls.crt: read"}, f.told())
		}, KeyPair{filepath.Join(f.dir, "tls.crt"), filepath.Join(f.dir, "tls.key")})
	})
}

// Half of a file that is written in place is not read: its chain would be incomplete.
func TestCertificateFilesWrittenInPlace(t *testing.T) {
	follows(t, func(f *followed) {
		bundle := func() (tls.Certificate, []byte) {
			cert := f.ca.Sub("department").Issue("a.test")
			certs, key := l4test.CertificatePEM(cert)
			return cert, append(key, certs...)
		}
		first, content := bundle()
		path := write(f, f.dir, "a.pem", content)
		f.run(func() {
			second, content := bundle()
			half := strings.LastIndex(string(content), "-----BEGIN")
			require.NoError(f, os.WriteFile(path, content[:half], 0o600))
			f.requireShown(1, first)
			file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			require.NoError(f, err)
			_, err = file.Write(content[half:])
			require.NoError(f, err)
			require.NoError(f, file.Close())
			f.requireShown(1, first)
			f.requireShown(1, second)
			got, err := f.certs.Get(&tls.ClientHelloInfo{})
			require.NoError(f, err)
			require.Len(f, got.Certificate, 2)
		}, KeyPair{CertFile: path})
	})
}

// A pair that is broken does not hold the others up, nor does one that was never there.
func TestCertificateFilesAreIndependent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		ca, certs := l4test.NewAuthority("authority"), new(Certificates)
		bundle := func(name string) []byte {
			c, k := l4test.CertificatePEM(ca.Issue(name))
			return append(c, k...)
		}
		var log lockedLog
		files := &CertificateFiles{
			Pairs:        []KeyPair{{CertFile: filepath.Join(dir, "none.pem")}, {CertFile: write(t, dir, "a.pem", bundle("a.test"))}},
			Certificates: certs, Logger: slog.New(slog.NewTextHandler(&log, nil)),
		}
		require.ErrorContains(t, files.Load(), "none.pem")
		names := func() (all []string) {
			for c := range certs.All() {
				all = append(all, c.Leaf.DNSNames...)
			}
			return all
		}
		require.Equal(t, []string{"a.test"}, names())
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- files.Run(ctx) }()
		time.Sleep(time.Minute)
		require.Empty(t, log.String(), "Load has said it")
		write(t, dir, "none.pem", bundle("b.test"))
		write(t, dir, "a.pem", nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, []string{"b.test", "a.test"}, names())
		require.Contains(t, log.String(), "level=INFO msg=\"l4: files were read again\"")
		require.Equal(t, 1, strings.Count(log.String(), "level=ERROR"))
		cancel()
		require.ErrorIs(t, <-ran, context.Canceled)
		require.Error(t, new(CertificateFiles).Run(t.Context()))
		files = &CertificateFiles{Pairs: []KeyPair{{CertFile: filepath.Join(dir, "a.pem")}}, Certificates: new(Certificates), MaxBytes: -1}
		require.NoError(t, os.WriteFile(filepath.Join(dir, "a.pem"), bundle("a.test"), 0o600))
		require.NoError(t, files.Load())
	})
}

// A lockedLog is written and read by goroutines that do not wait for each other.
type lockedLog struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
