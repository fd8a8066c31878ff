"""Training on many GPUs: a table of runs on this machine, and a model of 8 to 512 GPUs. It writes docs/scaling.md."""
