/*
 * hot_args.c -- arguments in, exceptions out, and waiting in slices.
 *
 * Everything here is off the fast path: hot.h has the inline parts that an exact
 * bytes object takes.
 */
#include "hot.h"

#include <string.h>
#include <time.h>

/* --- exceptions --- */

/* A function that raises was called; takes the reference to what it returned. */
static int raised(PyObject *nothing)
{
    if (nothing) {
        Py_DECREF(nothing);
        PyErr_SetString(PyExc_SystemError, "a function that raises has returned");
    }
    return -1;
}

int rx_hot_raise(int code, PyObject *key)
{
    /* A callback of ours has raised already. */
    if (code == RX_E_INTERRUPTED && PyErr_Occurred())
        return -1;
    PyObject *errors = PyImport_ImportModule("rowex.errors");
    if (!errors)
        return -1;
    PyObject *nothing = key ? PyObject_CallMethod(errors, "raise_result", "iO", code, key)
                            : PyObject_CallMethod(errors, "raise_result", "i", code);
    Py_DECREF(errors);
    return raised(nothing);
}

int rx_hot_raise_readonly(struct hot_door *self)
{
    if (!self->thread)
        return rx_hot_raise(RX_E_READONLY, NULL);
    PyObject *errors = PyImport_ImportModule("rowex.errors");
    if (!errors)
        return -1;
    PyObject *nothing = PyObject_CallMethod(errors, "raise_reader", NULL);
    Py_DECREF(errors);
    return raised(nothing);
}

PyObject *rx_hot_ask(const char *function, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    PyObject *arguments = Py_VaBuildValue(format, list), *answer = NULL;
    va_end(list);
    PyObject *module = arguments ? PyImport_ImportModule("rowex._arguments") : NULL;
    PyObject *called = module ? PyObject_GetAttrString(module, function) : NULL;
    if (called)
        answer = PyObject_CallObject(called, arguments);
    Py_XDECREF(called);
    Py_XDECREF(module);
    Py_XDECREF(arguments);
    return answer;
}

int rx_hot_raise_item(int code, PyObject *key, Py_ssize_t number)
{
    if (code == RX_E_INTERRUPTED && PyErr_Occurred())
        return -1;
    return raised(rx_hot_ask("raise_item", "(iOn)", code, key ? key : Py_None, number));
}

/* key NULL: of an item with that number. */
static void note(PyObject *key, Py_ssize_t number, const char *side)
{
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    PyObject *nothing = key ? rx_hot_ask("note_key", "(OO)", error, key)
                            : rx_hot_ask("note_item", "(Ons)", error, number, side);
    Py_XDECREF(nothing);
    PyErr_Restore(type, error, traceback); /* instead of one of the asking */
}

int rx_hot_note(Py_ssize_t number, const char *side)
{
    note(NULL, number, side);
    return -1;
}

void rx_hot_note_key(PyObject *key)
{
    note(key, 0, NULL);
}

/* --- buffers --- */

/* 1 with the buffer where it is plainly bytes; 0: another kind, or something is wrong with it. */
static int export_bytes(PyObject *object, Py_buffer *view)
{
    if (!PyBytes_Check(object) && !PyByteArray_CheckExact(object) && !PyMemoryView_Check(object))
        return 0;
    if (PyObject_GetBuffer(object, view, PyBUF_FULL_RO) < 0) {
        PyErr_Clear();
        return 0;
    }
    if (view->ndim == 1 && PyBuffer_IsContiguous(view, 'C') && (!view->format || strcmp(view->format, "B") == 0))
        return 1;
    PyBuffer_Release(view);
    return 0;
}

static int export(PyObject *object, const char *what, Py_buffer *view)
{
    if (export_bytes(object, view))
        return 0;
    PyObject *checked = rx_hot_ask("checked_view", "(Os)", object, what);
    int result = checked ? PyObject_GetBuffer(checked, view, PyBUF_SIMPLE) : -1;
    Py_XDECREF(checked);
    return result;
}

