package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// given are values of variables that the contract has no usable default for.
var given = map[string]string{
	"DATABASE_URL": "postgresql://trader:pg-secret@127.0.0.1:1/trader", "SESSION_ENCRYPTION_KEY": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
	"WEB_CONSOLE_USER": "admin", "WEB_CONSOLE_PASSWORD": "console-secret", "ALERT_RECIPIENT_HASH_SECRET": "hash-secret",
	"AUTH0_DOMAIN": "tenant.example.com", "AUTH0_CLIENT_ID": "the-client", "AUTH0_CLIENT_SECRET": "client-secret",
}

// environment is a service's environment as the stack gives it, with some of it changed.
func environment(service string, changes map[string]string) []string {
	entry, _ := contract.find(service)
	facts := strings.NewReplacer("${nginx_address}", "172.28.0.10", "${public_url}", "https://web-console.trading-platform.local",
		"${console_origins}", "http://localhost:8080,http://127.0.0.1:8080", "${redis_url}", "redis://redis:6379/0")
	values := map[string]string{"STACK_DEPENDENCIES": ""}
	for name, value := range entry.Variables {
		values[name] = cmp.Or(given[name], facts.Replace(value))
	}
	for _, name := range entry.Required {
		values[name] = cmp.Or(values[name], "given-by-the-test")
	}
	maps.Copy(values, changes)
	var environ []string
	for name, value := range values {
		environ = append(environ, name+"="+value)
	}
	return environ
}

// fixture is one service under test, with Redis and a store in memory.
type fixture struct {
	*service
	redis  *miniredis.Miniredis
	client *redis.Client
	db     *memoryStore
	url    string
	log    *syncBuffer
}

type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func newFixture(t *testing.T, name string, changes map[string]string, tweak ...func(*service)) *fixture {
	t.Helper()
	entry, err := contract.find(name)
	require.NoError(t, err)
	mini := miniredis.RunT(t)
	all := map[string]string{"REDIS_HOST": mini.Host(), "REDIS_PORT": mini.Port(), "REDIS_URL": "redis://" + mini.Addr() + "/0"}
	maps.DeleteFunc(all, func(name, _ string) bool { _, has := entry.Variables[name]; return !has })
	maps.Copy(all, changes)
	if password := all["REDIS_PASSWORD"]; password != "" {
		mini.RequireAuth(password)
	}
	f := &fixture{redis: mini, db: &memoryStore{rows: map[string]jobRow{}}, log: &syncBuffer{}, client: redis.NewClient(&redis.Options{Addr: mini.Addr()})}
	f.service = newService(entry, f.log)
	f.Folders = nil
	if entry.Folders != nil {
		f.Folders = []string{t.TempDir(), t.TempDir()}
	}
	f.open = func(string) (store, func(), error) { return f.db, func() {}, nil }
	for _, change := range tweak {
		change(f.service)
	}
	require.NoError(t, f.setup(environment(name, all)))
	server := httptest.NewServer(f.handler())
	f.url = server.URL
	t.Cleanup(func() { server.Close(); f.close(); _ = f.client.Close() })
	return f
}

// forget lets the next question to a monitor be asked anew.
func (m *monitor) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = time.Time{}
}

// ask sends a request to the service and reads the answer.
func (f *fixture) ask(t *testing.T, method, path, body string, header ...string) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequest(method, f.url+path, strings.NewReader(body))
	require.NoError(t, err)
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	require.NoError(t, err)
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, string(text), res.Header
}

func decodeText[T any](t *testing.T, text string) (value T) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(text), &value), text)
	return value
}

// memoryStore is the store without a database.
type memoryStore struct {
	mu       sync.Mutex
	err      error // what every call answers, where set
	rows     map[string]jobRow
	order    []string // the ids of the jobs in the order in which they were started
	finished int
}

func (m *memoryStore) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

func (m *memoryStore) check(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

func (m *memoryStore) start(_ context.Context, j jobRow) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before, known := m.rows[j.JobID]
	if m.err != nil || known && before.Status != "running" {
		return 0, m.err
	}
	j.Status, j.Attempts, j.StartedAt = "running", before.Attempts+1, time.Now()
	m.rows[j.JobID] = j
	m.order = append(m.order, j.JobID)
	return j.Attempts, nil
}

func (m *memoryStore) giveBack(_ context.Context, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	row := m.rows[id]
	row.Attempts--
	m.rows[id] = row
	return m.err
}

func (m *memoryStore) finish(_ context.Context, j jobRow) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil || m.rows[j.JobID].Status != "running" {
		return false, m.err
	}
	j.Attempts = m.rows[j.JobID].Attempts
	m.rows[j.JobID] = j
	m.finished++
	return true, nil
}

func (m *memoryStore) jobs(_ context.Context, n int) ([]jobRow, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []jobRow
	for _, key := range slices.Sorted(maps.Keys(m.rows)) {
		list = append(list, m.rows[key])
	}
	return list[:min(n, len(list))], m.err
}

func (m *memoryStore) row(id string) jobRow {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rows[id]
}

func (m *memoryStore) started() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.order)
}
