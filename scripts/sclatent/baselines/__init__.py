"""The linear latents: PCA, and PCA corrected by Harmony."""
