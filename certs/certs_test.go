package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"software.sslmate.com/src/go-pkcs12"

	"trading-platform/fault"
)

var (
	names = []string{"web-console.trading-platform.local", "localhost", "127.0.0.1"}
	now   = time.Now().Truncate(time.Second)
)

func options() Options {
	return Options{Stack: "mtls", Names: names, Clients: []string{"trader"}, Now: now}
}

// made is a folder that Ensure has filled.
func made(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "certs")
	_, err := Ensure(dir, options())
	require.NoError(t, err)
	return dir
}

// content is every file of a folder.
func content(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(place string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(place)
		name, _ := filepath.Rel(dir, place)
		files[name] = string(text)
		return err
	}))
	return files
}

// changed names the files that differ between two contents.
func changed(before, after map[string]string) []string {
	var names []string
	for name, text := range after {
		if before[name] != text {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func certificate(t *testing.T, dir, name string) *x509.Certificate {
	t.Helper()
	i := &inspection{dir: dir, Options: Options{Now: now.AddDate(20, 0, 0)}}
	p := i.read(name)
	require.Empty(t, i.faults)
	require.NotNil(t, p.crt, name)
	return p.crt
}

func TestEnsureMakesAFolderThatIsComplete(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "certs")
	report, err := Ensure(dir, options())
	require.NoError(t, err)

	all := []string{
		"ca.crt", "ca.key",
		"clients/trader.crt", "clients/trader.key", "clients/trader.p12", "clients/trader.p12.password",
		"dhparam.pem", "server.crt", "server.key",
	}
	assert.Equal(t, all, slices.Sorted(maps.Keys(content(t, dir))))
	var reported []string
	for _, f := range report.Files {
		reported = append(reported, f.Name)
		assert.Equal(t, missing, f.Why)
	}
	slices.Sort(reported)
	assert.Equal(t, all, reported)
	assert.Regexp(t, `server\.crt +new, good until`, report.String())
	assert.Contains(t, report.String(), "good until "+now.Add(leafLife).UTC().Format(time.DateOnly))
	assert.NoError(t, Check(dir, Options{Stack: "mtls", Names: names}))
}

func TestOnlyTheOwnerCanReadSecrets(t *testing.T) {
	dir := made(t)
	for name, mode := range map[string]os.FileMode{
		".": 0o700, "clients": 0o700, "ca.key": 0o600, "server.key": 0o600, "clients/trader.key": 0o600,
		"clients/trader.p12": 0o600, "clients/trader.p12.password": 0o600, "ca.crt": 0o644, "server.crt": 0o644,
	} {
		info, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
		assert.Equal(t, mode, info.Mode().Perm(), name)
	}
}

func TestLifetimesAndUses(t *testing.T) {
	dir := made(t)
	ca, server, client := certificate(t, dir, "ca"), certificate(t, dir, "server"), certificate(t, dir, "clients/trader")
	assert.Equal(t, now.Add(caLife).UTC(), ca.NotAfter)
	assert.True(t, ca.IsCA)
	assert.True(t, ca.MaxPathLenZero)
	assert.LessOrEqual(t, server.NotAfter.Sub(now), 397*24*time.Hour)
	assert.Equal(t, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, server.ExtKeyUsage)
	assert.Equal(t, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, client.ExtKeyUsage)
	assert.Equal(t, "trader", client.Subject.CommonName)
	assert.False(t, client.IsCA)
	assert.NotEqual(t, server.SerialNumber, client.SerialNumber)
	for _, crt := range []*x509.Certificate{ca, server, client} {
		key, ok := crt.PublicKey.(*ecdsa.PublicKey)
		require.True(t, ok)
		assert.Equal(t, elliptic.P256(), key.Curve)
		assert.True(t, crt.NotBefore.Before(now))
	}
}

func TestSecondRunChangesNothing(t *testing.T) {
	dir := made(t)
	before := content(t, dir)
	report, err := Ensure(dir, options())
	require.NoError(t, err)
	assert.Empty(t, report.Files)
	assert.Equal(t, "certificates in "+dir+" are good: nothing to do", report.String())
	assert.Equal(t, before, content(t, dir))
}

func TestEnsureChangesOnlyWhatNeedsIt(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(t *testing.T, dir string)
		options func(*Options)
		want    []string
		why     string
	}{
		"another client": {
			options: func(o *Options) { o.Clients = append(o.Clients, "ops@desk") },
			want:    []string{"clients/ops@desk.crt", "clients/ops@desk.key", "clients/ops@desk.p12", "clients/ops@desk.p12.password"},
			why:     missing,
		},
		"another server name": {
			options: func(o *Options) { o.Names = append(o.Names, "10.1.2.3", "*.desk.example") },
			want:    []string{"server.crt"},
			why:     "it does not cover 10.1.2.3, *.desk.example",
		},
		"leaves about to end": {
			options: func(o *Options) { o.Now = now.Add(leafLife - renewBefore + time.Hour) },
			want:    []string{"clients/trader.crt", "clients/trader.p12", "server.crt"},
			why:     "it expires on",
		},
		"a client that is not asked for, about to end": {
			options: func(o *Options) { o.Clients, o.Now = nil, now.Add(leafLife-time.Hour) },
			want:    []string{"clients/trader.crt", "clients/trader.p12", "server.crt"},
			why:     "it expires on",
		},
		"a client who took the key away": {
			prepare: func(t *testing.T, dir string) {
				for _, suffix := range []string{"key", "p12", "p12.password"} {
					require.NoError(t, os.Remove(filepath.Join(dir, "clients/trader."+suffix)))
				}
			},
		},
		"the same, not asked for, about to end": {
			prepare: func(t *testing.T, dir string) {
				require.NoError(t, os.Remove(filepath.Join(dir, "clients/trader.key")))
			},
			options: func(o *Options) { o.Clients, o.Now = nil, now.Add(leafLife-time.Hour) },
			want:    []string{"server.crt"},
			why:     "it expires on",
		},
		"a broken client that is not asked for": {
			prepare: func(t *testing.T, dir string) {
				for _, suffix := range []string{"crt", "key"} {
					require.NoError(t, os.WriteFile(filepath.Join(dir, "clients/former."+suffix), []byte("nothing"), 0o600))
				}
			},
		},
		"leaves that ended": {
			options: func(o *Options) { o.Now = now.Add(leafLife + time.Hour) },
			want:    []string{"clients/trader.crt", "clients/trader.p12", "server.crt"},
			why:     "it expired on",
		},
		"authority about to end": {
			options: func(o *Options) { o.Now = now.Add(caLife - time.Hour) },
			want:    []string{"ca.crt", "clients/trader.crt", "clients/trader.p12", "server.crt"},
			why:     "it expires on",
		},
		"a run that was cut off after a key": {
			prepare: func(t *testing.T, dir string) { require.NoError(t, os.Remove(filepath.Join(dir, "server.crt"))) },
			want:    []string{"server.crt"},
			why:     missing,
		},
		"a bundle that is missing": {
			prepare: func(t *testing.T, dir string) {
				require.NoError(t, os.Remove(filepath.Join(dir, "clients/trader.p12")))
			},
			want: []string{"clients/trader.p12"},
			why:  missing,
		},
		"an authority whose key lies elsewhere, with nothing to sign": {
			prepare: func(t *testing.T, dir string) { require.NoError(t, os.Remove(filepath.Join(dir, "ca.key"))) },
		},
		"force": {
			options: func(o *Options) { o.Force = true },
			want: []string{
				"ca.crt", "ca.key",
				"clients/trader.crt", "clients/trader.key", "clients/trader.p12", "clients/trader.p12.password",
				"server.crt", "server.key",
			},
			why: missing,
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := made(t)
			if c.prepare != nil {
				c.prepare(t, dir)
			}
			before := content(t, dir)
			o := options()
			if c.options != nil {
				c.options(&o)
			}
			report, err := Ensure(dir, o)
			require.NoError(t, err)
			after := content(t, dir)
			assert.Equal(t, c.want, changed(before, after))
			if c.why != "" {
				assert.Contains(t, report.Files[0].Why, c.why)
			}
			if c.prepare == nil || len(c.want) > 0 {
				assert.NoError(t, Check(dir, Options{Stack: "mtls", Names: o.Names, Now: o.Now}))
			}
			roots := x509.NewCertPool()
			roots.AddCert(certificate(t, dir, "ca"))
			for _, leaf := range []string{"server", "clients/trader"} {
				if leaf == "clients/trader" && !strings.Contains(strings.Join(slices.Collect(maps.Keys(after)), " "), leaf+".key") {
					continue
				}
				_, err := certificate(t, dir, leaf).Verify(x509.VerifyOptions{Roots: roots, CurrentTime: o.Now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
				assert.NoError(t, err, leaf)
			}
		})
	}
}

func TestAClientThatEndsWithoutItsKeyIsAFault(t *testing.T) {
	dir := made(t)
	require.NoError(t, os.Remove(filepath.Join(dir, "clients/trader.key")))
	o := options()
	o.Now = now.Add(leafLife - time.Hour)
	_, err := Ensure(dir, o)
	assert.ErrorContains(t, err, "trader.key: it is missing")
	assert.ErrorContains(t, err, "put the key of trader.crt there, or issue both again: rm -f ")
}

func TestALeafDoesNotOutliveItsAuthority(t *testing.T) {
	dir := made(t)
	o := options()
	o.Now = now.Add(caLife - 60*24*time.Hour)
	_, err := Ensure(dir, o)
	require.NoError(t, err)
	assert.Equal(t, certificate(t, dir, "ca").NotAfter, certificate(t, dir, "server").NotAfter)
}

func TestClientBundleOpensWithItsPassword(t *testing.T) {
	dir := made(t)
	bundle, err := os.ReadFile(filepath.Join(dir, "clients/trader.p12"))
	require.NoError(t, err)
	password, err := os.ReadFile(filepath.Join(dir, "clients/trader.p12.password"))
	require.NoError(t, err)
	key, crt, cas, err := pkcs12.DecodeChain(bundle, strings.TrimSpace(string(password)))
	require.NoError(t, err)
	assert.Equal(t, certificate(t, dir, "clients/trader").Raw, crt.Raw)
	assert.True(t, key.(*ecdsa.PrivateKey).PublicKey.Equal(crt.PublicKey))
	require.Len(t, cas, 1)
	assert.Equal(t, certificate(t, dir, "ca").Raw, cas[0].Raw)
	assert.GreaterOrEqual(t, len(strings.TrimSpace(string(password))), 26)
}

// Each way to break a folder, what Check says of it, and that doing what it says fixes it.
func TestFaults(t *testing.T) {
	remove := func(name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) { require.NoError(t, os.Remove(filepath.Join(dir, name))) }
	}
	put := func(name, text string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
		}
	}
	// foreign takes files from another authority's folder.
	foreign := func(names ...string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			other := content(t, made(t))
			for _, name := range names {
				put(name, other[name])(t, dir)
			}
		}
	}
	for name, c := range map[string]struct {
		spoil func(*testing.T, string)
		now   time.Time
		names []string
		where string
		what  string
		fix   string
	}{
		"server certificate missing": {
			spoil: remove("server.crt"), where: "server.crt", what: "it is missing", fix: "platform certs -s mtls",
		},
		"server key missing": {
			spoil: remove("server.key"), where: "server.key", what: "it is missing", fix: "put the key of server.crt there, or issue both again: rm -f SERVER && platform certs -s mtls",
		},
		"authority missing": {
			spoil: func(t *testing.T, dir string) { remove("ca.crt")(t, dir); remove("ca.key")(t, dir) },
			where: "ca.crt", what: "it is missing", fix: "put back the one that signed server.crt, or: platform certs -s mtls --force",
		},
		"Diffie-Hellman group missing": {
			spoil: remove("dhparam.pem"), where: "dhparam.pem", what: "it is missing", fix: "platform certs -s mtls",
		},
		"Diffie-Hellman group unreadable": {
			spoil: put("dhparam.pem", "nothing"), where: "dhparam.pem", what: "it holds no Diffie-Hellman group", fix: "rm -f DH && platform certs -s mtls",
		},
		"not in PEM": {
			spoil: put("server.crt", "nothing"), where: "server.crt", what: "it holds no certificate: it is not in PEM format", fix: "rm -f SERVER && platform certs -s mtls",
		},
		"no certificate": {
			spoil: put("server.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), where: "server.crt", what: "it holds no certificate",
			fix: "rm -f SERVER && platform certs -s mtls",
		},
		"no key": {
			spoil: put("server.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), where: "server.key", what: "it is not the key of server.crt, or it has a password: tls: failed to parse private key",
			fix: "rm -f SERVER && platform certs -s mtls",
		},
		"key of another certificate": {
			spoil: foreign("server.key"), where: "server.key", what: "it is not the key of server.crt", fix: "rm -f SERVER && platform certs -s mtls",
		},
		"certificate of another authority": {
			spoil: foreign("server.crt", "server.key"), where: "server.crt", what: "it is not signed by ca.crt", fix: "rm -f SERVER && platform certs -s mtls",
		},
		"an authority that is none": {
			spoil: func(t *testing.T, dir string) {
				files := content(t, dir)
				put("ca.crt", files["clients/trader.crt"])(t, dir)
				put("ca.key", files["clients/trader.key"])(t, dir)
			},
			where: "ca.crt", what: "it is not the certificate of an authority", fix: "platform certs -s mtls --force",
		},
		"expired": {
			now: now.Add(leafLife + 24*time.Hour), where: "server.crt", what: "it expired on " + now.Add(leafLife).UTC().Format(time.DateOnly), fix: "platform certs -s mtls",
		},
		"not yet valid": {
			now: now.Add(-time.Hour), where: "ca.crt", what: "it is not valid before", fix: "set this machine's clock, or: platform certs -s mtls --force",
		},
		"name not covered": {
			names: append([]string{"other.example", "10.0.0.1"}, names...), where: "server.crt", what: "it does not cover other.example, 10.0.0.1", fix: "platform certs -s mtls",
		},
		"key open to others": {
			spoil: func(t *testing.T, dir string) {
				require.NoError(t, os.Chmod(filepath.Join(dir, "server.key"), 0o640))
			},
			where: "server.key", what: "others than its owner can read it", fix: "platform certs -s mtls",
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := made(t)
			if c.spoil != nil {
				c.spoil(t, dir)
			}
			at, wanted := now, names
			if !c.now.IsZero() {
				at = c.now
			}
			if c.names != nil {
				wanted = c.names
			}
			err := Check(dir, Options{Stack: "mtls", Names: wanted, Now: at})
			var faults fault.List
			require.ErrorAs(t, err, &faults)
			found := slices.IndexFunc(faults, func(f fault.Fault) bool { return strings.HasPrefix(f.What, c.what) })
			require.GreaterOrEqual(t, found, 0, "%v", err)
			assert.Equal(t, filepath.Join(dir, c.where), faults[found].Where)
			fix := strings.NewReplacer(
				"SERVER", fmt.Sprintf("%q %q", filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key")),
				"DH", fmt.Sprintf("%q", filepath.Join(dir, "dhparam.pem")),
			).Replace(c.fix)
			assert.Equal(t, fix, faults[found].Fix)

			o := options()
			o.Now, o.Names = at, wanted
			before := content(t, dir)
			if _, err = Ensure(dir, o); err != nil {
				assert.NotEqual(t, "platform certs -s mtls", c.fix)
				assert.Equal(t, before, content(t, dir), "a run that fails writes nothing")
			}
			if _, list, ok := strings.Cut(faults[found].Fix, "rm -f "); ok {
				for _, file := range strings.Fields(strings.Split(list, "&&")[0]) {
					_ = os.Remove(strings.Trim(file, `"`)) // it may not exist
				}
			}
			o.Force = strings.HasSuffix(c.fix, "--force")
			_, err = Ensure(dir, o)
			require.NoError(t, err)
			assert.NoError(t, Check(dir, Options{Stack: "mtls", Names: wanted, Now: at}), "what the fix says fixes it")
		})
	}
}

func TestAllFaultsAtOnce(t *testing.T) {
	dir := made(t)
	require.NoError(t, os.Remove(filepath.Join(dir, "dhparam.pem")))
	require.NoError(t, os.Chmod(filepath.Join(dir, "ca.key"), 0o644))
	err := Check(dir, Options{Stack: "oauth2", Names: []string{"other.example"}, Now: now.Add(leafLife + time.Hour)})
	var faults fault.List
	require.ErrorAs(t, err, &faults)
	assert.Len(t, faults, 3)
	assert.Regexp(t, "^it expired on .*, and it does not cover other.example$", faults[0].What)
	for _, f := range faults {
		assert.Equal(t, "platform certs -s oauth2", f.Fix)
	}
}

func TestEmptyFolderFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "none")
	var faults fault.List
	require.ErrorAs(t, Check(dir, Options{Stack: "mtls", Names: names}), &faults)
	assert.Len(t, faults, 4)
	_, err := Load(dir)
	assert.ErrorContains(t, err, "ca.crt")
	assert.ErrorContains(t, err, "server.key")
}

