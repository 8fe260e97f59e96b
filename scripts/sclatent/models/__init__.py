"""Count autoencoders as generative models."""
