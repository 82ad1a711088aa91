package airgap

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// epoch is the date of every file and layer, so that an image built again from the same parts has the same ID and no
// container is replaced.
var epoch = time.Unix(0, 0).UTC()

// save writes the recipes' images, from the parts in the cache, in the format of `docker save`. Layers are not compressed,
// which would take longer than the engine needs to read them, and the base layer is in the archive once.
func (b *builder) save(out io.Writer, recipes []recipe) error {
	file, err := os.Open(b.basePath(recipes[0]))
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	base, err := digest.FromReader(file)
	size, seekErr := file.Seek(0, io.SeekCurrent)
	_, rewindErr := file.Seek(0, io.SeekStart)
	archive := tar.NewWriter(out)
	if err := errors.Join(err, seekErr, rewindErr, add(archive, &tar.Header{Name: layerName(base), Mode: 0o644, Size: size}, file)); err != nil {
		return err
	}
	type image struct {
		Config           string
		RepoTags, Layers []string
	}
	var manifest []image
	for _, r := range recipes {
		content, err := b.ownLayer(r)
		if err != nil {
			return fmt.Errorf("the layer of %s: %w", r.name, err)
		}
		own := digest.FromBytes(content)
		config, err := json.Marshal(ocispec.Image{
			Created:  &epoch,
			Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH},
			Config:   r.Config,
			RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{base, own}},
			History:  []ocispec.History{{Created: &epoch, CreatedBy: "airgap/base/build.sh"}, {Created: &epoch, CreatedBy: "airgap: " + r.name}},
		})
		name := digest.FromBytes(config).Encoded() + ".json"
		if err := errors.Join(err, addFile(archive, layerName(own), 0o644, content), addFile(archive, name, 0o644, config)); err != nil {
			return err
		}
		manifest = append(manifest, image{name, []string{r.reference}, []string{layerName(base), layerName(own)}})
	}
	text, err := json.Marshal(manifest)
	return errors.Join(err, addFile(archive, "manifest.json", 0o644, text), archive.Close())
}

func layerName(layer digest.Digest) string { return layer.Encoded() + ".tar" }

// ownLayer returns the files that the image adds to the base layer, as a tar archive.
func (b *builder) ownLayer(r recipe) ([]byte, error) {
	var layer bytes.Buffer
	archive := tar.NewWriter(&layer)
	var faults []error
	for _, f := range r.Files {
		header := &tar.Header{Name: f.Path, Mode: f.Mode, Uid: f.Owner, Gid: f.Owner, Size: int64(len(f.Content))}
		switch {
		case f.Link != "":
			header.Typeflag, header.Linkname, header.Mode = tar.TypeSymlink, f.Link, 0o777
		case f.From == "":
			header.Typeflag, header.Name = tar.TypeDir, f.Path+"/"
		}
		faults = append(faults, add(archive, header, bytes.NewReader(f.Content)))
	}
	if r.Program != nil {
		content, err := os.ReadFile(b.programPath(r.Program))
		faults = append(faults, err, addFile(archive, r.Program.Path, 0o755, content))
	}
	err := errors.Join(append(faults, archive.Close())...)
	return layer.Bytes(), err
}

func addFile(archive *tar.Writer, name string, mode int64, content []byte) error {
	return add(archive, &tar.Header{Name: name, Mode: mode, Size: int64(len(content))}, bytes.NewReader(content))
}

func add(archive *tar.Writer, header *tar.Header, content io.Reader) error {
	header.ModTime = epoch
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	_, err := io.Copy(archive, content)
	return err
}
