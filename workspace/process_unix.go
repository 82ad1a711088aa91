//go:build unix

package workspace

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// replaceProcess runs a program in the place of this process. It returns only when that fails.
func replaceProcess(path string, args, env []string) error { return syscall.Exec(path, args, env) }

// ownGroup gives a command a process group of its own, so that a signal to this process's group does not reach it.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// interrupt asks a process to end in good order.
func interrupt(p *os.Process) error { return p.Signal(os.Interrupt) }

// processExists tells whether a process of this number runs, whoever owns it.
func processExists(pid int) bool { return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }
