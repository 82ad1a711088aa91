package provider

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"github.com/moby/moby/client"
)

// upload is a file that is copied into a container before its first start. Content is
// text, and ContentBase64 arbitrary bytes.
type upload struct {
	File          string `pulumi:"file"`
	Content       string `pulumi:"content,optional"`
	ContentBase64 string `pulumi:"contentBase64,optional"`
	// Executable returns mode 0755 instead of 0644. Permissions, in octal, take precedence.
	Executable  bool   `pulumi:"executable,optional"`
	Permissions string `pulumi:"permissions,optional"`
}

func (u upload) bytes() ([]byte, error) {
	if u.ContentBase64 != "" {
		return base64.StdEncoding.DecodeString(u.ContentBase64)
	}
	return []byte(u.Content), nil
}

func (u upload) mode() (int64, error) {
	switch {
	case u.Permissions != "":
		mode, err := strconv.ParseInt(u.Permissions, 8, 64)
		if err != nil || mode < 0 || mode > 0o7777 {
			return 0, fmt.Errorf("permissions %q must be octal, such as 0644", u.Permissions)
		}
		return mode, nil
	case u.Executable:
		return 0o755, nil
	}
	return 0o644, nil
}

// uploadFiles copies the files in one go; missing folders are created.
func uploadFiles(ctx context.Context, e client.APIClient, id string, uploads []upload) error {
	if len(uploads) == 0 {
		return nil
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, u := range uploads {
		content, err := u.bytes()
		if err != nil {
			return fmt.Errorf("upload %s: contentBase64 is not base64", u.File)
		}
		mode, err := u.mode()
		if err != nil {
			return fmt.Errorf("upload %s: %w", u.File, err)
		}
		if err := w.WriteHeader(&tar.Header{
			Typeflag: tar.TypeReg, Name: strings.TrimPrefix(u.File, "/"), Size: int64(len(content)), Mode: mode,
		}); err != nil {
			return fmt.Errorf("upload %s: %w", u.File, err)
		}
		if _, err := w.Write(content); err != nil {
			return fmt.Errorf("upload %s: %w", u.File, err)
		}
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("uploads: %w", err)
	}
	if _, err := e.CopyToContainer(ctx, id, client.CopyToContainerOptions{
		DestinationPath: "/", Content: &archive,
	}); err != nil {
		return fmt.Errorf("uploads: %w", err)
	}
	return nil
}
