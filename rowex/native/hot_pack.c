/*
 * hot_pack.c -- pack: many bytes objects into one, for what takes columns (rowex/columns.py).
 *
 * The objects lie anywhere in memory; they are asked for some ahead, so that their
 * misses overlap.  No Python code runs while the list is read.
 */
#include "bytes.h"
#include "hot.h"

#define AHEAD 64 /* items: so many misses as memory answers side by side, twice */

/* rows[i], or its side of a pair, which is not looked at; NULL: no pair. */
static PyObject *row(PyObject *rows, Py_ssize_t i, Py_ssize_t side)
{
    PyObject *item = PyList_GET_ITEM(rows, i);
    if (side < 0)
        return item;
    return PyTuple_CheckExact(item) && PyTuple_GET_SIZE(item) == 2 ? PyTuple_GET_ITEM(item, side) : NULL;
}

static void ask_ahead(PyObject *rows, Py_ssize_t i, Py_ssize_t side)
{
    Py_ssize_t n = PyList_GET_SIZE(rows);
    if (i + AHEAD < n)
        __builtin_prefetch(PyList_GET_ITEM(rows, i + AHEAD));
    const char *item = i + AHEAD / 2 < n ? (const char *)row(rows, i + AHEAD / 2, side) : NULL;
    if (item && side >= 0)
        __builtin_prefetch(item);
    if (item) /* its bytes may begin in the next line */
        __builtin_prefetch(item + offsetof(PyBytesObject, ob_sval));
}

/* The bytes of all; *width: of each, 0 where they differ; -1: an item that cannot be packed. */
static Py_ssize_t measure(PyObject *rows, Py_ssize_t side, Py_ssize_t *width)
{
    Py_ssize_t n = PyList_GET_SIZE(rows), total = 0;
    *width = -1;
    for (Py_ssize_t i = 0; i < n; i++) {
        ask_ahead(rows, i, side);
        PyObject *item = row(rows, i, side);
        if (!item || !PyBytes_CheckExact(item) || PyBytes_GET_SIZE(item) > PY_SSIZE_T_MAX - total)
            return -1;
        Py_ssize_t size = PyBytes_GET_SIZE(item);
        *width = *width == -1 || *width == size ? size : 0;
        total += size;
    }
    *width = Py_MAX(*width, 0);
    return total;
}

static void copy(PyObject *rows, Py_ssize_t side, char *to, int64_t *offset)
{
    const char *begin = to;
    Py_ssize_t n = PyList_GET_SIZE(rows);
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *item = row(rows, i, side);
        if (!item)
            return; /* it was measured: there is none such */
        if (offset)
            offset[i] = to - begin;
        rx_copy_short(to, PyBytes_AS_STRING(item), (size_t)PyBytes_GET_SIZE(item));
        to += PyBytes_GET_SIZE(item);
    }
    if (offset)
        offset[n] = to - begin;
}

PyObject *rx_hot_pack(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    (void)module;
    Py_ssize_t width, side = nargs == 2 ? PyNumber_AsSsize_t(args[1], PyExc_OverflowError) : -2;
    if (PyErr_Occurred())
        return NULL;
    if (nargs != 2 || !PyList_CheckExact(args[0]) || side < -1 || side > 1)
        return PyErr_Format(PyExc_TypeError, "pack() takes a list, and which side of its pairs: 0, 1, or -1 for all of it");
    Py_ssize_t total = measure(args[0], side, &width);
    if (total < 0)
        Py_RETURN_NONE;
    Py_ssize_t offsets_size = (PyList_GET_SIZE(args[0]) + 1) * (Py_ssize_t)sizeof(int64_t);
    PyObject *data = PyBytes_FromStringAndSize(NULL, total);
    PyObject *offsets = width ? Py_NewRef(Py_None) : PyBytes_FromStringAndSize(NULL, offsets_size);
    if (!data || !offsets) {
        Py_XDECREF(data);
        Py_XDECREF(offsets);
        return NULL;
    }
    copy(args[0], side, PyBytes_AS_STRING(data), width ? NULL : (int64_t *)(void *)PyBytes_AS_STRING(offsets));
    return Py_BuildValue("(NnN)", data, width, offsets);
}
