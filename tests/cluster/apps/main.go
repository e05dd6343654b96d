// The programs of the test cluster's pods, in one binary so that one image serves all of them:
//
//	apps app     an HTTP application; what it calls in turn is named by CALLS
//	apps load    an open-loop load generator that accounts for every request
//	apps pause   the process that holds a pod's namespaces
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	command := ""
	if len(os.Args) == 2 {
		command = os.Args[1]
	}
	switch command {
	case "app":
		app()
	case "load":
		load()
	case "pause":
		pause()
	default:
		fmt.Fprintln(os.Stderr, "usage: apps app|load|pause")
		os.Exit(2)
	}
}

// pause waits for its end, and collects what other containers of the pod leave behind.
func pause() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGCHLD)
	for received := range signals {
		if received != syscall.SIGCHLD {
			return
		}
		for {
			if pid, _ := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 {
				break
			}
		}
	}
}
