// Package observe compares what an engine holds of a stack with what the stack's
// state says. It decides what an up has to put right before Pulumi looks.
package observe

import (
	"encoding/json"
	"fmt"

	"github.com/pulumi/pulumi/sdk/v3/go/common/apitype"
)

// Resource is a docker resource of a stack's state.
type Resource struct {
	ID, Name string
	// Failed resources did not come up, and the next up replaces them.
	Failed bool
	// Drifted resources were found to differ by a refresh, and the next up puts that right.
	Drifted bool
}

// State is the part of a stack's state that an engine can be compared with.
type State struct {
	Containers, Networks, Volumes []Resource
	// Outputs are the stack's last outputs.
	Outputs map[string]any
	// Pending tells that a run was cut short in the middle of an operation.
	Pending bool
}

// WithoutPending gives an export without the operations that were under way when a run
// was cut short. Pulumi warns of them at each run, and never forgets them by itself;
// what became of them, Look finds by the stack's labels.
func WithoutPending(export []byte) ([]byte, error) {
	var untyped apitype.UntypedDeployment
	deployment := map[string]any{}
	if err := json.Unmarshal(export, &untyped); err != nil {
		return nil, fmt.Errorf("reading the stack's state: %w", err)
	}
	if err := json.Unmarshal(untyped.Deployment, &deployment); err != nil {
		return nil, fmt.Errorf("reading the stack's state: %w", err)
	}
	delete(deployment, "pending_operations")
	var err error
	if untyped.Deployment, err = json.Marshal(deployment); err != nil {
		return nil, err
	}
	return json.Marshal(untyped)
}

// ReadState reads what `pulumi stack export` prints.
func ReadState(export []byte) (*State, error) {
	var untyped apitype.UntypedDeployment
	var deployment apitype.DeploymentV3
	if err := json.Unmarshal(export, &untyped); err != nil {
		return nil, fmt.Errorf("reading the stack's state: %w", err)
	}
	if len(untyped.Deployment) > 0 {
		if err := json.Unmarshal(untyped.Deployment, &deployment); err != nil {
			return nil, fmt.Errorf("reading the stack's state: %w", err)
		}
	}
	s := &State{Pending: len(deployment.PendingOperations) > 0}
	for _, r := range deployment.Resources {
		if r.Type == "pulumi:pulumi:Stack" {
			s.Outputs = r.Outputs
		}
		list := map[string]*[]Resource{
			"docker:index/container:Container": &s.Containers,
			"docker:index/network:Network":     &s.Networks,
			"docker:index/volume:Volume":       &s.Volumes,
		}[string(r.Type)]
		if list == nil || r.External {
			continue
		}
		name, _ := r.Inputs["name"].(string)
		_, drifted := r.Outputs["drift"]
		_, failed := r.Outputs["failed"]
		*list = append(*list, Resource{
			ID: string(r.ID), Name: name, Drifted: drifted, Failed: failed || len(r.InitErrors) > 0,
		})
	}
	return s, nil
}
