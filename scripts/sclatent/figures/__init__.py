"""One topic a file; every figure is a function of tables."""
