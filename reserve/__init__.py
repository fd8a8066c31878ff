"""MERLOT Reserve: data, model and trainer on top of the fused ops of `reserve_kernels`."""
