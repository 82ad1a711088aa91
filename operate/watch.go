package operate

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"

	"trading-platform/catalog"
	"trading-platform/plan"
	"trading-platform/preflight"
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
		_, copied := synced(c.service, source, folder)
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
		var copies []catalog.Sync
		for file := range files {
			if sync, ok := synced(c.service, source, file); !ok && holds(c.service.Image.Build, file) {
				build, names, copies = append(build, c.service), append(names, c.service.Name), nil
				break
			} else if ok && !slices.Contains(copies, sync) {
				copies = append(copies, sync)
			}
		}
		for _, sync := range copies {
			if err := s.copy(ctx, c, filepath.Join(source, sync.From), sync.To); err != nil {
				say(fmt.Sprintf("copying %s into %s: %v", sync.From, c.Replica, err))
			} else {
				say("copied " + sync.From + " into " + c.Replica)
			}
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

// synced returns the entry of a service's Sync that a file is in.
func synced(s plan.Service, source, file string) (catalog.Sync, bool) {
	entry, _ := catalog.Lookup(s.Name)
	i := slices.IndexFunc(entry.Sync, func(sync catalog.Sync) bool { return within(filepath.Join(source, sync.From), file) })
	if i < 0 {
		return catalog.Sync{}, false
	}
	return entry.Sync[i], true
}

// within reports whether a path is a folder, or is inside of it.
func within(folder, path string) bool {
	return path == folder || strings.HasPrefix(path, folder+string(os.PathSeparator))
}

// copy copies a file, or what is in a folder, into a running container with the docker command. What is gone stays in the container.
func (s *Services) copy(ctx context.Context, c Container, from, to string) error {
	id, err := s.id(ctx, c)
	if err != nil {
		return err
	}
	if info, err := os.Stat(from); err == nil && info.IsDir() {
		from += string(os.PathSeparator) + "."
	}
	out, err := exec.CommandContext(ctx, "docker", append(s.Here.DockerFlags(), "cp", from, id+":"+to)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
	}
	return nil
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
		if within(filepath.Join(c.Context, c.Args[plan.FolderArg]), file) {
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
	stages, _, _, err := preflight.Dockerfile(b)
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
