//go:build live

package preview

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/itchyny/gojq"
)

// comment is a comment of a pull request as GitHub's API gives it.
type comment struct {
	ID   int               `json:"id"`
	Body string            `json:"body"`
	User map[string]string `json:"user"`
}

// standInGitHub is the `gh api` of the workflow's steps, with GitHub's comments in
// the file that STAND_IN_COMMENTS names.
func standInGitHub(args []string) int {
	if err := callGitHub(args); err != nil {
		fmt.Fprintln(os.Stderr, "gh:", err)
		return 1
	}
	return 0
}

func callGitHub(args []string) error {
	if os.Getenv("GH_TOKEN") == "" {
		return errors.New("no GH_TOKEN")
	}
	if len(args) == 0 || args[0] != "api" {
		return fmt.Errorf("not stood in for: %v", args)
	}
	method, path, query, body := "GET", "", "", ""
	for i := 1; i < len(args); i++ {
		switch args[i] {
		case "--paginate", "--silent":
			continue
		case "--method":
			method = args[i+1]
		case "--jq":
			query = args[i+1]
		case "-F":
			file, ok := strings.CutPrefix(args[i+1], "body=@")
			if !ok {
				return fmt.Errorf("not stood in for: -F %s", args[i+1])
			}
			text, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			body = string(text)
		default:
			path = args[i]
			continue
		}
		i++
	}
	comments, err := readComments()
	if err != nil {
		return err
	}
	const list, one = "repos/owner/project/issues/7/comments", "repos/owner/project/issues/comments/"
	switch {
	case method == "GET" && path == list:
		return printJQ(os.Stdout, query, comments)
	case method == "POST" && path == list:
		comments = append(comments, comment{ID: 100 + len(comments), Body: body, User: map[string]string{"login": "github-actions[bot]"}})
	case method == "PATCH" && strings.HasPrefix(path, one):
		id, err := strconv.Atoi(path[len(one):])
		if err != nil {
			return err
		}
		found := false
		for i := range comments {
			if comments[i].ID == id {
				comments[i].Body, found = body, true
			}
		}
		if !found {
			return fmt.Errorf("no comment %d", id)
		}
	default:
		return fmt.Errorf("not stood in for: %s %s", method, path)
	}
	text, err := json.Marshal(comments)
	if err != nil {
		return err
	}
	return os.WriteFile(os.Getenv("STAND_IN_COMMENTS"), text, 0o600)
}

func readComments() ([]comment, error) {
	text, err := os.ReadFile(filepath.Clean(os.Getenv("STAND_IN_COMMENTS")))
	if err != nil {
		return nil, err
	}
	var comments []comment
	return comments, json.Unmarshal(text, &comments)
}

// printJQ prints what a query finds, a line each, as gh does.
func printJQ(w io.Writer, query string, comments []comment) error {
	q, err := gojq.Parse(query)
	if err != nil {
		return err
	}
	text, err := json.Marshal(comments)
	if err != nil {
		return err
	}
	var input any
	if err := json.Unmarshal(text, &input); err != nil {
		return err
	}
	for found := q.Run(input); ; {
		value, more := found.Next()
		if !more {
			return nil
		}
		if err, failed := value.(error); failed {
			return err
		}
		fmt.Fprintln(w, value)
	}
}
