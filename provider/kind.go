package provider

import (
	"context"

	cerrdefs "github.com/containerd/errdefs"
	p "github.com/pulumi/pulumi-go-provider"
	"github.com/pulumi/pulumi-go-provider/infer"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"
	"github.com/pulumi/pulumi/sdk/v3/go/property"
)

// kind is a resource type, in the form that infer takes. A has the inputs, and S the outputs that the state records
// besides them.
type kind[A, S any] struct {
	module tokens.ModuleName // such as index/container
	name   tokens.TypeName
	// check returns what the engine would refuse. It can change the inputs.
	check func(ctx context.Context, args *A) []string
	// create returns the ID of the resource.
	create func(ctx context.Context, c call, args A) (string, S, error)
	// read returns the current outputs, or an error of the kind NotFound for a resource that no longer exists.
	read func(ctx context.Context, c call, id string, args A, recorded S) (S, error)
	// update is nil if every change that reaches it is only recorded.
	update func(ctx context.Context, c call, id string, args A, recorded S) (S, error)
	// remove is nil if the resource stays on the engine.
	remove func(ctx context.Context, c call, id string, args A) error
}

// noOutputs is for a resource of which the state records only the inputs.
type noOutputs struct{}

// Annotate names the official provider's type.
func (k *kind[A, S]) Annotate(a infer.Annotator) {
	if k.name != "" { // infer also asks an empty value, for descriptions
		a.SetToken(k.module, k.name)
	}
}

// Check reports every fault of the inputs at once: those against the schema, and those that the kind's check finds. That
// check gets only the inputs that match the schema, and is not called while some input is unknown. No fault contains a
// value, since a value can be a secret.
func (k *kind[A, S]) Check(ctx context.Context, req infer.CheckRequest) (infer.CheckResponse[A], error) {
	c := callOf(ctx)
	spec := c.resources[c.urn.Type()]
	faults, sound := c.objectFaults("", req.NewInputs, spec.InputProperties, spec.RequiredInputs)
	args, _, err := infer.DefaultCheck[A](ctx, sound)
	if k.check != nil && !property.New(req.NewInputs).HasComputed() {
		faults = append(faults, k.check(ctx, &args)...)
	}
	return infer.CheckResponse[A]{Inputs: args, Failures: failures(faults)}, err
}

// Create creates the resource.
func (k *kind[A, S]) Create(ctx context.Context, req infer.CreateRequest[A]) (infer.CreateResponse[S], error) {
	id, state, err := k.create(ctx, callOf(ctx), req.Inputs)
	return infer.CreateResponse[S]{ID: id, Output: state}, err
}

// Read returns the current outputs. An answer without an ID tells Pulumi that the resource was deleted.
func (k *kind[A, S]) Read(ctx context.Context, req infer.ReadRequest[A, S]) (infer.ReadResponse[A, S], error) {
	var err error
	req.State, err = k.read(ctx, callOf(ctx), req.ID, req.Inputs, req.State)
	if cerrdefs.IsNotFound(err) {
		return infer.ReadResponse[A, S]{}, nil
	}
	return infer.ReadResponse[A, S](req), err
}

// Update changes the resource, if that needs more than to record the new inputs.
func (k *kind[A, S]) Update(ctx context.Context, req infer.UpdateRequest[A, S]) (infer.UpdateResponse[S], error) {
	if k.update == nil {
		return infer.UpdateResponse[S]{Output: req.State}, nil
	}
	state, err := k.update(ctx, callOf(ctx), req.ID, req.Inputs, req.State)
	return infer.UpdateResponse[S]{Output: state}, err
}

// Delete removes the resource. One that no longer exists is no error.
func (k *kind[A, S]) Delete(ctx context.Context, req infer.DeleteRequest[S]) (infer.DeleteResponse, error) {
	if k.remove == nil {
		return infer.DeleteResponse{}, nil
	}
	c := callOf(ctx)
	args, _, err := infer.DefaultCheck[A](ctx, c.inputs)
	if err == nil {
		err = k.remove(ctx, c, req.ID, args)
	}
	if cerrdefs.IsNotFound(err) {
		err = nil
	}
	return infer.DeleteResponse{}, err
}

// call is one request for one resource.
type call struct {
	*provider
	urn    resource.URN
	inputs property.Map
	log    p.Logger
}

type callKey struct{}

// with passes the request on to the resource's methods.
func (d *provider) with(ctx context.Context, urn resource.URN, inputs property.Map) context.Context {
	// Messages are sent even if the run is cancelled.
	return context.WithValue(ctx, callKey{}, call{d, urn, inputs, p.GetLogger(context.WithoutCancel(ctx))})
}

func callOf(ctx context.Context) call { return ctx.Value(callKey{}).(call) }