func TestEnsureRefusesNames(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	_, err := Ensure(dir, Options{Stack: "mtls", Names: names, Clients: []string{"../up", ""}})
	var faults fault.List
	require.ErrorAs(t, err, &faults)
	assert.Len(t, faults, 2)
	assert.NoDirExists(t, dir)
}

func TestCertificatesFromElsewhereAreKept(t *testing.T) {
	// An RSA server certificate, say of a company's authority that keeps its own key.
	dir := made(t)
	i := &inspection{dir: dir, Options: options()}
	ca := i.read("ca")
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	server := &pair{name: "server", key: key}
	require.NoError(t, server.signBy(ca, serverTemplate(names), now))
	require.NoError(t, os.WriteFile(i.path("server.key"), encode("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key)), 0o600))
	require.NoError(t, os.WriteFile(i.path("server.crt"), encode("CERTIFICATE", server.crt.Raw), 0o600))
	require.NoError(t, os.Remove(filepath.Join(dir, "ca.key")))

	before := content(t, dir)
	require.NoError(t, Check(dir, options()))
	report, err := Ensure(dir, options())
	require.NoError(t, err)
	assert.Empty(t, report.Files)

	o := options()
	o.Names = append(o.Names, "more.example")
	o.Clients = append(o.Clients, "second")
	_, err = Ensure(dir, o)
	assert.ErrorContains(t, err, "it needs to be made (it does not cover more.example), and ca.key is not there to sign it")
	assert.ErrorContains(t, err, "second.crt")
	o = options()
	o.Now = now.Add(caLife + time.Hour)
	_, err = Ensure(dir, o)
	assert.ErrorContains(t, err, "ca.key is not there to renew it")
	assert.Equal(t, before, content(t, dir))
}

func TestLoadGivesWhatNginxReads(t *testing.T) {
	dir := made(t)
	files, err := Load(dir)
	require.NoError(t, err)
	assert.Equal(t, []string{"ca.crt", "dhparam.pem", "server.crt", "server.key"}, slices.Sorted(maps.Keys(files)))
	block, rest := pem.Decode([]byte(files["dhparam.pem"]))
	require.NotNil(t, block)
	assert.Equal(t, "DH PARAMETERS", block.Type)
	assert.Empty(t, bytes.TrimSpace(rest))
}

func TestHandshakes(t *testing.T) {
	dir, other := made(t), made(t)
	pool := func(dir string) *x509.CertPool {
		p := x509.NewCertPool()
		p.AddCert(certificate(t, dir, "ca"))
		return p
	}
	load := func(dir, name string) tls.Certificate {
		c, err := tls.LoadX509KeyPair(filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key"))
		require.NoError(t, err)
		return c
	}
	for name, c := range map[string]struct {
		server string // folder of the server
		host   string
		client []tls.Certificate
		later  time.Duration
		want   string
	}{
		"a good client by name":        {dir, "web-console.trading-platform.local", []tls.Certificate{load(dir, "clients/trader")}, 0, ""},
		"a good client by address":     {dir, "127.0.0.1", []tls.Certificate{load(dir, "clients/trader")}, 0, ""},
		"no certificate":               {dir, "localhost", nil, 0, "client didn't provide a certificate"},
		"a client of another CA":       {dir, "localhost", []tls.Certificate{load(other, "clients/trader")}, 0, "unknown authority"},
		"a server's as a client's":     {dir, "localhost", []tls.Certificate{load(dir, "server")}, 0, "incompatible key usage"},
		"an expired client":            {dir, "localhost", []tls.Certificate{load(dir, "clients/trader")}, leafLife + time.Hour, "expired"},
		"a server under another name":  {dir, "other.example", []tls.Certificate{load(dir, "clients/trader")}, 0, "not other.example"},
		"a server of another CA":       {other, "localhost", []tls.Certificate{load(dir, "clients/trader")}, 0, "unknown authority"},
		"another address than covered": {dir, "127.0.0.2", []tls.Certificate{load(dir, "clients/trader")}, 0, "not 127.0.0.2"},
	} {
		t.Run(name, func(t *testing.T) {
			serverEnd, clientEnd := net.Pipe()
			at := func() time.Time { return now.Add(c.later) }
			server := tls.Server(serverEnd, &tls.Config{
				Certificates: []tls.Certificate{load(c.server, "server")}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool(dir), Time: at,
			})
			client := tls.Client(clientEnd, &tls.Config{
				// The client goes by the true time, so that the server's is the verdict on what expired.
				Certificates: c.client, RootCAs: pool(dir), ServerName: c.host, Time: func() time.Time { return now },
			})
			result := make(chan error, 1)
			go func() {
				_, err := server.Write([]byte("hello"))
				result <- err
				serverEnd.Close()
			}()
			text, clientErr := io.ReadAll(io.LimitReader(client, 5))
			clientEnd.Close()
			serverErr := <-result
			if c.want == "" {
				require.NoError(t, serverErr)
				require.NoError(t, clientErr)
				assert.Equal(t, "hello", string(text))
				return
			}
			said := ""
			for _, err := range []error{serverErr, clientErr} {
				if err != nil {
					said += err.Error() + "\n"
				}
			}
			assert.Contains(t, said, c.want)
			assert.Empty(t, text)
		})
	}
}
