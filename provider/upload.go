package provider

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/moby/moby/client"
)

// upload is a text file that is copied into a container before its first start.
type upload struct {
	File    string `pulumi:"file"`
	Content string `pulumi:"content,optional"`
	// Permissions are octal. The default is 0644.
	Permissions string `pulumi:"permissions,optional"`
}

func (u upload) mode() (int64, error) {
	if u.Permissions == "" {
		return 0o644, nil
	}
	mode, err := strconv.ParseInt(u.Permissions, 8, 64)
	if err != nil || mode < 0 || mode > 0o7777 {
		return 0, fmt.Errorf("permissions %q must be octal, such as 0644", u.Permissions)
	}
	return mode, nil
}

// uploadFiles copies the files in one go; missing folders are created.
func uploadFiles(ctx context.Context, e client.APIClient, id string, uploads []upload) error {
	if len(uploads) == 0 {
		return nil
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, u := range uploads {
		mode, _ := u.mode() // check has refused a malformed one
		header := &tar.Header{Typeflag: tar.TypeReg, Name: strings.TrimPrefix(u.File, "/"), Size: int64(len(u.Content)), Mode: mode}
		if err := w.WriteHeader(header); err != nil {
			return fmt.Errorf("upload %s: %w", u.File, err)
		}
		_, _ = w.Write([]byte(u.Content)) // into memory, and of the size that the header has
	}
	_ = w.Close()
	if _, err := e.CopyToContainer(ctx, id, client.CopyToContainerOptions{DestinationPath: "/", Content: &archive}); err != nil {
		return fmt.Errorf("uploads: %w", err)
	}
	return nil
}
