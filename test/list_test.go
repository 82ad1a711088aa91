package test

import (
	"fmt"
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Without the tags `live` and `official` this is the only test here. It prints the others, and fails for one that would run where no engine is.
func TestLiveTests(t *testing.T) {
	fmt.Println("The live tests, which need a Docker engine: make live, or make live RUN=<name> for one of them (of official_test.go: make live-official).")
	for _, pattern := range []string{"*_test.go", "preview/*_test.go"} {
		files, err := filepath.Glob(pattern)
		require.NoError(t, err)
		require.NotEmpty(t, files)
		for _, path := range files {
			untagged, err := build.Default.MatchFile(filepath.Split(path))
			require.NoError(t, err)
			assert.Equal(t, path == "list_test.go", untagged, "%s: its first line is to be //go:build live, official or both", path)
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			require.NoError(t, err)
			var names []string
			for _, declaration := range file.Decls {
				if f, ok := declaration.(*ast.FuncDecl); ok && strings.HasPrefix(f.Name.Name, "Test") && f.Name.Name != "TestMain" && !untagged {
					names = append(names, f.Name.Name)
				}
			}
			if len(names) > 0 {
				fmt.Printf("  %-26s %s\n", path, strings.Join(names, " "))
			}
		}
	}
}
