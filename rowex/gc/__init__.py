"""
The storey between: uids, epochs, space, and copy-and-rename, in C.

Compiled into `rowex._native` together with the sources of `rowex.native`.
"""
