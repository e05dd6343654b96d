"""A real Kubernetes cluster of two nodes on one machine, and the tests that need one."""
