/*
 * errors.h -- the one list of results: code, name, what it means, what to do.
 *
 * Results >= 0 are answers, results < 0 are errors.  Python's errors.py maps
 * the negative ones onto exception classes by NAME; the message text lives
 * here and nowhere else.  RX_I_* never leave the core.
 */
#ifndef ROWEX_ERRORS_H
#define ROWEX_ERRORS_H

/*      name            value  what happened                                        what to do */
#define RX_RESULTS(X) \
    X(RX_OK,                0, "done",                                              "") \
    X(RX_ABSENT,            1, "the key is absent",                                 "") \
    X(RX_PRESENT,           2, "the key is already present",                        "use put() to replace it") \
    X(RX_MISMATCH,          3, "the value is not the expected one",                 "read it again and retry") \
    X(RX_TOO_SMALL,         4, "the caller's buffer is too small",                  "call again with the size returned") \
    X(RX_WOULD_WAIT,        5, "the operation would have to wait",                  "call again, or wait longer") \
    X(RX_END,               6, "no more items",                                     "") \
    X(RX_I_EVICTED,        90, "the reader was evicted",                            "restart") \
    X(RX_I_RESTART,        91, "the descent met a change",                          "restart") \
    X(RX_I_GROW,           92, "space must be found outside the epoch",             "rx_grow(), then restart") \
    X(RX_I_GATE,           93, "the gate is closed",                                "rx_gate_wait(), then restart") \
    X(RX_I_MOVED,          94, "the generation that a batch was begun in is over",  "begin it anew") \
    X(RX_E_CORRUPT,        -1, "the file is damaged",                               "run `rowex check`; restore a backup, or get out what can be had with `rowex salvage`") \
    X(RX_E_FORMAT,         -2, "this is not a usable Rowex file",                   "check the path and the version that wrote it") \
    X(RX_E_CLOSED,         -3, "the index is closed",                               "open it again") \
    X(RX_E_FULL,           -4, "there is no room left",                             "free disk space, or remove keys and run compact(); a larger max_size takes a copy: rowex.copy(old, new, max_size=...)") \
    X(RX_E_READONLY,       -5, "the index is open read-only",                       "open it with mode \"w\" or \"c\"") \
    X(RX_E_DURABILITY,     -6, "durability cannot be promised",                     "") \
    X(RX_E_OS,             -7, "the operating system refused",                      "") \
    X(RX_E_PERMISSION,     -8, "permission denied",                                 "check the modes of the file and its -lock file") \
    X(RX_E_NOT_FOUND,      -9, "there is no such file",                             "check the path") \
    X(RX_E_KEY_SIZE,      -10, "the key or value is too large",                     "keys hold up to 1 MiB, values up to 256 GiB") \
    X(RX_E_MEMORY,        -11, "out of memory",                                     "") \
    X(RX_E_TIMEOUT,       -12, "the wait took longer than allowed",                 "the holder is named; resume or kill it, or wait longer") \
    X(RX_E_TABLE_FULL,    -13, "the table of uids is full",                         "let threads end, or close readers and writers") \
    X(RX_E_CONFLICT,      -14, "an option disagrees with the file",                 "leave the option out, or copy the file with the new one") \
    X(RX_E_REPLACED,      -15, "the file was unlinked or replaced under the handle","open it again") \
    X(RX_E_INTERRUPTED,   -16, "interrupted",                                       "") \
    X(RX_E_BUSY,          -17, "it is in use",                                      "") \
    X(RX_E_IO,            -18, "a mapped page could not be read or written",        "the disk failed or the file was cut short; open it again") \
    X(RX_E_UNSUPPORTED,   -19, "not supported here",                                "") \
    X(RX_E_POWER,         -20, "the file was in use when the machine stopped",      "restore a backup, or get out what can be had with `rowex salvage`; a file with durability=\"process\" does not survive power loss") \
    X(RX_E_ITEM,          -21, "an item of an array does not fit",                  "choose another dtype") \
    X(RX_E_NO_FOLDER,     -22, "there is no such folder",                           "make it first, or check the path") \
    X(RX_E_EXISTS,        -23, "there is something already",                        "choose another name, or remove it first") \
    X(RX_E_ARGUMENT,      -24, "that cannot be",                                    "")

enum rx_result {
#define X(name, value, what, hint) name = value,
    RX_RESULTS(X)
#undef X
};

#endif
