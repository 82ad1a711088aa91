package settings

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Source is a stack's config before it is validated.
type Source struct {
	Stack string
	Root  string // the project's folder, where relative paths start
	// Config holds the project's keys without their namespace. Lists and maps
	// are JSON, as Pulumi passes them to a program.
	Config map[string]string
	Secret map[string]bool // the keys whose value is a secret
}

// FromProgram reads the config that Pulumi passes to a running program. Pulumi's
// own config package looks up keys, but cannot list them, and only a list shows a
// misspelt key.
func FromProgram(stack, root string, getenv func(string) string) (Source, error) {
	src := Source{Stack: stack, Root: root, Config: map[string]string{}, Secret: map[string]bool{}}
	var config map[string]string
	var secret []string
	read := func(variable string, into any) error {
		if err := json.Unmarshal([]byte(cmp.Or(getenv(variable), "null")), into); err != nil {
			return fmt.Errorf("reading %s: %w", variable, err)
		}
		return nil
	}
	if err := errors.Join(read("PULUMI_CONFIG", &config), read("PULUMI_CONFIG_SECRET_KEYS", &secret)); err != nil {
		return src, err
	}
	for key, value := range config {
		if name, ok := configKey(key); ok {
			src.Config[name] = value
		}
	}
	for _, key := range secret {
		src.Secret[strings.TrimPrefix(key, Project+":")] = true
	}
	return src, nil
}

// Docker is the engine that a stack's file names, by settings of Pulumi's docker provider. Both are empty if it names none.
type Docker struct {
	Host     string // docker:host: its address, such as ssh://me@far or tcp://far:2376
	CertPath string // docker:certPath: the folder of the TLS files for a tcp:// address
}

const dockerHost, dockerCertPath = "docker:host", "docker:certPath"

// Docker returns the engine that the config names.
func (s Source) Docker() Docker {
	return Docker{s.Config[dockerHost], s.Absolute(s.Config[dockerCertPath])}
}

// Absolute makes a user's path absolute: a relative path starts at the project's folder, and a leading ~ is the home folder.
func (s Source) Absolute(path string) string {
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		home, _ := os.UserHomeDir()
		return filepath.Join(home, rest)
	}
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(s.Root, path)
}

// configKey returns the key in Source.Config of a key of a stack's file, if it is one of this project.
func configKey(key string) (string, bool) {
	if key == dockerHost || key == dockerCertPath {
		return key, true
	}
	return strings.CutPrefix(key, Project+":")
}

// Hidden is shown in place of a secret's value.
const Hidden = "[secret]"

// FromFiles reads the config without Pulumi: the stack's file, and the defaults in
// root's Pulumi.yaml for what it does not set. Encrypted values are read as Hidden.
func FromFiles(stack, root, stackFile string) (Source, error) {
	project, err := os.ReadFile(filepath.Join(root, "Pulumi.yaml"))
	if err != nil {
		return Source{}, err
	}
	stackText, err := os.ReadFile(stackFile)
	if errors.Is(err, fs.ErrNotExist) {
		return Source{}, fmt.Errorf("stack %s has no file %s. Fix: write it, or name another stack with -s", stack, stackFile)
	} else if err != nil {
		return Source{}, err
	}
	return FromYAML(stack, root, project, stackText)
}

// FromYAML is FromFiles for files in memory, such as those of a git revision.
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
		if name, ok := configKey(key); ok {
			if err := src.set(name, value); err != nil {
				return src, err
			}
		}
	}
	return src, nil
}

// encrypted matches an encrypted value of a stack's file, written as JSON.
var encrypted = regexp.MustCompile(`\{"secure":"[^"]*"\}`)

// set stores a value of a file as Pulumi passes it to a program, with Hidden in place of what is encrypted.
func (s Source) set(key string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("config key %s: %w", key, err)
	}
	shown := encrypted.ReplaceAllString(string(text), `"`+Hidden+`"`)
	s.Secret[key] = shown != string(text)
	var plain string // stays empty for a key with nothing after its colon
	if json.Unmarshal([]byte(shown), &plain) == nil {
		shown = plain
	}
	s.Config[key] = shown
	return nil
}
