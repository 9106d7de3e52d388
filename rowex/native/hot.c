/*
 * hot.c -- rowex._hot: the short way from Python objects to the core.
 *
 * The class Door has the calls that are made millions of times; Index derives
 * from it.  rowex/_slow.py is the same class over cffi, for where this is not
 * built; the same tests run on both.  Written for the headers of Python 3.11 and
 * later; what may be relied on is in hot.h (H1 .. H4).
 */
#include "hot.h"

#include <string.h>

#define METHOD(function) ((PyCFunction)(void (*)(void))(function))

static const struct rx_hot_api unbound; /* never called: every handle is NULL until bind() */
const struct rx_hot_api *rx_hot = &unbound;

/* --- reading --- */

/* The value did not fit on the stack: straight into the bytes object, until the size holds still. */
static int fetch_large(struct hot_door *self, PyObject *key_object, const struct hot_key *key, size_t size,
                       PyObject **value)
{
    for (;;) {
        if (size > PY_SSIZE_T_MAX - 64) {
            PyErr_NoMemory();
            return -1;
        }
        PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
        if (!bytes)
            return -1;
        rx_index *handle = self->handle;
        rx_thread *thread = self->thread;
        size_t capacity = size;
        int code = RX_E_CLOSED;
        if (handle && capacity <= HOT_LARGE_BYTES) {
            code = rx_hot->get(handle, thread, key->data, key->size, PyBytes_AS_STRING(bytes), capacity, &size);
        } else if (handle) {
            Py_BEGIN_ALLOW_THREADS
            code = rx_hot->get(handle, thread, key->data, key->size, PyBytes_AS_STRING(bytes), capacity, &size);
            Py_END_ALLOW_THREADS
        }
        if (code == RX_OK) {
            *value = bytes;
            return size == capacity || _PyBytes_Resize(value, (Py_ssize_t)size) == 0 ? 1 : -1;
        }
        Py_DECREF(bytes);
        if (code == RX_ABSENT)
            return 0;
        if (code != RX_TOO_SMALL)
            return rx_hot_raise(code, key_object);
    }
}

int rx_hot_fetch(struct hot_door *self, PyObject *key_object, PyObject **value)
{
    struct hot_key key;
    char room[HOT_STACK_BYTES];
    size_t size = 0;
    int found;

    if (rx_hot_key_begin(key_object, &key) < 0)
        return -1;
    int code = RX_E_CLOSED;
    if (self->handle)
        code = rx_hot->get(self->handle, self->thread, key.data, key.size, room, sizeof room, &size);
    if (code == RX_OK) {
        *value = PyBytes_FromStringAndSize(room, (Py_ssize_t)size);
        found = *value ? 1 : -1;
    } else if (code == RX_ABSENT) {
        found = 0;
    } else if (code == RX_TOO_SMALL) {
        found = fetch_large(self, key_object, &key, size, value);
    } else {
        found = rx_hot_raise(code, key_object);
    }
    rx_hot_key_end(&key);
    return found;
}

static PyObject *door_get(struct hot_door *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    static const char *const parameter[] = {"key", "default"};
    static const struct hot_signature signature = {"get", 1, 2, 2, parameter};
    PyObject *slot[2], *value;

    if (!names && nargs == 1) {
        slot[0] = args[0];
        slot[1] = NULL;
    } else if (rx_hot_parse(&signature, args, nargs, names, slot) < 0) {
        return NULL;
    }
    int found = rx_hot_fetch(self, slot[0], &value);
    if (found)
        return found < 0 ? NULL : value;
    value = slot[1] ? slot[1] : Py_None;
    return Py_NewRef(value);
}

/* lookup(key) and door[key] */
static PyObject *door_lookup(struct hot_door *self, PyObject *key)
{
    PyObject *value;
    int found = rx_hot_fetch(self, key, &value);
    if (found > 0)
        return value;
    if (found == 0)
        PyErr_SetObject(PyExc_KeyError, key);
    return NULL;
}

/* key in door */
static int door_contains(struct hot_door *self, PyObject *key_object)
{
    struct hot_key key;
    if (rx_hot_key_begin(key_object, &key) < 0)
        return -1;
    int code = RX_E_CLOSED;
    if (self->handle)
        code = rx_hot->exists(self->handle, self->thread, key.data, key.size);
    int found = code == RX_OK ? 1 : code == RX_ABSENT ? 0 : rx_hot_raise(code, key_object);
    rx_hot_key_end(&key);
    return found;
}

static PyObject *door_exists(struct hot_door *self, PyObject *key)
{
    int found = door_contains(self, key);
    return found < 0 ? NULL : PyBool_FromLong(found);
}

/* --- life --- */

