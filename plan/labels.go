package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
)

// StackLabel is the label that names the stack a container or network belongs to.
const StackLabel = "trading-platform.stack"

// Label is one label of a container.
type Label struct{ Name, Value string }

// Labels gives the labels of the i-th replica: Compose's, by which `docker
// compose -p <prefix> ps` and `logs` and Docker Desktop's grouping go on
// working, and the stack's own.
func (s Service) Labels(p *Plan, i int) []Label {
	return []Label{
		{"com.docker.compose.config-hash", s.composeHash()},
		{"com.docker.compose.container-number", strconv.Itoa(i + 1)},
		{"com.docker.compose.oneoff", "False"},
		{"com.docker.compose.project", p.NamePrefix},
		{"com.docker.compose.service", s.Name},
		{StackLabel, p.Stack},
	}
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
