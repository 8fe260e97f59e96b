"""Cell type labels: transfer, probabilities, scores."""