static int rebind(struct hot_door *self, PyObject *handle, PyObject *thread)
{
    if (!PyLong_Check(handle) || (thread && !PyLong_Check(thread))) {
        PyErr_SetString(PyExc_TypeError, "handle and thread are addresses, as int");
        return -1;
    }
    void *handle_address = PyLong_AsVoidPtr(handle);
    void *thread_address = thread && !PyErr_Occurred() ? PyLong_AsVoidPtr(thread) : NULL;
    if (PyErr_Occurred())
        return -1;
    if (handle_address && rx_hot == &unbound) {
        PyErr_SetString(PyExc_RuntimeError, "bind() has not been called");
        return -1;
    }
    self->handle = handle_address;
    self->thread = thread_address;
    return 0;
}

static int door_init(struct hot_door *self, PyObject *args, PyObject *kwargs)
{
    static char *parameter[] = {"handle", "thread", "readonly", "commit", NULL};
    PyObject *handle, *thread = NULL;
    int readonly = 0, commit = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|Opp:Door", parameter, &handle, &thread, &readonly, &commit))
        return -1;
    self->readonly = readonly;
    self->commit = commit;
    return rebind(self, handle, thread);
}

static PyObject *door_rebind(struct hot_door *self, PyObject *args)
{
    PyObject *handle, *thread;
    if (!PyArg_ParseTuple(args, "OO:_rebind", &handle, &thread) || rebind(self, handle, thread) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static int door_traverse(struct hot_door *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static void door_dealloc(struct hot_door *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

/* What is said of the public ones is added by take_texts(). */
static PyMethodDef door_methods[] = {
    {"get", METHOD(door_get), METH_FASTCALL | METH_KEYWORDS, PyDoc_STR("get($self, key, default=None)\n--\n\n")},
    {"lookup", METHOD(door_lookup), METH_O, PyDoc_STR("lookup($self, key, /)\n--\n\n")},
    {"exists", METHOD(door_exists), METH_O, PyDoc_STR("exists($self, key, /)\n--\n\n")},
    {"put", METHOD(rx_hot_put), METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("put($self, key, value, *, timeout=None, durable=False)\n--\n\n")},
    {"insert", METHOD(rx_hot_insert), METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("insert($self, key, value, *, timeout=None, durable=False)\n--\n\n")},
    {"remove", METHOD(rx_hot_remove), METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("remove($self, key, *, timeout=None)\n--\n\n")},
    {"discard", METHOD(rx_hot_discard), METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("discard($self, key, *, timeout=None)\n--\n\n")},
    {"get_many", METHOD(rx_hot_get_many), METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("get_many($self, keys, default=None, *, dtype=None)\n--\n\n")},
    {"put_many", METHOD(rx_hot_put_many), METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("put_many($self, items, values=None, *, timeout=None)\n--\n\n")},
    {"scan", METHOD(rx_hot_scan), METH_METHOD | METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("scan($self, start=None, stop=None, *, prefix=None, reverse=False, limit=None)\n--\n\n")},
    {"_scan", METHOD(rx_hot_scan_what), METH_METHOD | METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("_scan($self, start, stop, prefix, reverse, limit, what, to_key=None, to_value=None)\n--\n\n"
               "As scan(); what: 0 items, 1 keys, 2 values; to_key, to_value: make objects of their bytes.")},
    {"_get_each", METHOD(rx_hot_get_each), METH_FASTCALL,
     PyDoc_STR("_get_each($self, keys, default, encode, decode, /)\n--\n\n"
               "get_many() of keys that are encoded first, and of values that are decoded.")},
    {"_put_pairs", METHOD(rx_hot_put_pairs), METH_FASTCALL,
     PyDoc_STR("_put_pairs($self, items, timeout, first, /)\n--\n\n"
               "put_many() of pairs; first: the number of the first in what is told of errors.")},
    {"_try_put", METHOD(rx_hot_try_put), METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("_try_put($self, key, value)\n--\n\nAs put() at once; None where it would have to wait.")},
    {"_try_insert", METHOD(rx_hot_try_insert), METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("_try_insert($self, key, value)\n--\n\nAs insert() at once; None where it would have to wait.")},
    {"_try_remove", METHOD(rx_hot_try_remove), METH_O,
     PyDoc_STR("_try_remove($self, key, /)\n--\n\nAs remove() at once; None where it would have to wait.")},
    {"_rebind", METHOD(door_rebind), METH_VARARGS,
     PyDoc_STR("_rebind($self, handle, thread, /)\n--\n\nChange the addresses; handle 0 is closed.")},
    {NULL, NULL, 0, NULL},
};

/* The text of a call goes behind its signature, for as long as the process lives. */
static int add_text(PyMethodDef *method, PyObject *text)
{
    Py_ssize_t size;
    const char *data = PyUnicode_AsUTF8AndSize(text, &size);
    if (!data)
        return -1;
    size_t before = strlen(method->ml_doc);
    char *doc = PyMem_RawMalloc(before + (size_t)size + 1);
    if (!doc) {
        PyErr_NoMemory();
        return -1;
    }
    memcpy(doc, method->ml_doc, before);
    memcpy(doc + before, data, (size_t)size + 1);
    method->ml_doc = doc;
    return 0;
}

/* The texts stand in Python, once for both doors. */
static int take_texts(void)
{
    static bool taken; /* the table serves every interpreter of the process */
    if (taken)
        return 0;
    PyObject *module = PyImport_ImportModule("rowex._door_texts");
    PyObject *texts = module ? PyObject_GetAttrString(module, "TEXTS") : NULL;
    Py_XDECREF(module);
    int result = texts ? 0 : -1;
    for (PyMethodDef *method = door_methods; result == 0 && method->ml_name; method++) {
        if (method->ml_name[0] == '_')
            continue;
        PyObject *text = PyMapping_GetItemString(texts, method->ml_name);
        result = text ? add_text(method, text) : -1;
        Py_XDECREF(text);
    }
    Py_XDECREF(texts);
    taken = result == 0;
    return result;
}

static PyType_Slot door_slots[] = {
    {Py_tp_doc, PyDoc_STR("Door(handle, thread=0, readonly=False, commit=False)\n--\n\nThe frequent calls of an index.")},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_init, door_init},
    {Py_tp_dealloc, door_dealloc},
    {Py_tp_traverse, door_traverse},
    {Py_tp_methods, door_methods},
    {Py_mp_subscript, door_lookup},
    {Py_mp_ass_subscript, rx_hot_set},
    {Py_sq_contains, door_contains},
    {0, NULL},
};

static PyType_Spec door_spec = {
    .name = "rowex._hot.Door",
    .basicsize = sizeof(struct hot_door),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = door_slots,
};

/* --- module --- */

static PyObject *hot_bind(PyObject *module, PyObject *address)
{
    (void)module;
    const struct rx_hot_api *api = PyLong_Check(address) ? PyLong_AsVoidPtr(address) : NULL;
    if (PyErr_Occurred())
        return NULL;
    if (!api) {
        PyErr_SetString(PyExc_TypeError, "bind() takes the address of the core's table, as int");
        return NULL;
    }
    if (api->version != RX_HOT_VERSION || api->size < sizeof *api) {
        PyErr_Format(PyExc_ImportError, "rowex._hot is built for version %u of the core's table, not %u; build it anew",
                     RX_HOT_VERSION, api->version);
        return NULL;
    }
    rx_hot = api;
    Py_RETURN_NONE;
}

static int hot_exec(PyObject *module)
{
    struct hot_state *state = PyModule_GetState(module);
    if (take_texts() < 0 || PyModule_AddFunctions(module, rx_hot_codec_functions) < 0)
        return -1;
    state->door_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &door_spec, NULL);
    if (!state->door_type)
        return -1;
    state->scan_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &rx_hot_scan_spec, NULL);
    state->pairs_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &rx_hot_pairs_spec, NULL);
    if (!state->scan_type || !state->pairs_type)
        return -1;
    return PyModule_AddType(module, state->door_type);
}

