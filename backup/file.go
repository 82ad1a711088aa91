package backup

import (
	"archive/zip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"al.essio.dev/pkg/shellescape"
)

// format is the version of the file's layout. A reader refuses a newer one.
const format = 1

// manifestName is the name of the file's last entry.
const manifestName = "manifest.json"

// Manifest says what a backup holds and what it was made from.
type Manifest struct {
	Format     int               `json:"format"`
	Stack      string            `json:"stack"`
	NamePrefix string            `json:"namePrefix"`
	Made       time.Time         `json:"made"`
	Images     map[string]string `json:"images"`             // by service
	Postgres   *Server           `json:"postgres,omitempty"` // nil if the stack has none
	Redis      *Server           `json:"redis,omitempty"`
	Entries    []Entry           `json:"entries"` // every entry but the manifest
}

// Server is the database server that data comes from.
type Server struct {
	Version string `json:"version"`        // such as 16.4
	Role    string `json:"role,omitempty"` // PostgreSQL's first superuser, which owns the system's own objects
	User    string `json:"user,omitempty"` // the PostgreSQL role that the services log in as
}

// Entry is one entry of the file.
type Entry struct {
	Name     string `json:"name"`
	Database string `json:"database,omitempty"` // the PostgreSQL database that it is a dump of
	Volume   string `json:"volume,omitempty"`   // the volume (its name in the catalog) that it is an archive of
	Size     int64  `json:"size"`
	SHA256   string `json:"sha256"`
}

// writer writes a backup file. The file gets its final name only when it is complete.
type writer struct {
	path     string // its name when it is complete
	file     *os.File
	zip      *zip.Writer
	manifest Manifest
}

func create(path string, m Manifest) (*writer, error) {
	if _, err := os.Lstat(path); err == nil {
		return nil, refuse(path, "name another file", "exists already")
	}
	// Beside the target: another folder may be on another file system, to which nothing can be renamed.
	// Not with renameio, which lacks this on Windows. Only the owner can read the file.
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return nil, err
	}
	return &writer{path: path, file: file, zip: zip.NewWriter(file), manifest: m}, nil
}

// size counts the bytes that are written to it.
type size int64

func (s *size) Write(p []byte) (int, error) {
	*s += size(len(p))
	return len(p), nil
}

// add writes one entry, whose content fill writes.
func (w *writer) add(e Entry, method uint16, fill func(io.Writer) error) error {
	to, err := w.zip.CreateHeader(&zip.FileHeader{Name: e.Name, Method: method, Modified: time.Now()})
	if err != nil {
		return err
	}
	sum := sha256.New()
	if err := fill(io.MultiWriter(to, sum, (*size)(&e.Size))); err != nil {
		return err
	}
	e.SHA256 = hex.EncodeToString(sum.Sum(nil))
	w.manifest.Entries = append(w.manifest.Entries, e)
	return nil
}

// finish adds the manifest and gives the file its final name.
func (w *writer) finish() error {
	to, err := w.zip.Create(manifestName)
	if err != nil {
		return err
	}
	pretty := json.NewEncoder(to)
	pretty.SetIndent("", "  ")
	if err := errors.Join(pretty.Encode(w.manifest), w.zip.Close(), w.file.Sync(), w.file.Close()); err != nil {
		return err
	}
	return os.Rename(w.file.Name(), w.path)
}

// discard removes the file unless it is finished.
func (w *writer) discard() error {
	_ = w.file.Close() // finish may have closed it
	return os.RemoveAll(w.file.Name())
}

// File is a backup that has been verified to be complete.
type File struct {
	Manifest Manifest
	path     string
	zip      *zip.ReadCloser
}

// Open reads a whole backup and refuses one that is damaged, cut short or newer than this program.
func Open(path string) (f *File, err error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	f = &File{path: path}
	if f.zip, err = zip.OpenReader(path); err != nil {
		return nil, f.damaged(err)
	}
	if err := f.verify(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (f *File) verify() error {
	text, err := fs.ReadFile(f.zip, manifestName)
	if err == nil {
		err = json.Unmarshal(text, &f.Manifest)
	}
	if err != nil {
		return f.damaged(fmt.Errorf("%s: %w", manifestName, err))
	}
	if f.Manifest.Format != format {
		return refuse(f.path, "use the version of this program that made the backup, or a newer one",
			"has format %d, and this program reads format %d", f.Manifest.Format, format)
	}
	if len(f.zip.File) != len(f.Manifest.Entries)+1 {
		return f.damaged(fmt.Errorf("%d entries, and the manifest lists %d", len(f.zip.File)-1, len(f.Manifest.Entries)))
	}
	for _, e := range f.Manifest.Entries {
		if err := f.read(e, func(io.Reader) error { return nil }); err != nil {
			return err
		}
	}
	return nil
}

// read passes an entry's content to use. It also fails if the content differs from the manifest.
func (f *File) read(e Entry, use func(io.Reader) error) error {
	content, err := f.zip.Open(e.Name)
	if err != nil {
		return f.damaged(err)
	}
	defer func() { _ = content.Close() }()
	sum := sha256.New()
	from := io.TeeReader(content, sum)
	if err := use(from); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, from); err != nil {
		return f.damaged(fmt.Errorf("%s: %w", e.Name, err))
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != e.SHA256 {
		return f.damaged(fmt.Errorf("%s: SHA-256 is %s, and the manifest says %s", e.Name, got, e.SHA256))
	}
	return nil
}

// Close closes the file.
func (f *File) Close() error { return f.zip.Close() }

func (f *File) damaged(err error) error {
	return refuse(f.path, "take another backup; the command unzip -t "+shellescape.Quote(f.path)+" shows what can still be read",
		"is not a complete backup: %v", err)
}
