// Package observe compares the containers, networks and volumes that an engine has of a
// stack with the stack's state. The differences are what `platform up` has to correct
// before it runs Pulumi.
package observe

import (
	"encoding/json"
	"fmt"

	"github.com/pulumi/pulumi/sdk/v3/go/common/apitype"
)

// Resource is a docker resource of a stack's state.
type Resource struct {
	ID, Name string
	// Failed resources did not become healthy. The next up replaces them.
	Failed bool
	// Drifted resources differed from the state in a refresh. The next up corrects them.
	Drifted bool
	// Image is the ID of the image that the Name of an image stood for.
	Image string
}

// State is the part of a stack's state that can be compared with an engine.
type State struct {
	Containers, Networks, Volumes []Resource
	// Images are those that are pulled, not those that are built.
	Images []Resource
	// Outputs are the stack's last outputs.
	Outputs map[string]any
	// Pending says that a run was interrupted in the middle of an operation.
	Pending bool
}

// WithoutPending returns an export without the pending operations of a run that was
// interrupted. Pulumi warns about them in each run and never removes them itself. Compare
// finds their results by the stack's labels.
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
			"docker:index/container:Container":     &s.Containers,
			"docker:index/network:Network":         &s.Networks,
			"docker:index/volume:Volume":           &s.Volumes,
			"docker:index/remoteImage:RemoteImage": &s.Images,
		}[string(r.Type)]
		if list == nil || r.External {
			continue
		}
		name, _ := r.Inputs["name"].(string)
		_, drifted := r.Outputs["drift"]
		_, failed := r.Outputs["failed"]
		image, _ := r.Outputs["imageId"].(string)
		*list = append(*list, Resource{
			ID: string(r.ID), Name: name, Drifted: drifted, Failed: failed || len(r.InitErrors) > 0, Image: image,
		})
	}
	return s, nil
}
