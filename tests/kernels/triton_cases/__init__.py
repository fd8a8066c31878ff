"""What the launchers of the Triton kernels can pick, one module an op."""