PyObject *rx_hot_copy(PyObject *object, const char *what)
{
    Py_buffer view;
    if (export(object, what, &view) < 0)
        return NULL;
    PyObject *copy = PyBytes_FromStringAndSize(view.buf, view.len);
    PyBuffer_Release(&view);
    return copy;
}

int rx_hot_key_convert(PyObject *object, struct hot_key *key)
{
    key->copy = rx_hot_copy(object, "key");
    if (!key->copy)
        return -1;
    key->data = PyBytes_AS_STRING(key->copy);
    key->size = (size_t)PyBytes_GET_SIZE(key->copy);
    return 0;
}

int rx_hot_value_convert(PyObject *object, struct hot_value *value)
{
    if (export(object, "value", &value->view) < 0)
        return -1;
    value->data = value->view.buf ? value->view.buf : ""; /* NULL is no value in some calls */
    value->size = (size_t)value->view.len;
    return 0;
}

/* --- arguments --- */

static int by_name(const struct hot_signature *signature, PyObject *name, PyObject *value, PyObject **slot)
{
    for (int i = signature->total - 1; i >= 0; i--) { /* the last ones are the ones that are named */
        if (PyUnicode_CompareWithASCIIString(name, signature->parameter[i]) != 0)
            continue;
        if (slot[i]) {
            PyErr_Format(PyExc_TypeError, "%s() got multiple values for argument '%U'", signature->function, name);
            return -1;
        }
        slot[i] = value;
        return 0;
    }
    PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument '%U'", signature->function, name);
    return -1;
}

int rx_hot_parse(const struct hot_signature *signature, PyObject *const *args, Py_ssize_t nargs,
                 PyObject *names, PyObject **slot)
{
    if (nargs > signature->positional) {
        PyErr_Format(PyExc_TypeError, "%s() takes at most %d positional arguments (%zd given)",
                     signature->function, signature->positional, nargs);
        return -1;
    }
    for (int i = 0; i < signature->total; i++)
        slot[i] = i < nargs ? args[i] : NULL;
    Py_ssize_t named = names ? PyTuple_GET_SIZE(names) : 0;
    for (Py_ssize_t i = 0; i < named; i++)
        if (by_name(signature, PyTuple_GET_ITEM(names, i), args[nargs + i], slot) < 0)
            return -1;
    for (int i = 0; i < signature->required; i++)
        if (!slot[i]) {
            PyErr_Format(PyExc_TypeError, "%s() missing required argument: '%s'", signature->function,
                         signature->parameter[i]);
            return -1;
        }
    return 0;
}

/* --- waiting --- */

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int rx_hot_wait_begin(PyObject *timeout, struct hot_wait *wait)
{
    wait->deadline_ns = INT64_MAX;
    if (!timeout || timeout == Py_None)
        return 0;
    double seconds = PyFloat_CheckExact(timeout) ? PyFloat_AS_DOUBLE(timeout) : -1;
    if (!(seconds >= 0)) {
        PyObject *number = rx_hot_ask("seconds", "(Os)", timeout, "timeout");
        if (!number)
            return -1;
        seconds = PyFloat_AsDouble(number);
        Py_DECREF(number);
    }
    if (seconds < 1e9) /* more than 30 years is for ever, and fits in the sum */
        wait->deadline_ns = now_ns() + (int64_t)(seconds * 1e9);
    return 0;
}

void rx_hot_wait_once(struct hot_wait *wait)
{
    int64_t end = now_ns() + HOT_SLICE_NS;
    if (end < wait->deadline_ns)
        wait->deadline_ns = end;
}

int rx_hot_wait_more(const struct hot_wait *wait, int64_t *slice_ns)
{
    if (PyErr_CheckSignals() < 0)
        return -1;
    *slice_ns = HOT_SLICE_NS;
    if (wait->deadline_ns == INT64_MAX)
        return 0;
    int64_t left = wait->deadline_ns - now_ns();
    if (left <= 0)
        return rx_hot_raise(RX_E_TIMEOUT, NULL);
    if (left < *slice_ns)
        *slice_ns = left;
    return 0;
}
