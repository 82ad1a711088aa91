package provider

import (
	"context"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
)

// anyType is a resourceType whose argument struct is hidden, so that all of them fit
// one map.
type anyType interface {
	check(inputs resource.PropertyMap) (resource.PropertyMap, []plugin.CheckFailure, error)
	diff(olds, news resource.PropertyMap) map[string]plugin.PropertyDiff
	coexists() bool
	unknowns() outputs
	previewUpdate(c call) outputs
	create(ctx context.Context, c call) (resource.ID, outputs, error)
	read(ctx context.Context, c call) (outputs, error)
	update(ctx context.Context, c call) (outputs, error)
	remove(ctx context.Context, c call) error
	schema() (inputs, outs map[string]any, required []string)
}

type erased[A any] struct{ typed resourceType[A] }

func erase[A any](t resourceType[A]) anyType { return erased[A]{t} }

// arguments decodes inputs that check has accepted.
func arguments[A any](inputs resource.PropertyMap) A {
	var args A
	decode(inputs, &args)
	return args
}

// completer is a resourceType whose check adds inputs of its own.
type completer[A any] interface {
	complete(args A, inputs resource.PropertyMap) (resource.PropertyMap, error)
}

func (e erased[A]) check(inputs resource.PropertyMap) (resource.PropertyMap, []plugin.CheckFailure, error) {
	var args A
	failures := decode(inputs, &args)
	if inputs.ContainsUnknowns() {
		return inputs, failures, nil
	}
	malformed := map[resource.PropertyKey]bool{}
	for _, f := range failures {
		malformed[f.Property] = true
	}
	for _, f := range e.typed.validate(args) {
		if !malformed[f.Property] {
			failures = append(failures, f)
		}
	}
	if len(failures) > 0 {
		return inputs, failures, nil
	}
	if c, ok := e.typed.(completer[A]); ok {
		completed, err := c.complete(args, inputs)
		return completed, nil, err
	}
	return inputs, nil, nil
}

// replacer is a resourceType for which some updates are no updates after all.
type replacer[A any] interface{ mustReplace(olds, news A) []string }

func (e erased[A]) diff(olds, news resource.PropertyMap) map[string]plugin.PropertyDiff {
	diff := diffArgs[A](olds, news)
	if r, ok := e.typed.(replacer[A]); ok {
		for _, name := range r.mustReplace(arguments[A](olds), arguments[A](news)) {
			if changed, ok := diff[name]; ok {
				diff[name] = changed.ToReplace()
			}
		}
	}
	return diff
}

// coexister is a resourceType of which an old one and its replacement can both be
// there for a while.
type coexister interface{ coexists() bool }

func (e erased[A]) coexists() bool {
	c, ok := e.typed.(coexister)
	return ok && c.coexists()
}

func (e erased[A]) unknowns() outputs {
	out := outputs{}
	for _, key := range e.typed.computed() {
		out[key] = resource.MakeComputed(resource.NewProperty(""))
	}
	return out
}

// rebuilder is a resourceType whose update gives new computed outputs.
type rebuilder interface{ rebuilds() bool }

// previewUpdate keeps the outputs that an update leaves alone, so that a preview does
// not announce changes downstream that the update will not make.
func (e erased[A]) previewUpdate(c call) outputs {
	if r, ok := e.typed.(rebuilder); ok && r.rebuilds() {
		return e.unknowns()
	}
	out := outputs{}
	for _, key := range e.typed.computed() {
		if value, ok := c.recorded[key]; ok {
			out[key] = value
		}
	}
	return out
}

func (e erased[A]) create(ctx context.Context, c call) (resource.ID, outputs, error) {
	return e.typed.create(ctx, c, arguments[A](c.inputs))
}

func (e erased[A]) read(ctx context.Context, c call) (outputs, error) {
	return e.typed.read(ctx, c, arguments[A](c.inputs))
}

func (e erased[A]) update(ctx context.Context, c call) (outputs, error) {
	return e.typed.update(ctx, c, arguments[A](c.inputs))
}

func (e erased[A]) remove(ctx context.Context, c call) error {
	return e.typed.remove(ctx, c, arguments[A](c.inputs))
}
