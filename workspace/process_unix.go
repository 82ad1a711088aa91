//go:build unix

package workspace

import "syscall"

// replaceProcess replaces this process by a program. It returns only if that fails.
func replaceProcess(path string, args, env []string) error {
	return syscall.Exec(path, args, env) //nolint:gosec // the user's own programs and arguments
}
