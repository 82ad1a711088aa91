package workspace

import (
	"os"
	"os/exec"
)

// replaceProcess runs a program as a child with this process's standard streams, and ends with its
// exit code: Windows cannot replace a process. It returns only if the program does not start.
func replaceProcess(path string, args, env []string) error {
	cmd := &exec.Cmd{Path: path, Args: args, Env: env, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	if err := cmd.Start(); err != nil {
		return err
	}
	_ = cmd.Wait()
	os.Exit(cmd.ProcessState.ExitCode())
	return nil
}
