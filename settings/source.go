package settings

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Source is a stack's config before it is validated.
type Source struct {
	Stack string
	Root  string // the project's folder, where relative paths start
	// Config holds the project's keys without their namespace. Lists and maps
	// are JSON, as Pulumi hands them to a program.
	Config map[string]string
	Secret map[string]bool // the keys whose value is a secret
}

// FromProgram reads the config that Pulumi hands to a running program. Pulumi's
// own config package can be asked for keys, but cannot list them, and a
// misspelt key is only seen in the list.
func FromProgram(stack, root string, getenv func(string) string) (Source, error) {
	src := Source{Stack: stack, Root: root, Config: map[string]string{}, Secret: map[string]bool{}}
	all := map[string]string{}
	if text := getenv("PULUMI_CONFIG"); text != "" {
		if err := json.Unmarshal([]byte(text), &all); err != nil {
			return src, fmt.Errorf("reading PULUMI_CONFIG: %w", err)
		}
	}
	for key, value := range all {
		if name, ok := strings.CutPrefix(key, Project+":"); ok {
			src.Config[name] = value
		}
	}
	var secret []string
	if text := getenv("PULUMI_CONFIG_SECRET_KEYS"); text != "" {
		if err := json.Unmarshal([]byte(text), &secret); err != nil {
			return src, fmt.Errorf("reading PULUMI_CONFIG_SECRET_KEYS: %w", err)
		}
	}
	for _, key := range secret {
		src.Secret[strings.TrimPrefix(key, Project+":")] = true
	}
	return src, nil
}

// Hidden stands for the value of a secret that is only known to be there.
const Hidden = "[secret]"

// FromFiles reads the config without Pulumi: the defaults of root's Pulumi.yaml
// under the stack's file. Encrypted values come out as Hidden.
func FromFiles(stack, root, stackFile string) (Source, error) {
	project, err := os.ReadFile(filepath.Join(root, "Pulumi.yaml"))
	if err != nil {
		return Source{}, err
	}
	stackText, err := os.ReadFile(stackFile)
	if errors.Is(err, fs.ErrNotExist) {
		return Source{}, fmt.Errorf("no file %s for stack %s; make one, or name another with -s", stackFile, stack)
	} else if err != nil {
		return Source{}, err
	}
	return FromYAML(stack, root, project, stackText)
}

// FromYAML is FromFiles for files that are in memory, such as a git revision's.
func FromYAML(stack, root string, project, stackFile []byte) (Source, error) {
	src := Source{Stack: stack, Root: root, Config: map[string]string{}, Secret: map[string]bool{}}
	var schema struct {
		Config map[string]struct{ Default any }
	}
	if err := yaml.Unmarshal(project, &schema); err != nil {
		return src, fmt.Errorf("reading Pulumi.yaml: %w", err)
	}
	for key, k := range schema.Config {
		if err := src.set(key, k.Default); err != nil {
			return src, err
		}
	}
	var file struct{ Config map[string]any }
	if err := yaml.Unmarshal(stackFile, &file); err != nil {
		return src, fmt.Errorf("reading Pulumi.%s.yaml: %w", stack, err)
	}
	for key, value := range file.Config {
		if name, ok := strings.CutPrefix(key, Project+":"); ok {
			if err := src.set(name, value); err != nil {
				return src, err
			}
		}
	}
	return src, nil
}

func (s Source) set(key string, value any) error {
	value, secret := hide(value)
	s.Secret[key] = secret
	switch text, ok := value.(string); {
	case value == nil: // a key with nothing after its colon
		s.Config[key] = ""
		return nil
	case ok:
		s.Config[key] = text
		return nil
	}
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("config key %s: %w", key, err)
	}
	s.Config[key] = string(text)
	return nil
}

// hide replaces each {secure: …} of a stack file by Hidden, and tells whether there was one.
func hide(value any) (any, bool) {
	found := false
	switch v := value.(type) {
	case map[string]any:
		if _, ok := v["secure"]; ok && len(v) == 1 {
			return Hidden, true
		}
		for key, inner := range v {
			h, secret := hide(inner)
			v[key], found = h, found || secret
		}
	case []any:
		for i, inner := range v {
			h, secret := hide(inner)
			v[i], found = h, found || secret
		}
	}
	return value, found
}
