"""The whole cluster in one thread under virtual time, with faults drawn from a seed: `python -m tests.simulation`."""
