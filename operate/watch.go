package operate

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/moby/client"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"

	"trading-platform/catalog"
	"trading-platform/plan"
)

// quietTime is how long no file may change before an update begins: editors, and git, write several files at a time.
const quietTime = 50 * time.Millisecond

// Watch updates the services when files of the checkout at source are saved, until the context ends: it copies a file into the
// containers where the catalog says so, and else calls update with the services whose images hold the file. Only one update
// runs at a time, and what is saved meanwhile is in the next.
func (s *Services) Watch(ctx context.Context, source string, update func([]plan.Service) error, say func(string)) error {
	if !slices.ContainsFunc(s.Containers, func(c Container) bool { return builtFrom(c.service, source) }) {
		return fmt.Errorf("none of the services is built from %s. Fix: name one that is, or none for all: make plan STACK=%s lists them", source, s.Plan.Stack)
	}
	watcher, err := fsnotify.NewBufferedWatcher(4096)
	if err != nil {
		return err
	}
	defer func() { _ = watcher.Close() }()
	changed := map[string]bool{}
	if err := s.watchTree(watcher, source, source, nil); err != nil {
		return err
	}
	say("watching " + source)
	var quiet <-chan time.Time
	var done chan bool // of the update that runs
	for {
		select {
		case <-ctx.Done():
			if done != nil {
				<-done
			}
			return nil
		case err := <-watcher.Errors:
			return fmt.Errorf("watching %s: %w", source, err)
		case event := <-watcher.Events:
			if event.Op == fsnotify.Chmod {
				continue
			}
			changed[event.Name] = true
			if event.Has(fsnotify.Create) { // what a new folder holds may have been there before it is watched
				if err := s.watchTree(watcher, source, event.Name, changed); err != nil {
					return err
				}
			}
			quiet = time.After(quietTime)
		case <-quiet:
			quiet = nil
			if done == nil && len(changed) > 0 {
				files := changed
				changed, done = map[string]bool{}, make(chan bool)
				go func() {
					defer close(done)
					s.apply(ctx, source, files, update, say)
				}()
			}
		case <-done:
			done, quiet = nil, time.After(0)
		}
	}
}

// watchTree watches a folder and those in it, except those of which no image and no container gets a file. It adds the files to found.
func (s *Services) watchTree(watcher *fsnotify.Watcher, source, root string, found map[string]bool) error {
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return nil //nolint:nilerr // it has been removed meanwhile
		case !entry.IsDir():
			if found != nil {
				found[path] = true
			}
			return nil
		case path != source && s.unused(source, path):
			return filepath.SkipDir
		}
		if err := watcher.Add(path); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("watching %s: %w. Fix on Linux: sudo sysctl fs.inotify.max_user_watches=524288", path, err)
		}
		return nil
	})
}

// unused reports whether no service uses files of a folder.
func (s *Services) unused(source, folder string) bool {
	return filepath.Base(folder) == ".git" || !slices.ContainsFunc(s.Containers, func(c Container) bool {
		if !builtFrom(c.service, source) {
			return false
		}
		ignored, err := ignoredFiles(c.service.Image.Build)
		if err != nil || ignored.Exclusions() {
			return true
		}
		rel, _ := filepath.Rel(source, folder)
		_, copied := target(c.service, filepath.ToSlash(rel))
		matches, err := ignored.MatchesOrParentMatches(rel)
		return copied || err != nil || !matches
	})
}

func builtFrom(s plan.Service, source string) bool {
	return s.Image.Build != nil && s.Image.Build.Context == source
}

// apply updates the services that use the files.
func (s *Services) apply(ctx context.Context, source string, files map[string]bool, update func([]plan.Service) error, say func(string)) {
	began := time.Now()
	var build []plan.Service
	var names []string
	for _, c := range s.Containers {
		if !builtFrom(c.service, source) || slices.Contains(names, c.service.Name) {
			continue
		}
		copies := map[string]string{} // by path in the container
		for file := range files {
			rel, err := filepath.Rel(source, file)
			if err != nil {
				continue
			}
			if to, ok := target(c.service, filepath.ToSlash(rel)); ok {
				copies[to] = file
			} else if holds(c.service.Image.Build, file) {
				build, names = append(build, c.service), append(names, c.service.Name)
				break
			}
		}
		if slices.Contains(names, c.service.Name) || len(copies) == 0 {
			continue // the new image has the files
		}
		if err := s.copy(ctx, c, copies); err != nil {
			say(fmt.Sprintf("copying into %s: %v", c.Replica, err))
		} else {
			say(fmt.Sprintf("copied %d files into %s", len(copies), c.Replica))
		}
	}
	if len(build) == 0 {
		return
	}
	what := strings.Join(names, ", ")
	say("updating " + what)
	if err := update(build); err != nil {
		say(fmt.Sprintf("%s: not updated: %v. A failed build leaves the container as it was. Fix: correct what is reported above, and save", what, err))
		return
	}
	say(fmt.Sprintf("%s: updated and healthy after %.1f s", what, time.Since(began).Seconds()))
}

