"""The tests: one folder for each part of the package, under the same names."""
