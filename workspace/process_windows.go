package workspace

import (
	"os"
	"os/exec"
)

// replaceProcess runs a program for the user to see: Windows cannot put it in the place of this process.
func replaceProcess(path string, args, env []string) error {
	return (&exec.Cmd{Path: path, Args: args, Env: env, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}).Run()
}

// ownGroup leaves a command in this process's console, the only way in which Ctrl-C reaches it.
func ownGroup(*exec.Cmd) {}

// interrupt does nothing: Windows has sent Ctrl-C to every process of the console by itself.
func interrupt(*os.Process) error { return nil }

// processExists tells whether a process of this number runs.
func processExists(pid int) bool {
	p, err := os.FindProcess(pid)
	if err != nil {
		return false
	}
	_ = p.Release()
	return true
}
