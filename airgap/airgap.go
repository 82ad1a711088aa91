// Package airgap makes real images for an engine that reaches no registry: PostgreSQL, Redis, Prometheus and nginx
// from Debian's packages, Loki and Promtail from the Go module proxy, and the reference app from this checkout. Each runs
// as the official image does (ports, paths, commands, users, variables), so that one catalog serves both.
//
// An image is a base layer that all share, plus a thin layer of its own, handed to the engine in the format of
// `docker save`: that needs no builder, no command-line client and no registry, works on Engine 20.10 and newer, and
// either the image is there complete or it is not. What is slow to make is kept in the user's cache folder by the hash of
// what it was made from.
package airgap

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"
)

// VersionLabel is the label that holds the version of the program in an image, as its project counts it (`15` for
// PostgreSQL: data is compatible within a major version). The reference app has none.
const VersionLabel = "trading-platform.airgap.version"

// References returns the reference of every image that can be made from the checkout at root, by catalog service name
// (postgres, redis, prometheus, loki_server, promtail, nginx), and under `reference` the reference app's where the
// checkout has its source. A reference's tag carries a hash of all that the image is made from and of the machine's
// architecture. It asks no engine, and fails only when the checkout cannot be read.
func References(root string) (map[string]string, error) {
	recipes, err := load(root)
	if err != nil {
		return nil, err
	}
	references := make(map[string]string, len(recipes))
	for name, recipe := range recipes {
		references[name] = recipe.reference
	}
	return references, nil
}

// Build makes those of the named images (keys of [References]) that the engine lacks; when it has them all, nothing
// is done. root is the checkout. progress gets one line as each step starts and ends and every ten seconds between, from
// one goroutine at a time; nil drops them. Stopped or failed, it leaves nothing behind but finished parts in the cache.
//
// It fails for unknown names, an engine of another architecture than this machine, and when a part cannot be built; the
// error says what to install or to reach.
func Build(ctx context.Context, engine *client.Client, root string, names []string, progress func(string)) error {
	recipes, err := load(root)
	if err != nil {
		return err
	}
	missing, err := lacking(ctx, engine, recipes, names)
	if err != nil || len(missing) == 0 {
		return err
	}
	if err := sameArchitecture(ctx, engine); err != nil {
		return err
	}
	workshop, err := openWorkshop(root, serialised(progress))
	if err != nil {
		return err
	}
	defer workshop.close()
	if err := workshop.prepare(ctx, missing); err != nil {
		return err
	}
	if err := workshop.step("handing "+list(missing)+" to the engine", "", func() error {
		return workshop.send(ctx, engine, missing)
	}); err != nil {
		return err
	}
	still, err := lacking(ctx, engine, recipes, names)
	if err == nil && len(still) > 0 {
		err = fmt.Errorf("air-gap images: the engine took %s without an error and does not have it; look into the engine's own log", list(still))
	}
	return err
}

// lacking returns those of the named recipes whose image the engine does not have, in the order of their names.
func lacking(ctx context.Context, engine *client.Client, recipes map[string]recipe, names []string) ([]recipe, error) {
	var missing []recipe
	var faults []error
	names = slices.Clone(names)
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		recipe, known := recipes[name]
		if !known {
			faults = append(faults, fmt.Errorf("air-gap images: there is no recipe for %q; those there are: %s", name, strings.Join(sortedKeys(recipes), ", ")))
			continue
		}
		_, err := engine.ImageInspect(ctx, recipe.reference)
		switch {
		case errdefs.IsNotFound(err):
			missing = append(missing, recipe)
		case err != nil:
			return nil, fmt.Errorf("air-gap images: asking the engine for %s: %w", recipe.reference, err)
		}
	}
	return missing, errors.Join(faults...)
}

// sameArchitecture refuses an engine that cannot run what this machine makes.
func sameArchitecture(ctx context.Context, engine *client.Client) error {
	version, err := engine.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil {
		return fmt.Errorf("air-gap images: asking the engine for its architecture: %w", err)
	}
	if version.Os != "linux" || version.Arch != runtime.GOARCH {
		return fmt.Errorf("air-gap images: the engine runs %s/%s and this machine makes images for linux/%s; make them on a machine like the engine's, and move them with docker save and docker load",
			version.Os, version.Arch, runtime.GOARCH)
	}
	return nil
}

func serialised(progress func(string)) func(string) {
	if progress == nil {
		return func(string) {}
	}
	var mutex sync.Mutex
	return func(line string) {
		mutex.Lock()
		defer mutex.Unlock()
		progress(line)
	}
}

func list(recipes []recipe) string {
	names := make([]string, len(recipes))
	for i, recipe := range recipes {
		names[i] = recipe.name
	}
	return strings.Join(names, ", ")
}
