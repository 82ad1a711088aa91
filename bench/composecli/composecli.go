// Package composecli builds Docker Compose, for the comparison with it and for the test that its commands work on our stacks.
package composecli

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/mod/semver"
)

// Binary returns the path of a version of Compose. If it is not in the user's cache folder yet, it
// is built there, from the Go module proxy and in a module of its own, so that nothing of it is in this project.
func Binary(ctx context.Context, version string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	binary := filepath.Join(cache, "trading-platform-bench", "compose-"+version)
	if _, err := os.Stat(binary); err == nil {
		return binary, nil
	}
	dir, err := os.MkdirTemp("", "bench-compose-*")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	module := "github.com/docker/compose/" + semver.Major(version)
	fmt.Fprintln(os.Stderr, "building Compose", version, "once, which takes a few minutes")
	for _, line := range [][]string{
		{"go", "mod", "init", "bench"},
		{"go", "get", module + "/cmd@" + version},
		{"go", "build", "-ldflags", "-X " + module + "/internal.Version=" + version, "-o", binary, module + "/cmd"},
	} {
		cmd := exec.CommandContext(ctx, line[0], line[1:]...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("building Compose %s: %w\n%s", version, err, out)
		}
	}
	return binary, nil
}
