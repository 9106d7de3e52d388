"""
The core in C: nodes, tree, cursor, files, and the C API (index.h).

The sources and headers are installed with the package, so that a variant of the core (with
crash points, with sanitizers) can be compiled from any installation: see `build.py`.
"""
