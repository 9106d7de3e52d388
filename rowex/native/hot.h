/*
 * hot.h -- what the files of the extension module rowex._hot share.
 *
 * hot.c        the class Door: one key at a time; the module
 * hot_args.c   arguments in, exceptions out, waiting
 * hot_write.c  changes of one key
 * hot_many.c   get_many, put_many
 * hot_pack.c   many objects as one column
 * hot_pairs.c  pairs, encoded one after the other
 * hot_codec.c  ints, strs and tuples to bytes and back
 * hot_scan.c   the scan iterator
 * hot_try.c    changes of one key that never wait
 *
 * Invariants of all of them:
 *  H1  The module knows Python objects and rx_hot_api, nothing else of the core.
 *  H2  Python code runs inside a call into the core only in its own callbacks, so
 *      nothing of a Door is used between a call's begin and its return, and the
 *      handle is read again after anything that could have run some (conversions,
 *      signals, a lock given up): close() sets it to NULL.
 *  H3  While the interpreter lock is given up, the core sees only memory that
 *      Python code cannot free: immutable bytes that are referenced, or an
 *      exported buffer.  Keys are always such bytes, since a key that changed
 *      during a call could end up in the wrong place of the tree.
 *  H4  The core never waits with the lock held: it answers RX_WOULD_WAIT and is
 *      called again, in slices, with the lock given up.
 */
#ifndef ROWEX_HOT_H
#define ROWEX_HOT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>
#include <stdint.h>

#include "errors.h"
#include "hot_api.h"

#define HOT_STACK_BYTES 4096   /* values up to here take one call and no second buffer */
#define HOT_LARGE_BYTES 65536  /* more than this is copied with the interpreter lock given up */
#define HOT_CHUNK_ITEMS 1024   /* keys handed to the core at once; bounds the wait for Ctrl-C */
#define HOT_SHARE_ITEMS 64     /* from here on a chunk is worth giving up the interpreter lock */
#define HOT_SLICE_NS 50000000  /* one slice of a wait; bounds the wait for Ctrl-C */

struct hot_door {
    PyObject_HEAD
    rx_index *handle; /* NULL: closed */
    rx_thread *thread;
    bool readonly;
    bool commit; /* every change waits until it is durable */
};

struct hot_state {
    PyTypeObject *door_type, *scan_type, *pairs_type;
};

/* The core's functions.  Set once by bind(); no open Door exists before. */
extern const struct rx_hot_api *rx_hot __attribute__((visibility("hidden")));
extern PyType_Spec rx_hot_scan_spec __attribute__((visibility("hidden")));
extern PyType_Spec rx_hot_pairs_spec __attribute__((visibility("hidden")));
extern PyMethodDef rx_hot_codec_functions[] __attribute__((visibility("hidden")));

/* A key: the bytes of `copy`, or of the caller's own bytes object (copy NULL). */
struct hot_key {
    const char *data;
    size_t size;
    PyObject *copy;
};

/* A value: the caller's bytes object, or an exported buffer (view.obj not NULL). */
struct hot_value {
    const char *data;
    size_t size;
    Py_buffer view;
};

/* From stored bytes to an object.  `call` is borrowed; NULL: bytes as they are. */
struct hot_decode {
    PyObject *call;
    /* The same for what is plain, without a bytes object and without Python code; NULL without an exception: not plain. */
    PyObject *(*plain)(const char *data, size_t size);
};

struct hot_wait {
    int64_t deadline_ns; /* monotonic; INT64_MAX: none */
};

struct hot_signature {
    const char *function;
    int required, positional, total;
    const char *const *parameter;
};

