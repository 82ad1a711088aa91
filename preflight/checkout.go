package preflight

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	"github.com/moby/moby/client"

	engines "trading-platform/engine"
	"trading-platform/fault"
	"trading-platform/plan"
)

// folders finds Dockerfiles, and folders of the checkout that are mounted, that do not exist, and mounts of the checkout into
// containers of another machine. It ignores paths outside of the checkout: if the engine runs in a virtual machine,
// they are in that machine.
func (c *check) folders() {
	missing := func(path, use, fix string) {
		reported := slices.ContainsFunc(c.faults, func(f fault.Fault) bool { return f.Where == path })
		if !exists(path) && !reported {
			c.faults.Add(path, fix, "does not exist, and %s", use)
		}
	}
	for _, s := range c.plan.Services {
		for _, m := range s.Mounts {
			switch machine := c.here.Machine(); {
			case c.set.SourceDir == "" || !strings.HasPrefix(m.Host, c.set.SourceDir+"/"):
			case machine != "":
				c.faults.Add(m.Host, "set images."+s.Name+" or disable it, or take sourceDir out: pulumi config rm -s "+c.plan.Stack+" sourceDir",
					"is a folder of this machine, and %s, which mounts it, would run on %s", s.Name, machine)
			case local(c.here) && !m.Create:
				missing(m.Host, s.Name+" mounts it", "mkdir -p "+m.Host+", or point sourceDir at a full checkout")
			}
		}
		if b := s.Image.Build; b != nil {
			fix := "point sourceDir at a full checkout, or: " + c.config("--path images."+s.Name, "<reference>")
			missing(b.Dockerfile, s.Name+" is built from it", fix)
			for _, context := range b.Contexts {
				missing(filepath.Join(context.Context, context.Args[plan.FolderArg]), s.Name+" is built with it", fix)
			}
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// MakeFolders creates the missing folders of the checkout that are mounted and may be
// empty, and returns their paths. They belong to the calling user, also under sudo. With
// Compose the engine created them, and they belonged to root.
func MakeFolders(engine engines.Ref, p *plan.Plan, getenv func(string) string) ([]string, error) {
	if !local(engine) {
		return nil, nil
	}
	var made []string
	for _, s := range p.Services {
		for _, m := range s.Mounts {
			if !m.Create || exists(m.Host) {
				continue
			}
			if err := makeFolder(m.Host, getenv); err != nil {
				return made, fmt.Errorf("making the folder that %s mounts: %w", s.Name, err)
			}
			made = append(made, m.Host)
		}
	}
	return made, nil
}

func makeFolder(path string, getenv func(string) string) error {
	if parent := filepath.Dir(path); !exists(parent) {
		if err := makeFolder(parent, getenv); err != nil {
			return err
		}
	}
	err := os.Mkdir(path, 0o755) //nolint:gosec // services that run as another user read it
	if err != nil || os.Geteuid() != 0 || getenv("SUDO_UID") == "" {
		return err
	}
	uid, err := strconv.Atoi(getenv("SUDO_UID"))
	gid, err2 := strconv.Atoi(getenv("SUDO_GID"))
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	return os.Chown(path, uid, gid)
}

// registryTimeout is the time limit for the requests to all registries together.
const registryTimeout = 30 * time.Second

// bases finds base images that are not available, and adds one fault for each, with all
// services that need it. It checks only images that the engine does not have: the build
// of any other finds its base images in the builder's cache.
func (c *check) bases() {
	stops := map[string][]string{}
	for _, s := range c.plan.Services {
		b := s.Image.Build
		if b == nil || c.has(b.Name) {
			continue
		}
		for _, base := range baseImages(b) {
			stops[base] = append(stops[base], s.Name)
		}
	}
	ctx, cancel := context.WithTimeout(c.ctx, registryTimeout)
	defer cancel()
	for _, base := range slices.Sorted(maps.Keys(stops)) {
		if c.has(base) {
			continue
		}
		_, err := c.engine.DistributionInspect(ctx, base, client.DistributionInspectOptions{})
		// The image needs a login, which the build has but the engine does not.
		if err == nil || cerrdefs.IsUnauthorized(err) || cerrdefs.IsPermissionDenied(err) {
			continue
		}
		c.faults.Add("image "+base, "docker pull "+base+" must work; or name built images: "+c.config("--path images."+stops[base][0], "<reference>"),
			"is not available, and %s would be built from it: %v", strings.Join(stops[base], ", "), err)
	}
}

// has reports whether the engine has an image.
func (c *check) has(reference string) bool {
	_, err := c.engine.ImageInspect(c.ctx, reference)
	return err == nil
}

// Dockerfile reads the Dockerfile of a build.
func Dockerfile(b *plan.Build) (stages []instructions.Stage, args []instructions.ArgCommand, escape rune, err error) {
	file, err := os.Open(b.Dockerfile)
	if err != nil {
		return nil, nil, 0, err
	}
	defer func() { _ = file.Close() }()
	parsed, err := parser.Parse(file)
	if err != nil {
		return nil, nil, 0, err
	}
	stages, args, err = instructions.Parse(parsed.AST, nil)
	return stages, args, parsed.EscapeToken, err
}

// baseImages returns the base images of a build. It returns none for a Dockerfile that
// cannot be read, because the build reports the cause in more detail.
func baseImages(b *plan.Build) []string {
	stages, metaArgs, escape, err := Dockerfile(b)
	if err != nil {
		return nil
	}
	lex := shell.NewLex(escape)
	var env []string
	for _, command := range metaArgs {
		for _, arg := range command.Args {
			value, given := b.Args[arg.Key]
			if !given {
				value, _, _ = lex.ProcessWord(arg.ValueString(), shell.EnvsFromSlice(env))
			}
			env = append(env, arg.Key+"="+value)
		}
	}
	var bases []string
	stage := map[string]bool{"scratch": true}
	for _, s := range stages {
		base, _, err := lex.ProcessWord(s.BaseName, shell.EnvsFromSlice(env))
		if err == nil && base != "" && !stage[strings.ToLower(base)] && !slices.Contains(bases, base) {
			bases = append(bases, base)
		}
		stage[s.Name] = true
	}
	return bases
}