static int hot_traverse(PyObject *module, visitproc visit, void *arg)
{
    struct hot_state *state = PyModule_GetState(module);
    Py_VISIT(state->door_type);
    Py_VISIT(state->scan_type);
    Py_VISIT(state->pairs_type);
    return 0;
}

static int hot_clear(PyObject *module)
{
    struct hot_state *state = PyModule_GetState(module);
    Py_CLEAR(state->door_type);
    Py_CLEAR(state->scan_type);
    Py_CLEAR(state->pairs_type);
    return 0;
}

static PyMethodDef hot_functions[] = {
    {"bind", hot_bind, METH_O,
     PyDoc_STR("bind($module, address, /)\n--\n\nTake the core's functions from the table at address.")},
    {"pack", METHOD(rx_hot_pack), METH_FASTCALL,
     PyDoc_STR("pack($module, rows, side, /)\n--\n\nAs rowex._arguments.pack().")},
    {"encoded", METHOD(rx_hot_encoded), METH_FASTCALL,
     PyDoc_STR("encoded($module, pairs, key, value, first=0, /)\n--\n\nAs rowex._arguments.encoded().")},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot hot_slots[] = {
    {Py_mod_exec, hot_exec},
    {0, NULL},
};

static struct PyModuleDef hot_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "rowex._hot",
    .m_doc = PyDoc_STR("The short way from Python objects to the core."),
    .m_size = sizeof(struct hot_state),
    .m_methods = hot_functions,
    .m_slots = hot_slots,
    .m_traverse = hot_traverse,
    .m_clear = hot_clear,
};

PyMODINIT_FUNC PyInit__hot(void)
{
    return PyModuleDef_Init(&hot_module);
}
