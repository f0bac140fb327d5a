"""Speed, as ratios measured in one run: ``python -m benchmarks`` runs all of them and prints a table."""
