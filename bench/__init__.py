"""Benchmarks: ratios within one run on one broker, never absolute promises."""
