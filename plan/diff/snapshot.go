// Package diff compares the plans of two revisions of the project: what a
// reviewer must know of a change before it reaches a stack. It is pure: both
// plans come as the JSON that `platform plan` prints, because the catalog is Go
// code and only a revision's own code can tell what its plan is.
package diff

import (
	"encoding/json"
	"fmt"

	"trading-platform/plan"
)

// Snapshot is one stack's plan at one revision, as its JSON tells it.
type Snapshot struct {
	NamePrefix    string         `json:"namePrefix"`
	Profiles      []string       `json:"profiles"`
	Provider      string         `json:"provider"`
	RetainVolumes bool           `json:"retainVolumes"`
	Networks      []plan.Network `json:"networks"`
	Volumes       []plan.Volume  `json:"volumes"`
	Services      []service      `json:"services"`
	Notes         []string       `json:"notes"`

	// Files holds the content of the configuration files that are no secret, by
	// service and path. One that is missing is compared by its hash alone.
	Files map[string]map[string]string `json:"-"`
	// Sources holds, by folder that an image is built from, the hash of each file
	// in it. A folder that is missing is not compared.
	Sources map[string]map[string]string `json:"-"`
	// Faults are what the revision found wrong with the stack, one line each.
	Faults []string `json:"-"`
}

// service is plan.Service as JSON has it: without what is secret.
type service struct {
	Name       string            `json:"name"`
	Tier       string            `json:"tier"`
	Profile    string            `json:"profile"`
	Containers []string          `json:"containers"`
	Image      plan.Image        `json:"image"`
	Command    []string          `json:"command"`
	User       string            `json:"user"`
	Env        []plan.Env        `json:"env"`
	Ports      []plan.Port       `json:"ports"`
	Mounts     []plan.Mount      `json:"mounts"`
	Files      []file            `json:"files"`
	Networks   []plan.Attachment `json:"networks"`
	After      []string          `json:"after"`
	Probe      probe             `json:"probe"`
	Health     string            `json:"health"`
	Metrics    string            `json:"metrics"`
	Grace      string            `json:"grace"`

	Capabilities []string `json:"capabilities"`
	Memory       int      `json:"memoryMB"`
	ReadOnly     bool     `json:"readOnly"`
	Tmpfs        []string `json:"tmpfs"`
}

type file struct {
	Path   string `json:"path"`
	SHA256 string `json:"sha256"` // empty for a secret
	Secret bool   `json:"secret"`
}

type probe struct {
	Test          []string `json:"test"`
	Interval      string   `json:"interval"`
	Timeout       string   `json:"timeout"`
	Retries       int      `json:"retries"`
	StartPeriod   string   `json:"startPeriod"`
	StartInterval string   `json:"startInterval"`
}

// Read takes in the JSON of a plan.
func Read(text []byte) (*Snapshot, error) {
	s := &Snapshot{}
	if err := json.Unmarshal(text, s); err != nil {
		return nil, fmt.Errorf("reading the JSON of a plan: %w", err)
	}
	return s, nil
}

// BuildContexts lists the folders that the plan's images are built from, each once.
func (s *Snapshot) BuildContexts() []string {
	var all []string
	seen := map[string]bool{}
	for _, o := range s.Services {
		if b := o.Image.Build; b != nil && !seen[b.Context] {
			seen[b.Context] = true
			all = append(all, b.Context)
		}
	}
	return all
}

func (s *Snapshot) lookup(name string) (service, bool) {
	for _, o := range s.Services {
		if o.Name == name {
			return o, true
		}
	}
	return service{}, false
}

func (s *Snapshot) volume(key string) (plan.Volume, bool) {
	for _, v := range s.Volumes {
		if v.Key == key {
			return v, true
		}
	}
	return plan.Volume{}, false
}

// mounters gives the services that mount a volume, in the order in which they start.
func (s *Snapshot) mounters(volume string) []string {
	var names []string
	for _, o := range s.Services {
		for _, m := range o.Mounts {
			if m.Volume == volume {
				names = append(names, o.Name)
				break
			}
		}
	}
	return names
}

// waiting gives the services that start after the named one, straight or through
// others, in the order in which they start.
func (s *Snapshot) waiting(name string) []string {
	waits := map[string]bool{name: true}
	var names []string
	for _, o := range s.Services { // each comes after those that it waits for
		for _, after := range o.After {
			if waits[after] && !waits[o.Name] {
				waits[o.Name] = true
				names = append(names, o.Name)
			}
		}
	}
	return names
}
