// Package observe compares the containers, networks and volumes that an engine has of a
// stack with the stack's state. The differences are what `platform up` has to correct
// before it runs Pulumi.
package observe

import (
	"encoding/json"
	"fmt"

	"github.com/pulumi/pulumi/sdk/v3/go/common/apitype"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"
)

// Resource is a docker resource of a stack's state.
type Resource struct {
	ID, Name string
	// Faulty resources did not become healthy, or differed from the state in a refresh. The next up corrects them.
	Faulty bool
	// Image is the ID of the image that the Name of an image stood for.
	Image string
}

// State is the part of a stack's state that can be compared with an engine.
type State struct {
	Containers, Networks, Volumes, Services []Resource
	// Images are those that are pulled, not those that are built.
	Images []Resource
	// Outputs are the stack's last outputs.
	Outputs map[string]any
	// Pending says that a run was interrupted in the middle of an operation.
	Pending bool
}

// read decodes what `pulumi stack export` prints, and the deployment in it, of which an empty stack has none.
func read(export []byte, deployment any) (apitype.UntypedDeployment, error) {
	var untyped apitype.UntypedDeployment
	err := json.Unmarshal(export, &untyped)
	if err == nil && len(untyped.Deployment) > 0 {
		err = json.Unmarshal(untyped.Deployment, deployment)
	}
	if err != nil {
		err = fmt.Errorf("reading the stack's state: %w", err)
	}
	return untyped, err
}

// WithoutPending returns an export without the pending operations of a run that was
// interrupted. Pulumi warns about them in each run and never removes them itself. Compare
// finds their results by the stack's labels.
func WithoutPending(export []byte) ([]byte, error) {
	deployment := map[string]any{}
	untyped, err := read(export, &deployment)
	if err != nil {
		return nil, err
	}
	delete(deployment, "pending_operations")
	if untyped.Deployment, err = json.Marshal(deployment); err != nil {
		return nil, err
	}
	return json.Marshal(untyped)
}

// ReadState reads what `pulumi stack export` prints.
func ReadState(export []byte) (*State, error) {
	var deployment apitype.DeploymentV3
	if _, err := read(export, &deployment); err != nil {
		return nil, err
	}
	s := &State{Pending: len(deployment.PendingOperations) > 0}
	lists := map[tokens.Type]*[]Resource{
		"docker:index/container:Container":     &s.Containers,
		"docker:index/network:Network":         &s.Networks,
		"docker:index/volume:Volume":           &s.Volumes,
		"docker:index/service:Service":         &s.Services,
		"docker:index/remoteImage:RemoteImage": &s.Images,
	}
	for _, r := range deployment.Resources {
		if r.Type == "pulumi:pulumi:Stack" {
			s.Outputs = r.Outputs
		}
		list := lists[r.Type]
		if list == nil || r.External {
			continue
		}
		name, _ := r.Inputs["name"].(string)
		image, _ := r.Outputs["imageId"].(string)
		_, drifted := r.Outputs["drift"]
		_, failed := r.Outputs["failed"]
		*list = append(*list, Resource{ID: string(r.ID), Name: name, Image: image, Faulty: drifted || failed || len(r.InitErrors) > 0})
	}
	return s, nil
}
