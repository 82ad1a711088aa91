package provider

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/moby/patternmatcher/ignorefile"
	"github.com/opencontainers/go-digest"
	"github.com/tonistiigi/fsutil"
)

// contextHash changes when the result of the build could change. Many services are built from one checkout, which is
// read once in a run.
func (d *provider) contextHash(ctx context.Context, build imageBuild) (string, error) {
	ignored, err := ignoredFiles(build)
	if err != nil {
		return "", err
	}
	// The Dockerfile can lie outside of the context, or be ignored there.
	dockerfile, err := os.ReadFile(build.Dockerfile)
	if err != nil {
		return "", err
	}
	read := sync.OnceValues(func() (digest.Digest, error) { return folderHash(ctx, build.Context, ignored) })
	known, _ := d.contexts.LoadOrStore(strings.Join(append(ignored, build.Context), "\n"), read)
	files, err := known.(func() (digest.Digest, error))()
	return digest.FromString(files.String() + string(dockerfile)).String(), err
}

// ignoredFiles returns the patterns of <Dockerfile>.dockerignore if it exists, else those of .dockerignore in the
// context's root, as the engine's own tools do.
func ignoredFiles(build imageBuild) ([]string, error) {
	for _, name := range []string{build.Dockerfile + ".dockerignore", filepath.Join(build.Context, ".dockerignore")} {
		file, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		defer file.Close()
		patterns, err := ignorefile.ReadAll(file)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return patterns, nil
	}
	return nil, nil
}

// folderHash covers names, kinds, executable bits, links and contents, but not owners and times.
func folderHash(ctx context.Context, root string, ignored []string) (digest.Digest, error) {
	sum := digest.Canonical.Digester()
	add := func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		path := filepath.Join(root, name)
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		mode := info.Mode()
		_, _ = fmt.Fprintf(sum.Hash(), "%q %v %t\n", filepath.ToSlash(name), mode.Type(), mode&0o100 != 0)
		switch {
		case mode.IsRegular():
			file, err := os.Open(path)
			if err != nil {
				return err
			}
			defer file.Close()
			size, err := io.Copy(sum.Hash(), file)
			_, _ = fmt.Fprintln(sum.Hash(), size)
			return err
		case mode.Type() == fs.ModeSymlink:
			target, err := os.Readlink(path)
			_, _ = fmt.Fprintf(sum.Hash(), "%q\n", target)
			return err
		}
		return nil
	}
	err := fsutil.WalkDir(ctx, root, &fsutil.FilterOpt{ExcludePatterns: ignored}, add)
	return sum.Digest(), err
}
