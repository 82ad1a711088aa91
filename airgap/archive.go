package airgap

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/moby/moby/client"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// epoch is the date of all that is written, so that an image made again from the same parts has the same id and no
// container is replaced for its sake.
var epoch = time.Unix(0, 0).UTC()

// layer is one layer's file, and its digest.
type layer struct {
	path string
	id   digest.Digest
}

// name of the layer's file in the archive.
func (l layer) name() string { return l.id.Encoded() + "/layer.tar" }

// manifest is an image's entry in the archive's manifest.json, as `docker save` writes it.
type manifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// send writes the recipes' images to the engine as one archive, in which the base layer stands once.
func (w *workshop) send(ctx context.Context, engine *client.Client, recipes []recipe) error {
	base := layer{path: w.basePath(recipes[0])}
	var err error
	if base.id, err = fileDigest(base.path); err != nil {
		return fmt.Errorf("air-gap images: %w", err)
	}
	layers := []layer{base}
	var manifests []manifest
	configs := map[string][]byte{}
	for _, recipe := range recipes {
		own, err := w.ownLayer(recipe)
		if err != nil {
			return fmt.Errorf("air-gap images: the layer of %s: %w", recipe.name, err)
		}
		layers = append(layers, own)
		config, err := json.Marshal(recipe.image(base, own))
		if err != nil {
			return fmt.Errorf("air-gap images: the configuration of %s: %w", recipe.name, err)
		}
		name := digest.FromBytes(config).Encoded() + ".json"
		configs[name] = config
		manifests = append(manifests, manifest{Config: name, RepoTags: []string{recipe.reference}, Layers: []string{base.name(), own.name()}})
	}

	reader, writer := io.Pipe()
	defer func() { _ = reader.Close() }() // releases the writer when the engine stopped reading
	go func() { writer.CloseWithError(writeArchive(writer, layers, configs, manifests)) }()
	answer, err := engine.ImageLoad(ctx, reader, client.ImageLoadWithQuiet(true))
	if err != nil {
		return fmt.Errorf("air-gap images: the engine did not take %s: %w", list(recipes), err)
	}
	defer func() { _ = answer.Close() }()
	return loaded(answer)
}

// image is the recipe's configuration as the engine stores it.
func (r recipe) image(base, own layer) ocispec.Image {
	return ocispec.Image{
		Created:  &epoch,
		Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH},
		Config:   r.config,
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{base.id, own.id}},
		History: []ocispec.History{
			{Created: &epoch, CreatedBy: "airgap/base/build.sh"},
			{Created: &epoch, CreatedBy: "airgap: " + r.name},
		},
	}
}

// ownLayer writes what the image has above the base.
func (w *workshop) ownLayer(recipe recipe) (layer, error) {
	path := filepath.Join(w.scratch, recipe.name+".tar")
	file, err := os.Create(path)
	if err != nil {
		return layer{}, err
	}
	archive := tar.NewWriter(file)
	err = writeEntries(archive, recipe.entries)
	if err == nil && recipe.program != nil {
		err = addFile(archive, recipe.program.path, 0o755, w.programPath(recipe.program))
	}
	if err := errors.Join(err, archive.Close(), file.Close()); err != nil {
		return layer{}, err
	}
	id, err := fileDigest(path)
	return layer{path: path, id: id}, err
}

func writeEntries(archive *tar.Writer, entries []entry) error {
	for _, entry := range entries {
		header := &tar.Header{Name: entry.Path, Mode: entry.Mode, Uid: entry.Owner, Gid: entry.Owner, ModTime: epoch}
		switch {
		case entry.Link != "":
			header.Typeflag, header.Linkname, header.Mode = tar.TypeSymlink, entry.Link, 0o777
		case entry.From != "":
			header.Typeflag, header.Size = tar.TypeReg, int64(len(entry.content))
		default:
			header.Typeflag, header.Name = tar.TypeDir, entry.Path+"/"
		}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		if _, err := archive.Write(entry.content); err != nil {
			return err
		}
	}
	return nil
}

// writeArchive writes what `docker load` reads.
func writeArchive(out io.Writer, layers []layer, configs map[string][]byte, manifests []manifest) error {
	archive := tar.NewWriter(out)
	for _, layer := range layers {
		if err := addFile(archive, layer.name(), 0o644, layer.path); err != nil {
			return err
		}
	}
	index, err := json.Marshal(manifests)
	if err != nil {
		return err
	}
	for _, manifest := range manifests {
		if err := addBytes(archive, manifest.Config, configs[manifest.Config]); err != nil {
			return err
		}
	}
	if err := addBytes(archive, "manifest.json", index); err != nil {
		return err
	}
	return archive.Close()
}

func addFile(archive *tar.Writer, name string, mode int64, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: info.Size(), ModTime: epoch}); err != nil {
		return err
	}
	_, err = io.Copy(archive, file)
	return err
}

func addBytes(archive *tar.Writer, name string, content []byte) error {
	if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content)), ModTime: epoch}); err != nil {
		return err
	}
	_, err := archive.Write(content)
	return err
}

func fileDigest(path string) (digest.Digest, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }()
	return digest.FromReader(file)
}

// loaded reads the engine's answer to the end: an error can come in the middle of it.
func loaded(answer io.Reader) error {
	for decoder := json.NewDecoder(answer); ; {
		var message struct {
			Error string `json:"error"`
		}
		err := decoder.Decode(&message)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("air-gap images: the engine's answer to the images: %w", err)
		case message.Error != "":
			return fmt.Errorf("air-gap images: the engine did not take them: %s; when its disk is full, docker system df shows what fills it", message.Error)
		}
	}
}
