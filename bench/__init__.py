"""Benchmarks: each module's `main()` prints ratios taken in one run; bare times on shared machines mean little."""
