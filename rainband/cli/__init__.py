"""The command line: what people type. Knows everything below, decides nothing that a program could not also ask for.

`main.run(argv)` is the only door: it parses, runs one command, prints, and turns every end into an exit code:
0 done, 1 failed in user code, 2 bad usage, 3 refused, 4 unreachable, 5 not allowed, 6 not reached in time,
130 interrupted. Answers go to stdout, as text or (`--json`) one document per line; everything else goes to stderr.

Commands live in one module per subject and are imported when they are used: `rainband --help` loads none of them,
and neither zmq nor rich.
"""
