package provider

import (
	"context"
	"strings"

	p "github.com/pulumi/pulumi-go-provider"

	engines "trading-platform/engine"
)

// EngineConfig is the provider resource's configuration.
type EngineConfig struct {
	// Host is the engine's address, such as unix:///var/run/docker.sock or tcp://10.0.0.5:2375.
	// If it is not set, DOCKER_HOST, DOCKER_CONTEXT or the docker CLI's current context names the engine.
	Host string `pulumi:"host,optional"`
	// CertPath is a folder with ca.pem, cert.pem and key.pem, for an engine that speaks TLS. By default it is that of
	// the context, or DOCKER_CERT_PATH.
	CertPath string `pulumi:"certPath,optional"`
	// Version and PluginDownloadURL are what Pulumi itself records with a provider.
	Version           string `pulumi:"version,optional"`
	PluginDownloadURL string `pulumi:"pluginDownloadURL,optional"`

	provider *provider
}

// Configure prepares the client. It does not connect to the engine, so that a preview
// needs none.
func (c *EngineConfig) Configure(context.Context) error {
	ref, err := engines.Find(c.Host, c.CertPath)
	if err == nil {
		c.provider.engine, err = ref.Open()
	}
	return err
}

// checkConfig refuses settings of the official provider that this one does not support.
func (d *provider) checkConfig(_ context.Context, req p.CheckRequest) (p.CheckResponse, error) {
	given := req.Inputs
	for name := range given.All {
		if strings.HasPrefix(name, "__") { // Pulumi's own
			given = given.Delete(name)
		}
	}
	faults, _ := d.objectFaults("", given, d.config.InputProperties, nil)
	return p.CheckResponse{Inputs: req.Inputs, Failures: failures(faults)}, nil
}

// diffConfig never replaces a provider: its resources stay where they are.
func (d *provider) diffConfig(_ context.Context, req p.DiffRequest) (p.DiffResponse, error) {
	diff := d.changes("", d.config.InputProperties, req.OldInputs, req.Inputs, false)
	return p.DiffResponse{HasChanges: len(diff) > 0, DetailedDiff: diff}, nil
}
