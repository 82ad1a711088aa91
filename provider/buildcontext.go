package provider

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/moby/patternmatcher/ignorefile"
	"github.com/tonistiigi/fsutil"
)

// buildContext is a folder that an image is built from.
type buildContext struct {
	root       string
	dockerfile string
	ignored    []string
}

// openContext reads the ignore file: <Dockerfile>.dockerignore if there is one, else
// .dockerignore in the context's root, as the engine's own tools do.
func openContext(root, dockerfile string) (*buildContext, error) {
	if root == "" {
		root = "."
	}
	if dockerfile == "" {
		dockerfile = filepath.Join(root, "Dockerfile")
	}
	if info, err := os.Stat(root); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("build.context %s is not a folder: check `sourceDir`", root)
	}
	if _, err := os.Stat(dockerfile); err != nil {
		return nil, fmt.Errorf("build.dockerfile: %w: check `sourceDir`", err)
	}
	var patterns []string
	for _, name := range []string{dockerfile + ".dockerignore", filepath.Join(root, ".dockerignore")} {
		file, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		patterns, err = ignorefile.ReadAll(file)
		_ = file.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		break
	}
	return &buildContext{root: root, dockerfile: dockerfile, ignored: patterns}, nil
}

// hash changes when the result of the build could change: it covers names, kinds, executable
// bits, links and contents, but not owners and times.
func (b *buildContext) hash(ctx context.Context) (string, error) {
	sum := sha256.New()
	add := func(name, path string, stat func(string) (fs.FileInfo, error)) error {
		info, err := stat(path)
		if err != nil {
			return err
		}
		var link, content string
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			link, err = os.Readlink(path)
		case info.Mode().IsRegular():
			content, err = fileSum(path, info)
		case !info.IsDir():
			return nil // sockets, pipes and devices are not part of a build
		}
		_, _ = fmt.Fprintf(sum, "%q %v %t %q %s\n", name, info.Mode().Type(), info.Mode()&0o100 != 0, link, content)
		return err
	}
	// The Dockerfile can lie outside of the context, or be ignored there.
	err := add(".offline-docker-provider.Dockerfile", b.dockerfile, os.Stat)
	if err == nil {
		err = fsutil.WalkDir(ctx, b.root, &fsutil.FilterOpt{ExcludePatterns: b.ignored}, func(name string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return add(filepath.ToSlash(name), filepath.Join(b.root, name), os.Lstat)
		})
	}
	if err != nil {
		return "", fmt.Errorf("build context %s: %w", b.root, err)
	}
	return "sha256:" + hex.EncodeToString(sum.Sum(nil)), nil
}

// sums caches the hashes of files during a run, because many services are built from one checkout.
var sums sync.Map

type sumKey struct {
	path string
	size int64
	time time.Time
}

func fileSum(path string, info fs.FileInfo) (string, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	key := sumKey{absolute, info.Size(), info.ModTime()}
	if sum, ok := sums.Load(key); ok {
		return sum.(string), nil
	}
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return "", err
	}
	sum := hex.EncodeToString(hash.Sum(nil))
	sums.Store(key, sum)
	return sum, nil
}
