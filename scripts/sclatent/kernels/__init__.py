"""Fast paths of a training step on a CPU, each held by a test to what the models say plainly."""
