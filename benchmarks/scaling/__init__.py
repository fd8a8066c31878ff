"""A model of training on 8 to 512 GPUs: step time, memory and communication. It writes docs/scaling.md."""
