package stack

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"strings"
)

// Home is Pulumi's own folder: PULUMI_HOME, else .pulumi in the home folder.
func Home(getenv func(string) string) (string, error) {
	if home := getenv("PULUMI_HOME"); home != "" {
		return home, nil
	}
	// As Pulumi finds it: in the user's entry in passwd, whatever HOME says.
	me, err := user.Current()
	if err != nil {
		return "", fmt.Errorf("no home folder for Pulumi's state: %w. Fix: set PULUMI_HOME", err)
	}
	return filepath.Join(me.HomeDir, ".pulumi"), nil
}

// Backend is the URL of the place where the user keeps state: as the environment
// says, as they are logged in, else Pulumi's own place for local state.
func Backend(getenv func(string) string, home string) string {
	if b := getenv("PULUMI_BACKEND_URL"); b != "" {
		return b
	}
	var credentials struct{ Current string }
	if text, err := os.ReadFile(filepath.Join(home, "credentials.json")); err == nil {
		if json.Unmarshal(text, &credentials) == nil && credentials.Current != "" {
			return credentials.Current
		}
	}
	return "file://~"
}

// LocalFolder is the folder of a backend that keeps its state in local files; empty for any other.
func LocalFolder(backend string) string {
	path, ok := strings.CutPrefix(backend, "file://")
	if !ok {
		return ""
	}
	if u, err := url.Parse(backend); err == nil && u.RawQuery != "" {
		path = strings.TrimSuffix(path, "?"+u.RawQuery)
	}
	if rest, home := strings.CutPrefix(path, "~"); home {
		if me, err := user.Current(); err == nil {
			path = filepath.Join(me.HomeDir, rest)
		}
	}
	return filepath.Clean(path)
}

// DefaultIdentity is the identity of a stack that was given none: the same at each
// run, and another for each place of state. Local state is told apart by machine
// and user as well, since everybody's lies at the same address.
func DefaultIdentity(backend, organization, stack string) string {
	place := backend
	if folder := LocalFolder(backend); folder != "" {
		host, _ := os.Hostname()
		place = fmt.Sprintf("%s/%d%s", host, os.Getuid(), folder)
	}
	sum := sha256.Sum256([]byte(place + "\n" + organization + "/" + stack))
	return hex.EncodeToString(sum[:6])
}