/* Raise the exception of a result; key may be NULL.  Always returns -1. */
int rx_hot_raise(int code, PyObject *key);
/* A change through a door that refuses them; with a thread of its own it is a reader's.  Always returns -1. */
int rx_hot_raise_readonly(struct hot_door *self);
/* As rx_hot_raise, for one of many items; always -1. */
int rx_hot_raise_item(int code, PyObject *key, Py_ssize_t number);
/* Add to the current exception which item it is about, and which side ("key", "value", or ""); always -1. */
int rx_hot_note(Py_ssize_t number, const char *side);
/* Add to the current exception that it is about the value of a key. */
void rx_hot_note_key(PyObject *key);
/* What is not exactly what is wanted: a function of rowex/_arguments.py, which looks at it for everybody. */
PyObject *rx_hot_ask(const char *function, const char *format, ...);
/* A new bytes object with what `object` holds; `what` ("key", "value") is for the TypeError. */
PyObject *rx_hot_copy(PyObject *object, const char *what);
int rx_hot_key_convert(PyObject *object, struct hot_key *key);
int rx_hot_value_convert(PyObject *object, struct hot_value *value);
/* `call`: one of this module's decode functions, or any other; None and NULL: bytes as they are. */
void rx_hot_decode_begin(PyObject *call, struct hot_decode *decode);
/* A new object.  Runs Python code where the decoder is not one of ours, or the bytes are not plain. */
PyObject *rx_hot_decode(const struct hot_decode *decode, const char *data, size_t size);
/* Arguments by position or name into slot[0 .. total), NULL where left out. */
int rx_hot_parse(const struct hot_signature *signature, PyObject *const *args, Py_ssize_t nargs,
                 PyObject *names, PyObject **slot);
/* timeout: NULL or None for ever, else seconds >= 0, counted from now. */
int rx_hot_wait_begin(PyObject *timeout, struct hot_wait *wait);
/* No more than one slice from now on. */
void rx_hot_wait_once(struct hot_wait *wait);
/* Length of the next slice.  -1 with an exception: a signal's, or the time is over. */
int rx_hot_wait_more(const struct hot_wait *wait, int64_t *slice_ns);

/*
 * What was changed, if anything was (ticket 0: nothing), is waited for until it is durable, where the handle wants
 * that or `asked`.  -1: an exception that says that it was changed (errors.py, made()).
 */
int rx_hot_settle(struct hot_door *self, uint64_t ticket, bool asked, const struct hot_wait *wait);

/* 1 with a new bytes object, 0 absent, -1 with an exception. */
int rx_hot_fetch(struct hot_door *self, PyObject *key, PyObject **value);

PyObject *rx_hot_put(struct hot_door *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names);
PyObject *rx_hot_insert(struct hot_door *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names);
PyObject *rx_hot_remove(struct hot_door *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names);
PyObject *rx_hot_discard(struct hot_door *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names);
int rx_hot_set(struct hot_door *self, PyObject *key, PyObject *value); /* value NULL: del */
PyObject *rx_hot_get_many(struct hot_door *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names);
PyObject *rx_hot_get_each(struct hot_door *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *rx_hot_put_many(struct hot_door *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names);
PyObject *rx_hot_put_pairs(struct hot_door *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *rx_hot_pack(PyObject *module, PyObject *const *args, Py_ssize_t nargs);
PyObject *rx_hot_encoded(PyObject *module, PyObject *const *args, Py_ssize_t nargs);
PyObject *rx_hot_try_put(struct hot_door *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names);
PyObject *rx_hot_try_insert(struct hot_door *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names);
PyObject *rx_hot_try_remove(struct hot_door *self, PyObject *key);
PyObject *rx_hot_scan(struct hot_door *self, PyTypeObject *defining, PyObject *const *args,
                      Py_ssize_t nargs, PyObject *names);
PyObject *rx_hot_scan_what(struct hot_door *self, PyTypeObject *defining, PyObject *const *args,
                           Py_ssize_t nargs, PyObject *names);

static inline int rx_hot_key_begin(PyObject *object, struct hot_key *key)
{
    if (!PyBytes_CheckExact(object))
        return rx_hot_key_convert(object, key);
    key->data = PyBytes_AS_STRING(object);
    key->size = (size_t)PyBytes_GET_SIZE(object);
    key->copy = NULL;
    return 0;
}

static inline void rx_hot_key_end(struct hot_key *key)
{
    Py_XDECREF(key->copy);
}

static inline int rx_hot_value_begin(PyObject *object, struct hot_value *value)
{
    if (!PyBytes_CheckExact(object))
        return rx_hot_value_convert(object, value);
    value->data = PyBytes_AS_STRING(object);
    value->size = (size_t)PyBytes_GET_SIZE(object);
    value->view.obj = NULL;
    return 0;
}

static inline void rx_hot_value_end(struct hot_value *value)
{
    if (value->view.obj)
        PyBuffer_Release(&value->view);
}

#endif
