// Package airgap builds images for an engine that cannot reach a registry: PostgreSQL, Redis, Prometheus and nginx
// from Debian's packages, Loki and Promtail from the Go module proxy, and the reference app from this checkout. Each runs
// as the official image does (ports, paths, commands, users, variables), so that one catalog serves both. images.yaml
// describes them.
//
// An image is a base layer that all share, plus one layer of its own. Both are loaded into the engine in the format of
// `docker save`, which needs no builder, no command-line client and no registry, and works on Engine 20.10 and newer.
package airgap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/jsonmessage"
)

// VersionLabel is the label that holds the version of the program in an image, as its project counts it (`15` for
// PostgreSQL: data is compatible within a major version). The reference app has none.
const VersionLabel = "trading-platform.airgap.version"

// References returns the reference of every image that can be made from the checkout at root, by the name of the catalog's service
// (postgres, redis, prometheus, loki_server, promtail, nginx), and under `reference` that of the reference app if the
// checkout has its source. A reference's tag carries a hash of all that the image is made from and of the machine's
// architecture. It asks no engine, and fails only when the checkout cannot be read.
func References(root string) (map[string]string, error) {
	recipes, err := load(root)
	references := make(map[string]string, len(recipes))
	for name, recipe := range recipes {
		references[name] = recipe.reference
	}
	return references, named(err)
}

// Build builds those of the named images (keys of [References]) that the engine lacks; if it has them all, Build does
// nothing. root is the checkout. progress gets one line as each step starts and ends and every ten seconds between, from
// one goroutine at a time. A Build that is stopped or fails leaves nothing behind but finished parts in the cache.
//
// It fails for unknown names, for an engine of another architecture than this machine's, and when a part cannot be built;
// the error says what to install or which server must be reachable.
func Build(ctx context.Context, engine *client.Client, root string, names []string, progress func(string)) (err error) {
	defer func() { err = named(err) }()
	recipes, err := load(root)
	if err != nil {
		return err
	}
	missing, err := lacking(ctx, engine, recipes, names)
	if err != nil || len(missing) == 0 {
		return err
	}
	version, err := engine.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil {
		return fmt.Errorf("asking the engine for its architecture: %w", err)
	}
	if version.Os != "linux" || version.Arch != runtime.GOARCH {
		return fmt.Errorf("the engine runs %s/%s, but this machine builds images for linux/%s. "+
			"Fix: build them on a machine of the engine's architecture, and copy them with `docker save` and `docker load`",
			version.Os, version.Arch, runtime.GOARCH)
	}
	b, err := newBuilder(root, progress)
	if err != nil {
		return err
	}
	defer b.close()
	if err := b.prepare(ctx, missing); err != nil {
		return err
	}
	return b.step(fmt.Sprintf("loading %d images into the engine", len(missing)), "", func() error {
		return loadImages(ctx, engine, func(out io.Writer) error { return b.save(out, missing) })
	})
}

// Prepare makes the slow parts of those of the named images that can be built, and keeps them in the cache for [Build].
func Prepare(ctx context.Context, root string, names []string, progress func(string)) (err error) {
	defer func() { err = named(err) }()
	recipes, err := load(root)
	if err != nil {
		return err
	}
	var wanted []recipe
	for _, name := range names {
		if r, known := recipes[name]; known {
			wanted = append(wanted, r)
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	b, err := newBuilder(root, progress)
	if err != nil {
		return err
	}
	defer b.close()
	return b.prepare(ctx, wanted)
}

func named(err error) error {
	if err != nil {
		err = fmt.Errorf("air-gap images: %w", err)
	}
	return err
}

// lacking returns those of the named recipes whose image the engine does not have, in the order of their names.
func lacking(ctx context.Context, engine *client.Client, recipes map[string]recipe, names []string) ([]recipe, error) {
	var missing []recipe
	var faults []error
	for _, name := range slices.Compact(slices.Sorted(slices.Values(names))) {
		recipe, known := recipes[name]
		if !known {
			known := strings.Join(slices.Sorted(maps.Keys(recipes)), ", ")
			faults = append(faults, fmt.Errorf("there is no recipe for %q; there are recipes for %s", name, known))
			continue
		}
		if _, err := engine.ImageInspect(ctx, recipe.reference); errdefs.IsNotFound(err) {
			missing = append(missing, recipe)
		} else if err != nil {
			return nil, fmt.Errorf("asking the engine for %s: %w", recipe.reference, err)
		}
	}
	return missing, errors.Join(faults...)
}

// loadImages loads an archive of images, which save writes, into the engine.
func loadImages(ctx context.Context, engine *client.Client, save func(io.Writer) error) error {
	reader, writer := io.Pipe()
	defer func() { _ = reader.Close() }() // releases the writer when the engine stopped reading
	go func() { writer.CloseWithError(save(writer)) }()
	answer, err := engine.ImageLoad(ctx, reader, client.ImageLoadWithQuiet(true))
	if err == nil {
		defer func() { _ = answer.Close() }()
		err = jsonmessage.DisplayStream(answer, io.Discard) // an error can come in the middle of the answer
	}
	if err != nil {
		return fmt.Errorf("the engine did not load them: %w. Fix: if its disk is full, `docker system df` shows what uses the space", err)
	}
	return nil
}
