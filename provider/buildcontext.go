package provider

import (
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

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

// buildContext is a folder that an image is built from.
type buildContext struct {
	root       string
	dockerfile string
	ignored    *patternmatcher.PatternMatcher
}

// openContext reads what is ignored: <Dockerfile>.dockerignore if there is one, else
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
	matcher, err := patternmatcher.New(patterns)
	if err != nil {
		return nil, fmt.Errorf("%s: .dockerignore: %w", root, err)
	}
	return &buildContext{root: root, dockerfile: dockerfile, ignored: matcher}, nil
}

// entry is one file of a context; link is where a symbolic link points.
type entry struct {
	name string
	path string
	link string
	info fs.FileInfo
}

// hashedDockerfile stands for the Dockerfile, wherever it lies.
const hashedDockerfile = ".offline-docker-provider.Dockerfile"

// walk visits what belongs to the context, in one order always, the Dockerfile first.
func (b *buildContext) walk(visit func(entry) error) error {
	info, err := os.Stat(b.dockerfile)
	if err != nil {
		return err
	}
	if err := visit(entry{name: hashedDockerfile, path: b.dockerfile, info: info}); err != nil {
		return err
	}
	parents := map[string]patternmatcher.MatchInfo{}
	return filepath.WalkDir(b.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(b.root, path)
		if err != nil || name == "." {
			return err
		}
		ignored, match, err := b.ignored.MatchesUsingParentResults(name, parents[filepath.Dir(name)])
		if err != nil {
			return fmt.Errorf(".dockerignore: %w", err)
		}
		if d.IsDir() {
			parents[name] = match
		}
		if ignored {
			// A later line may take something in the folder back in.
			if d.IsDir() && !b.ignored.Exclusions() {
				return filepath.SkipDir
			}
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		e := entry{name: filepath.ToSlash(name), path: path, info: info}
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			if e.link, err = os.Readlink(path); err != nil {
				return err
			}
		case !info.IsDir() && !info.Mode().IsRegular():
			return nil // sockets, pipes and devices cannot be sent
		}
		return visit(e)
	})
}

// hash changes when the build could: names, kinds, executable bits, links and
// contents count, owners and times do not.
func (b *buildContext) hash() (string, error) {
	sum := sha256.New()
	err := b.walk(func(e entry) error {
		content := ""
		if e.info.Mode().IsRegular() {
			var err error
			if content, err = fileSum(e.path, e.info); err != nil {
				return err
			}
		}
		_, err := fmt.Fprintf(sum, "%q %v %t %q %s\n", e.name, e.info.Mode().Type(), e.info.Mode()&0o100 != 0, e.link, content)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("build context %s: %w", b.root, err)
	}
	return "sha256:" + hex.EncodeToString(sum.Sum(nil)), nil
}

// sums remembers files' hashes within a run: many services are built from one checkout.
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
