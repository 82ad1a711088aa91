package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
)

// The labels by which a stack knows its own things on the engine.
const (
	StackLabel    = "trading-platform.stack"  // the stack's name
	IdentityLabel = "trading-platform.id"     // its identity: another stack of the same name has another
	VolumeLabel   = "trading-platform.volume" // a volume's name in the catalog
)

// Label is one label of a container, network or volume.
type Label struct{ Name, Value string }

// OwnLabels gives the labels that everything which the stack makes carries.
func (p *Plan) OwnLabels() []Label {
	return []Label{{IdentityLabel, p.Identity}, {StackLabel, p.Stack}}
}

// Owns tells whether labels say that this stack made the thing. Versions before
// the identity labelled with the stack's name alone.
func (p *Plan) Owns(labels map[string]string) bool {
	id, labelled := labels[IdentityLabel]
	return labels[StackLabel] == p.Stack && (id == p.Identity || !labelled)
}

// Labels gives the labels of the i-th replica: Compose's, by which `docker
// compose -p <prefix> ps` and `logs` and Docker Desktop's grouping go on
// working, and the stack's own.
func (s Service) Labels(p *Plan, i int) []Label {
	return append([]Label{
		{"com.docker.compose.config-hash", s.composeHash()},
		{"com.docker.compose.container-number", strconv.Itoa(i + 1)},
		{"com.docker.compose.oneoff", "False"},
		{"com.docker.compose.project", p.NamePrefix},
		{"com.docker.compose.service", s.Name},
	}, p.OwnLabels()...)
}

// composeHash stands where Compose puts a hash of the service's whole config.
// Compose needs one to list the container. It covers only what replaces the
// container anyway, and no secret.
func (s Service) composeHash() string {
	sum := sha256.Sum256([]byte(s.Name + "\n" + s.Image.Key() + "\n" + strings.Join(s.Command, "\n")))
	return hex.EncodeToString(sum[:])
}

// Key tells images apart, and names their resources. Two references to one
// repository differ by their tag.
func (i Image) Key() string {
	if i.Build != nil {
		return i.Build.Name
	}
	return i.Reference
}
