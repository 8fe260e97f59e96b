"""One training loop for every model, with its loader and checkpoints."""