// target returns the path in a service's containers of a file of the checkout that needs no build.
func target(s plan.Service, file string) (string, bool) {
	entry, _ := catalog.Lookup(s.Name)
	for _, sync := range entry.Sync {
		if rest, ok := strings.CutPrefix(file, path.Clean(sync.From)); ok && (rest == "" || rest[0] == '/') {
			return path.Clean(sync.To) + rest, true
		}
	}
	return "", false
}

// copy copies files into a running container, which keep their modes. One that is gone stays in the container until the next build.
func (s *Services) copy(ctx context.Context, c Container, files map[string]string) error {
	id, err := s.id(ctx, c)
	if err != nil {
		return err
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for to, from := range files {
		info, err := os.Stat(from)
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		content, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		header := &tar.Header{Typeflag: tar.TypeReg, Name: strings.TrimPrefix(to, "/"), Size: int64(len(content)), Mode: int64(info.Mode().Perm()), ModTime: info.ModTime()}
		if err := w.WriteHeader(header); err != nil {
			return err
		}
		_, _ = w.Write(content) // into memory
	}
	_ = w.Close()
	_, err = s.Engine.CopyToContainer(ctx, id, client.CopyToContainerOptions{DestinationPath: "/", Content: &archive})
	return err
}

// ignoredFiles returns the patterns of the files that a build does not get.
func ignoredFiles(b *plan.Build) (*patternmatcher.PatternMatcher, error) {
	text, err := os.ReadFile(b.Dockerfile + ".dockerignore")
	if err != nil {
		text, _ = os.ReadFile(filepath.Join(b.Context, ".dockerignore"))
	}
	patterns, err := ignorefile.ReadAll(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	return patternmatcher.New(patterns)
}

// holds reports whether a build uses a file. Where that cannot be told, it does: the builder finds out, and keeps the image.
func holds(b *plan.Build, file string) bool {
	if file == b.Dockerfile || file == b.Dockerfile+".dockerignore" {
		return true
	}
	for _, c := range b.Contexts {
		if strings.HasPrefix(file, filepath.Join(c.Context, c.Args[plan.FolderArg])+string(os.PathSeparator)) {
			return true
		}
	}
	rel, err := filepath.Rel(b.Context, file)
	if err != nil || strings.HasPrefix(rel, "..") {
		return false
	}
	if ignored, err := ignoredFiles(b); err == nil {
		if matches, err := ignored.MatchesOrParentMatches(rel); err == nil && matches {
			return false
		}
	}
	sources, known := copied(b)
	used, err := patternmatcher.MatchesOrParentMatches(rel, sources)
	return !known || err != nil || used
}

// copied returns the patterns of the files that a Dockerfile takes from its context. known is false if they cannot be told from it.
func copied(b *plan.Build) (patterns []string, known bool) {
	file, err := os.Open(b.Dockerfile)
	if err != nil {
		return nil, false
	}
	defer file.Close()
	parsed, err := parser.Parse(file)
	if err != nil {
		return nil, false
	}
	stages, _, err := instructions.Parse(parsed.AST, nil)
	if err != nil {
		return nil, false
	}
	for _, stage := range stages {
		for _, command := range stage.Commands {
			switch c := command.(type) {
			case *instructions.CopyCommand:
				if c.From == "" {
					patterns = append(patterns, c.SourcePaths...)
				}
			case *instructions.AddCommand:
				patterns = append(patterns, c.SourcePaths...)
			case *instructions.RunCommand:
				if slices.ContainsFunc(c.FlagsUsed, func(flag string) bool { return flag == "mount" }) {
					return nil, false
				}
			}
		}
	}
	for i, pattern := range patterns {
		patterns[i] = strings.TrimPrefix(path.Clean("/"+pattern), "/")
		if patterns[i] == "" || strings.Contains(pattern, "$") {
			return nil, false
		}
	}
	return patterns, true
}
