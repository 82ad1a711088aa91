package airgap

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// epoch is the date of every file and layer, so that an image built again from the same parts has the same ID and no
// container is replaced.
var epoch = time.Unix(0, 0).UTC()

// images assembles the recipes' images from the parts in the cache.
func (b *builder) images(recipes []recipe) (map[name.Reference]v1.Image, error) {
	base, err := newLayer(b.basePath(recipes[0]))
	if err != nil {
		return nil, err
	}
	images := map[name.Reference]v1.Image{}
	for _, r := range recipes {
		reference, err := name.ParseReference(r.reference)
		if err != nil {
			return nil, err
		}
		own, err := b.ownLayer(r)
		if err != nil {
			return nil, fmt.Errorf("the layer of %s: %w", r.name, err)
		}
		if images[reference], err = r.image(base, own); err != nil {
			return nil, fmt.Errorf("the image of %s: %w", r.name, err)
		}
	}
	return images, nil
}

// image returns the image with the recipe's configuration and its two layers.
func (r recipe) image(base, own v1.Layer) (v1.Image, error) {
	created := v1.Time{Time: epoch}
	configured, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{
		OS: "linux", Architecture: runtime.GOARCH, Created: created, Config: r.Config, RootFS: v1.RootFS{Type: "layers"},
	})
	if err != nil {
		return nil, err
	}
	return mutate.Append(configured,
		mutate.Addendum{Layer: base, History: v1.History{Created: created, CreatedBy: "airgap/base/build.sh"}},
		mutate.Addendum{Layer: own, History: v1.History{Created: created, CreatedBy: "airgap: " + r.name}})
}

// ownLayer writes the files that the image adds to the base layer.
func (b *builder) ownLayer(r recipe) (v1.Layer, error) {
	out, err := os.Create(filepath.Join(b.scratch, r.name+".tar"))
	if err != nil {
		return nil, err
	}
	archive := tar.NewWriter(out)
	err = writeFiles(archive, r.Files)
	if err == nil && r.Program != nil {
		err = writeProgram(archive, r.Program.Path, b.programPath(r.Program))
	}
	if err := errors.Join(err, archive.Close(), out.Close()); err != nil {
		return nil, err
	}
	return newLayer(out.Name())
}

func writeFiles(archive *tar.Writer, files []file) error {
	for _, f := range files {
		header := &tar.Header{Name: f.Path, Mode: f.Mode, Uid: f.Owner, Gid: f.Owner}
		switch {
		case f.Link != "":
			header.Typeflag, header.Linkname, header.Mode = tar.TypeSymlink, f.Link, 0o777
		case f.From != "":
			header.Typeflag, header.Size = tar.TypeReg, int64(len(f.Content))
		default:
			header.Typeflag, header.Name = tar.TypeDir, f.Path+"/"
		}
		if err := addEntry(archive, header, bytes.NewReader(f.Content)); err != nil {
			return err
		}
	}
	return nil
}

func writeProgram(archive *tar.Writer, path, from string) error {
	program, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = program.Close() }()
	info, err := program.Stat()
	if err != nil {
		return err
	}
	return addEntry(archive, &tar.Header{Typeflag: tar.TypeReg, Name: path, Mode: 0o755, Size: info.Size()}, program)
}

func addEntry(archive *tar.Writer, header *tar.Header, content io.Reader) error {
	header.ModTime = epoch
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	_, err := io.Copy(archive, content)
	return err
}

// layer is an uncompressed tar file. The library's own layers are compressed, which would take longer than the local
// engine needs to read them.
type layer struct {
	path string
	hash v1.Hash
	size int64
}

var _ v1.Layer = layer{}

func newLayer(path string) (v1.Layer, error) {
	tarFile, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = tarFile.Close() }()
	hash, size, err := v1.SHA256(tarFile)
	return layer{path: path, hash: hash, size: size}, err
}

func (l layer) Digest() (v1.Hash, error)             { return l.hash, nil }
func (l layer) DiffID() (v1.Hash, error)             { return l.hash, nil }
func (l layer) Compressed() (io.ReadCloser, error)   { return os.Open(l.path) }
func (l layer) Uncompressed() (io.ReadCloser, error) { return os.Open(l.path) }
func (l layer) Size() (int64, error)                 { return l.size, nil }
func (l layer) MediaType() (types.MediaType, error)  { return types.DockerUncompressedLayer, nil }
