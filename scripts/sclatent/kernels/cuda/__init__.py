"""Fast paths of a training step on a GPU: Triton kernels, counts on the device, captured steps."""
