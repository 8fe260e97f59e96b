"""The library behind the rules: importable from every script with no install."""
