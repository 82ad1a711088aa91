package stack

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"github.com/pulumi/pulumi/sdk/v3/go/common/util/pulumihome"
)

// Home returns Pulumi's own folder: PULUMI_HOME, or else .pulumi in the home folder.
func Home() (string, error) {
	home, err := pulumihome.Dir()
	if err != nil {
		return "", fmt.Errorf("no home folder for Pulumi's state: %w. Fix: set PULUMI_HOME", err)
	}
	return home, nil
}

// Backend returns the URL of the user's backend: PULUMI_BACKEND_URL, or the backend that
// the user is logged in to, or else Pulumi's default for local state.
func Backend(home string) string {
	var credentials struct{ Current string }
	if text, err := os.ReadFile(filepath.Join(home, "credentials.json")); err == nil {
		_ = json.Unmarshal(text, &credentials) // the CLI says what is wrong with it
	}
	return cmp.Or(os.Getenv("PULUMI_BACKEND_URL"), credentials.Current, "file://~")
}

// LocalFolder returns the folder of a backend with local files, or "" for any other backend.
func LocalFolder(backend string) string {
	path, ok := strings.CutPrefix(backend, "file://")
	if !ok {
		return ""
	}
	path, _, _ = strings.Cut(path, "?")
	if rest, home := strings.CutPrefix(path, "~"); home {
		if me, err := user.Current(); err == nil {
			path = filepath.Join(me.HomeDir, rest)
		}
	}
	return filepath.Clean(path)
}

// DefaultIdentity returns the identity of a stack that has no such setting. It is the same
// in each run, and differs between backends. For local state it differs between machines
// and users as well, because their backends can have the same URL.
func DefaultIdentity(backend, organization, stack string) string {
	place := backend
	if folder := LocalFolder(backend); folder != "" {
		host, _ := os.Hostname()
		place = fmt.Sprintf("%s/%d%s", host, os.Getuid(), folder)
	}
	sum := sha256.Sum256([]byte(place + "\n" + organization + "/" + stack))
	return hex.EncodeToString(sum[:6])
}
