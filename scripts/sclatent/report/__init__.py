"""What leaves the workflow: the exported dataset and the report."""
