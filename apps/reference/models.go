package main

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
)

const modelLimit = 256 << 20

// modelRegistry keeps models as plain files in one folder. Paths cannot leave it: os.Root sees to that, symbolic links included.
type modelRegistry struct {
	rt                *runtime
	root              *os.Root
	read, admin, both string // tokens; empty: not set
}

func setupModels(rt *runtime) error {
	cfg, err := load[modelsConfig](rt.environ)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(cfg.Dir)
	if err != nil {
		return fmt.Errorf("MODEL_REGISTRY_DIR: %w", err)
	}
	rt.closers = append(rt.closers, func() { _ = root.Close() })
	rt.port = fmt.Sprint(cfg.Port)
	m := &modelRegistry{rt: rt, root: root, read: cfg.ReadToken, admin: cfg.AdminToken, both: cfg.Token}
	rt.wrap = allowOrigins(cfg.AllowedOrigins)
	rt.api("GET /api/v1/models", m.list)
	rt.mux.HandleFunc("GET /api/v1/models/{name}", m.get)
	rt.mux.HandleFunc("PUT /api/v1/models/{name}", m.put)
	return rt.depend(cfg.StackConfig)
}

// allowOrigins lets pages of the listed origins read answers.
func allowOrigins(origins []webURL) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Add("Vary", "Origin")
			if origin := r.Header.Get("Origin"); slices.Contains(origins, webURL(origin)) {
				w.Header().Set("Access-Control-Allow-Origin", origin)
			}
			next.ServeHTTP(w, r)
		})
	}
}

// allowed holds a request against the tokens. With none set the registry is open, as in development; as soon as one is set,
// reading needs the read or admin token, writing the admin token.
func (m *modelRegistry) allowed(r *http.Request, good ...string) error {
	if m.read == "" && m.admin == "" && m.both == "" {
		return nil
	}
	given, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	for _, token := range append(good, m.both) {
		if token != "" && subtle.ConstantTimeCompare([]byte(given), []byte(token)) == 1 {
			return nil
		}
	}
	if given == "" {
		return problem{http.StatusUnauthorized, "Authorization: Bearer token missing"}
	}
	return problem{http.StatusForbidden, "Authorization: this token does not allow that"}
}

type model struct {
	Name     string    `json:"name"`
	Size     int64     `json:"size"`
	Modified time.Time `json:"modified"`
	SHA256   string    `json:"sha256,omitempty"`
}

func (m *modelRegistry) list(r *http.Request) (int, any, error) {
	if err := m.allowed(r, m.read, m.admin); err != nil {
		return 0, nil, err
	}
	entries, err := fs.ReadDir(m.root.FS(), ".")
	if err != nil {
		return 0, nil, err
	}
	models := []model{}
	for _, entry := range entries {
		info, err := entry.Info()
		if err == nil && info.Mode().IsRegular() && identifier.MatchString(entry.Name()) {
			models = append(models, model{Name: entry.Name(), Size: info.Size(), Modified: info.ModTime().UTC()})
		}
	}
	return http.StatusOK, map[string]any{"models": models}, nil
}

func (m *modelRegistry) get(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	err := m.allowed(r, m.read, m.admin)
	if err == nil && !identifier.MatchString(name) {
		err = problem{http.StatusNotFound, "no such model"}
	}
	if err != nil {
		m.fail(w, r, err)
		return
	}
	file, err := m.root.Open(name)
	if err != nil {
		m.fail(w, r, err)
		return
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		m.fail(w, r, errors.Join(err, fs.ErrNotExist))
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", info.ModTime(), file)
}

// put writes beside the model and renames, so that a reader never sees half of one.
func (m *modelRegistry) put(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	err := m.allowed(r, m.admin)
	if err == nil && !identifier.MatchString(name) {
		err = badRequest("name: 1 to 64 letters, digits, dots, dashes or underscores")
	}
	if err != nil {
		m.fail(w, r, err)
		return
	}
	stored, err := m.write(name, http.MaxBytesReader(w, r.Body, modelLimit))
	if err != nil {
		m.fail(w, r, err)
		return
	}
	m.rt.log.InfoContext(r.Context(), "model stored", "name", name, "size", stored.Size, "sha256", stored.SHA256)
	writeJSON(w, http.StatusCreated, stored)
}

func (m *modelRegistry) write(name string, body io.Reader) (model, error) {
	temporary := "." + name + "." + newTrace()
	file, err := m.root.OpenFile(temporary, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return model{}, err
	}
	defer func() { _ = m.root.Remove(temporary) }()
	sum := sha256.New()
	size, err := io.Copy(io.MultiWriter(file, sum), body)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return model{}, err
	}
	stored := model{Name: name, Size: size, Modified: time.Now().UTC(), SHA256: hex.EncodeToString(sum.Sum(nil))}
	return stored, m.root.Rename(temporary, name)
}

func (m *modelRegistry) fail(w http.ResponseWriter, r *http.Request, err error) {
	var fault problem
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &fault):
	case errors.Is(err, fs.ErrNotExist):
		fault = problem{http.StatusNotFound, "no such model"}
	case errors.As(err, &large):
		fault = problem{http.StatusRequestEntityTooLarge, "the model is larger than 256 MiB"}
	default:
		m.rt.log.ErrorContext(r.Context(), "model registry failed", "error", brief(err))
		fault = problem{http.StatusInternalServerError, "the models' folder cannot be read or written; see the service's log"}
	}
	writeJSON(w, fault.status, map[string]string{"error": fault.text, "trace_id": traceOf(r.Context())})
}
