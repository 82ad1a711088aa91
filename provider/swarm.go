package provider

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"
)

type contentArgs struct {
	Name   string  `pulumi:"name" provider:"replaceOnChanges"`
	Data   string  `pulumi:"data" provider:"replaceOnChanges"`            // in base64
	Labels []label `pulumi:"labels,optional" provider:"replaceOnChanges"` // of a secret
}

// serviceConfigs are docker.ServiceConfig, and secrets are docker.Secret. The ID is the Swarm's.
var (
	serviceConfigs = contentKind("index/serviceConfig", "ServiceConfig",
		func(ctx context.Context, e client.APIClient, about swarm.Annotations, data []byte) (string, error) {
			made, err := e.ConfigCreate(ctx, client.ConfigCreateOptions{Spec: swarm.ConfigSpec{Annotations: about, Data: data}})
			return made.ID, err
		}, func(ctx context.Context, e client.APIClient, name string) (string, error) {
			found, err := e.ConfigInspect(ctx, name, client.ConfigInspectOptions{})
			return found.Config.ID, err
		}, func(ctx context.Context, e client.APIClient, id string) error {
			_, err := e.ConfigRemove(ctx, id, client.ConfigRemoveOptions{})
			return err
		})
	secrets = contentKind("index/secret", "Secret",
		func(ctx context.Context, e client.APIClient, about swarm.Annotations, data []byte) (string, error) {
			made, err := e.SecretCreate(ctx, client.SecretCreateOptions{Spec: swarm.SecretSpec{Annotations: about, Data: data}})
			return made.ID, err
		}, func(ctx context.Context, e client.APIClient, name string) (string, error) {
			found, err := e.SecretInspect(ctx, name, client.SecretInspectOptions{})
			return found.Secret.ID, err
		}, func(ctx context.Context, e client.APIClient, id string) error {
			_, err := e.SecretRemove(ctx, id, client.SecretRemoveOptions{})
			return err
		})
)

// maxData is the size in bytes of the largest secret that a Swarm accepts, and, before Docker 27, of the largest config.
const maxData = 500 * 1024

// contentKind is the kind of configs or of secrets. The name follows from the content. So one that exists already is the wanted
// one, and a change of the content creates another.
func contentKind(
	module tokens.ModuleName, name tokens.TypeName,
	create func(context.Context, client.APIClient, swarm.Annotations, []byte) (string, error),
	find func(ctx context.Context, e client.APIClient, nameOrID string) (id string, err error),
	remove func(ctx context.Context, e client.APIClient, id string) error,
) *kind[contentArgs, noOutputs] {
	return &kind[contentArgs, noOutputs]{
		module: module, name: name,
		check: func(_ context.Context, args *contentArgs) []string {
			if bytes, err := base64.StdEncoding.DecodeString(args.Data); err != nil || len(bytes) == 0 || len(bytes) >= maxData {
				return []string{fmt.Sprintf("data must be base64 of at least one byte and less than %d", maxData)}
			}
			return nil
		},
		create: func(ctx context.Context, c call, args contentArgs) (string, noOutputs, error) {
			data, _ := base64.StdEncoding.DecodeString(args.Data)
			id, err := create(ctx, c.engine, swarm.Annotations{Name: args.Name, Labels: labelMap(args.Labels)}, data)
			if exists(err) {
				id, err = find(ctx, c.engine, args.Name)
			}
			return id, noOutputs{}, err
		},
		read: func(ctx context.Context, c call, id string, _ contentArgs, _ noOutputs) (noOutputs, error) {
			_, err := find(ctx, c.engine, id)
			return noOutputs{}, err
		},
		remove: func(ctx context.Context, c call, id string, _ contentArgs) error { return remove(ctx, c.engine, id) },
	}
}

// exists reports whether an object could not be created because another has its name.
func exists(err error) bool { return cerrdefs.IsConflict(err) || cerrdefs.IsAlreadyExists(err) }

// swarmFixes are what to do about errors of a Swarm, by a part of their text.
var swarmFixes = map[string]string{
	"not a swarm manager":    "use a manager of the Swarm, or make this engine one: docker swarm init",
	"does not have a leader": "start managers until more than half of them run; if they are lost: docker swarm init --force-new-cluster",
	"No such image":          "set `registry`, from which every node can pull the image, or load it into each node (docker save, docker load)",
	"no suitable node":       "`docker node ls` shows which nodes are up; start the one that holds the volumes, or another one",
}

// swarmFix returns what to do about an error of a Swarm, or "" for another error.
func swarmFix(text string) string {
	for part, fix := range swarmFixes {
		if strings.Contains(text, part) {
			return "\nFix: " + fix
		}
	}
	return ""
}
