/*
 * hot_pairs.c -- encoded: an iterator over pairs as they are stored.
 *
 * As the generator rowex._arguments.encoded(), which is its definition.
 */
#include "hot.h"

struct hot_pairs {
    PyObject_HEAD
    PyObject *pairs; /* an iterator; NULL: over */
    PyObject *encode[2];
    Py_ssize_t number; /* of the next one */
};

/* Takes the reference.  A tuple of two, or NULL with an exception. */
static PyObject *pair_of(PyObject *item)
{
    if (PyTuple_CheckExact(item) && PyTuple_GET_SIZE(item) == 2)
        return item;
    PyObject *pair = rx_hot_ask("pair_of", "(O)", item);
    Py_DECREF(item);
    return pair;
}

/* A StopIteration of the caller's code would pass for our own end: as in a generator it becomes another error. */
static PyObject *fail(struct hot_pairs *self, const char *side)
{
    Py_CLEAR(self->pairs);
    rx_hot_note(self->number, side);
    if (PyErr_ExceptionMatches(PyExc_StopIteration)) {
        PyObject *type, *error, *traceback;
        PyErr_Fetch(&type, &error, &traceback);
        PyErr_NormalizeException(&type, &error, &traceback);
        Py_XDECREF(rx_hot_ask("stopped", "(O)", error)); /* raises */
        Py_XDECREF(type);
        Py_XDECREF(error);
        Py_XDECREF(traceback);
    }
    return NULL;
}

static PyObject *next_stored(struct hot_pairs *self)
{
    /* Encoding may run Python code, and that this very iterator: held, not borrowed. */
    PyObject *pairs = Py_XNewRef(self->pairs), *item = pairs ? PyIter_Next(pairs) : NULL;
    Py_XDECREF(pairs);
    if (!item) {
        Py_CLEAR(self->pairs);
        return NULL;
    }
    PyObject *pair = pair_of(item);
    if (!pair)
        return fail(self, "");
    PyObject *key = PyObject_CallOneArg(self->encode[0], PyTuple_GET_ITEM(pair, 0));
    PyObject *value = key ? PyObject_CallOneArg(self->encode[1], PyTuple_GET_ITEM(pair, 1)) : NULL;
    PyObject *stored = value ? PyTuple_Pack(2, key, value) : fail(self, key ? "value" : "key");
    Py_XDECREF(key);
    Py_XDECREF(value);
    Py_DECREF(pair);
    self->number++;
    return stored;
}

static PyObject *pairs_next(struct hot_pairs *self)
{
    Py_INCREF(self); /* whoever steps us may let go of us meanwhile */
    PyObject *stored = next_stored(self);
    Py_DECREF(self);
    return stored;
}

static int pairs_traverse(struct hot_pairs *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->pairs);
    Py_VISIT(self->encode[0]);
    Py_VISIT(self->encode[1]);
    return 0;
}

static int pairs_clear(struct hot_pairs *self)
{
    Py_CLEAR(self->pairs);
    Py_CLEAR(self->encode[0]);
    Py_CLEAR(self->encode[1]);
    return 0;
}

static void pairs_dealloc(struct hot_pairs *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    pairs_clear(self);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

PyObject *rx_hot_encoded(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    struct hot_state *state = PyModule_GetState(module);
    if (nargs < 3 || nargs > 4)
        return PyErr_Format(PyExc_TypeError, "encoded() takes 3 or 4 arguments (%zd given)", nargs);
    Py_ssize_t first = nargs == 4 ? PyNumber_AsSsize_t(args[3], PyExc_OverflowError) : 0;
    if (first == -1 && PyErr_Occurred())
        return NULL;
    PyObject *pairs = PyObject_GetIter(args[0]);
    struct hot_pairs *self = pairs ? (struct hot_pairs *)state->pairs_type->tp_alloc(state->pairs_type, 0) : NULL;
    if (!self) {
        Py_XDECREF(pairs);
        return NULL;
    }
    self->pairs = pairs;
    self->encode[0] = Py_NewRef(args[1]);
    self->encode[1] = Py_NewRef(args[2]);
    self->number = first;
    return (PyObject *)self;
}

static PyType_Slot pairs_slots[] = {
    {Py_tp_doc, PyDoc_STR("Pairs as they are stored.")},
    {Py_tp_dealloc, pairs_dealloc},
    {Py_tp_traverse, pairs_traverse},
    {Py_tp_clear, pairs_clear},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, pairs_next},
    {0, NULL},
};

PyType_Spec rx_hot_pairs_spec = {
    .name = "rowex._hot.Pairs",
    .basicsize = sizeof(struct hot_pairs),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = pairs_slots,
};
