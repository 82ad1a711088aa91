package plan

import (
	"maps"
	"strconv"
	"strings"
)

// The labels by which a stack recognizes its own objects on the engine.
const (
	StackLabel    = "trading-platform.stack"  // the stack's name
	IdentityLabel = "trading-platform.id"     // its identity, which differs between stacks of the same name
	VolumeLabel   = "trading-platform.volume" // a volume's name in the catalog
)

// OwnLabels returns the labels of every object that the stack creates.
func (p *Plan) OwnLabels() map[string]string { return p.labels(nil) }

// labels returns the labels of every object together with those of one.
func (p *Plan) labels(more map[string]string) map[string]string {
	all := map[string]string{IdentityLabel: p.Identity, StackLabel: p.Stack}
	maps.Copy(all, more)
	return all
}

// Owns reports whether an object with these labels was created by this stack. Earlier
// versions set the label with the stack's name only.
func (p *Plan) Owns(labels map[string]string) bool {
	id, labelled := labels[IdentityLabel]
	return labels[StackLabel] == p.Stack && (id == p.Identity || !labelled)
}

// Labels returns the labels of the i-th replica: those of Compose, by which its commands (`docker compose -p <prefix> ps`) and
// Docker Desktop find the stack, and the stack's own.
func (s Service) Labels(p *Plan, i int) map[string]string {
	var after []string
	for _, name := range s.After {
		other, _ := p.Lookup(name)
		after = append(after, name+":"+other.Condition()+":false")
	}
	// Compose lists only containers with a hash of the service's config. This one covers only what
	// causes a replacement of the container anyway, and no secret.
	hash := hexSHA256(s.Name + "\n" + s.Image.Key() + "\n" + strings.Join(s.Command, "\n"))
	return p.labels(map[string]string{
		"com.docker.compose.config-hash":          hash,
		"com.docker.compose.container-number":     strconv.Itoa(i + 1),
		"com.docker.compose.depends_on":           strings.Join(after, ","), // the order in which Compose stops and starts
		"com.docker.compose.oneoff":               "False",
		"com.docker.compose.project":              p.NamePrefix,
		"com.docker.compose.project.config_files": "Pulumi." + p.Stack + ".yaml",
		"com.docker.compose.service":              s.Name,
	})
}

// NetworkLabels returns the labels of a network. By those of Compose, `docker compose down` removes it.
func (p *Plan) NetworkLabels(n Network) map[string]string {
	return p.labels(map[string]string{"com.docker.compose.network": n.Key, "com.docker.compose.project": p.NamePrefix})
}

// VolumeLabels returns the labels of a new volume. By those of Compose, `docker compose volumes` lists it; `docker compose
// down` leaves it, unless the user adds -v.
func (p *Plan) VolumeLabels(v Volume) map[string]string {
	return p.labels(map[string]string{"com.docker.compose.project": p.NamePrefix, "com.docker.compose.volume": v.Key, VolumeLabel: v.Key})
}

// Key identifies an image, and is part of the name of its resource.
func (i Image) Key() string {
	if i.Build != nil {
		return i.Build.Name
	}
	return i.Reference
}
