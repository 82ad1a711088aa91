package airgap

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.yaml.in/yaml/v3"
	"golang.org/x/mod/sumdb/dirhash"
)

// recipe is what one image is made from, over the base layer: an entry of images.yaml, which explains the fields.
type recipe struct {
	Version string
	Program *program
	Files   []file
	Config  ocispec.ImageConfig

	name      string
	reference string
	base      string // hash of the base layer
}

// program is a static Linux binary that the host's Go compiles.
type program struct {
	Module  string // folder of its Go module, from the checkout's root
	Package string
	LDFlags string // in addition to those that strip the binary; the same for all programs of a module
	Path    string // in the image
	Hash    string `yaml:"-"` // of everything that it is compiled from
}

func (p *program) name() string { return path.Base(p.Path) }

// file is one path of a layer: a file when From is set, a symbolic link when Link is, else a folder.
type file struct {
	Path    string
	Mode    int64 // permission bits, the sticky and set-id ones included, as chmod takes them
	Owner   int
	From    string
	Link    string
	Content []byte `yaml:"-"` // of From
}

// load returns the recipes of the checkout at root by name, with their references. The reference app's is left out where
// the checkout lacks its source.
func load(root string) (map[string]recipe, error) {
	base, err := hashFolder(filepath.Join(root, "airgap", "base"))
	if err != nil {
		return nil, fmt.Errorf("%w; %s must be a checkout of this project", err, root)
	}
	text, err := os.ReadFile(filepath.Join(root, "airgap", "images.yaml"))
	if err != nil {
		return nil, err
	}
	recipes := map[string]recipe{}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&recipes); err != nil {
		return nil, fmt.Errorf("airgap/images.yaml: %w", err)
	}
	for name, recipe := range recipes {
		recipe.name, recipe.base = name, hash(runtime.GOARCH, base)
		err := recipe.load(root)
		if name == "reference" && errors.Is(err, fs.ErrNotExist) {
			delete(recipes, name)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("the recipe of %s: %w", name, err)
		}
		recipes[name] = recipe
	}
	return recipes, nil
}

// load reads what the image is built from and derives the image's reference from it.
func (r *recipe) load(root string) error {
	if p := r.Program; p != nil {
		sources, err := hashFolder(filepath.Join(root, p.Module))
		if err != nil {
			return err
		}
		p.Hash = hash(runtime.GOARCH, p.Package, p.LDFlags, sources)
	}
	for i, f := range r.Files {
		if f.From != "" {
			content, err := os.ReadFile(filepath.Join(root, "airgap", f.From))
			if err != nil {
				return err
			}
			r.Files[i].Content = content
		}
	}
	entry, err := json.Marshal(r)
	if err != nil {
		return err
	}
	tag := hash(r.base, string(entry))
	if r.Version != "" {
		tag = r.Version + "-" + tag
		r.Config.Labels[VersionLabel] = r.Version
	}
	r.reference = "trading-platform-airgap/" + r.name + ":" + tag
	return nil
}

// hash returns the first 12 hex digits of the SHA-256 of its parts and of where each ends.
func hash(parts ...string) string {
	text, _ := json.Marshal(parts) // strings encode without an error
	return fmt.Sprintf("%x", sha256.Sum256(text))[:12]
}

// hashFolder hashes the names and contents of a folder's files; tests and the binary that `go build` leaves there are
// ignored.
func hashFolder(folder string) (string, error) {
	files, err := dirhash.DirFiles(folder, "")
	if err != nil {
		return "", err
	}
	files = slices.DeleteFunc(files, func(name string) bool {
		return strings.HasSuffix(name, "_test.go") || name == filepath.Base(folder)
	})
	return dirhash.Hash1(files, func(name string) (io.ReadCloser, error) { return os.Open(filepath.Join(folder, name)) })
}
