package components

import "github.com/pulumi/pulumi/sdk/v3/go/pulumi"

// Tier groups the services of one tier, so that the tree that Pulumi prints reads like the architecture.
type Tier struct{ pulumi.ResourceState }

// NewTier creates an empty group. Its services have it as their parent.
func NewTier(ctx *pulumi.Context, name string, opts ...pulumi.ResourceOption) (*Tier, error) {
	t := &Tier{}
	if err := ctx.RegisterComponentResource("trading-platform:components:Tier", name, t, opts...); err != nil {
		return nil, err
	}
	return t, ctx.RegisterResourceOutputs(t, pulumi.Map{})
}
