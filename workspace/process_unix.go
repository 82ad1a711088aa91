//go:build unix

package workspace

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// replaceProcess replaces this process by a program. It returns only if that fails.
func replaceProcess(path string, args, env []string) error {
	return syscall.Exec(path, args, env) //nolint:gosec // the user's own programs and arguments
}

// ownGroup puts a command into a new process group, so that signals to this process's group do not reach it.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// interrupt asks a process to shut down.
func interrupt(p *os.Process) error { return p.Signal(os.Interrupt) }

// processExists reports whether a process with this ID exists, of any user.
func processExists(pid int) bool { return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }
