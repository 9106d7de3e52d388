/*
 * hot_scan.c -- the iterator over a range of keys.
 *
 * The core fills a buffer with a batch of records (rx_scan_next in index.h), which
 * are stepped through without calling it.  Batches start small, so that looking
 * for one key costs little, or with as many as a small limit says, and grow to the
 * whole buffer.  Between two batches nothing is pinned.
 *
 * S1  scan NULL: the iterator is over.  left records lie at `record`, valid until
 *     the next call into the core.
 * S2  busy is set while signals are handled, or the lock is given up, inside a
 *     step: another thread or a signal handler then gets a ValueError, as from a
 *     running generator.  Decoders that run Python code run after the step, on bytes
 *     of their own: they may step this scan, and drop it (a step holds it).
 * S3  The scan belongs to `handle`; a door that was bound to another one, or to
 *     none, has closed it.
 */
#include "hot.h"

#include <string.h>

#define FIRST_ITEMS 16
#define FIRST_ITEMS_MAX 128 /* where a limit tells that so many are wanted */
#define FIRST_BYTES 4096
#define ITEM_BYTES 64 /* a guess */
#define FULL_BYTES 65536
#define RECORD_BYTES 16 /* u32 key_len, u32 zero, u64 value_len */

enum what { ITEMS, KEYS, VALUES };

struct hot_scan {
    PyObject_HEAD
    struct hot_door *door;
    rx_index *handle;
    rx_scan *scan;
    char *buffer;
    const char *record;
    size_t capacity, left, batch_items;
    int64_t wanted; /* items that the limit still allows; negative: it has none */
    enum what what;
    bool busy;
    struct hot_decode key_decode, value_decode; /* their calls are owned */
    PyObject *pair; /* the last pair given out, used again when nobody kept it */
};

/* --- batches --- */

/* The buffer holds nothing that is still wanted: replace it rather than copy it. */
static int resize(struct hot_scan *self, size_t capacity)
{
    PyMem_Free(self->buffer);
    self->capacity = 0;
    self->buffer = PyMem_Malloc(capacity);
    if (!self->buffer) {
        PyErr_NoMemory();
        return -1;
    }
    self->capacity = capacity;
    return 0;
}

/* A batch for a first look, then one that amortises the call; a huge record's buffer is not kept. */
static int prepare(struct hot_scan *self)
{
    if (!self->buffer)
        return resize(self, Py_MAX(FIRST_BYTES, self->batch_items * ITEM_BYTES));
    self->batch_items = Py_MIN(self->batch_items * 8, HOT_CHUNK_ITEMS);
    if (self->batch_items > FIRST_ITEMS && self->capacity != FULL_BYTES)
        return resize(self, FULL_BYTES);
    return 0;
}

static void finish(struct hot_scan *self)
{
    rx_scan *scan = self->scan;
    self->scan = NULL;
    self->left = 0;
    if (scan)
        rx_hot->scan_close(scan);
    PyMem_Free(self->buffer);
    self->buffer = NULL;
    self->capacity = 0;
    Py_CLEAR(self->pair);
}

static int next_batch(struct hot_scan *self, size_t *need)
{
    rx_thread *thread = self->door->thread;
    int values = self->what != KEYS, code;
    if (self->capacity < FULL_BYTES)
        return rx_hot->scan_next(self->handle, thread, self->scan, self->buffer, self->capacity, self->batch_items,
                                 values, &self->left, need);
    Py_BEGIN_ALLOW_THREADS
    code = rx_hot->scan_next(self->handle, thread, self->scan, self->buffer, self->capacity, self->batch_items,
                             values, &self->left, need);
    Py_END_ALLOW_THREADS
    return code;
}

/* 1 with a batch, 0 at the end, -1 with an exception.  busy is set. */
static int refill(struct hot_scan *self)
{
    if (self->wanted && prepare(self) < 0)
        return -1;
    for (;;) {
        if (PyErr_CheckSignals() < 0)
            return -1;
        if (!self->handle || self->door->handle != self->handle)
            return rx_hot_raise(RX_E_CLOSED, NULL);
        if (self->wanted == 0)
            return 0;
        size_t need = 0;
        self->left = 0;
        int code = next_batch(self, &need);
        if (code == RX_OK && self->left) {
            self->record = self->buffer;
            self->wanted -= self->wanted < 0 ? 0 : (int64_t)self->left;
            return 1;
        }
        self->left = 0;
        if (code == RX_END)
            return 0;
        if (code == RX_TOO_SMALL && need > self->capacity) {
            if (resize(self, need) < 0)
                return -1;
        } else if (code != RX_OK && code != RX_TOO_SMALL) {
            return rx_hot_raise(code, NULL);
        }
    }
}

/* --- stepping --- */

static PyObject *copy_out(const char *data, size_t size)
{
    if (size <= HOT_LARGE_BYTES)
        return PyBytes_FromStringAndSize(data, (Py_ssize_t)size);
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (!bytes)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    memcpy(PyBytes_AS_STRING(bytes), data, size);
    Py_END_ALLOW_THREADS
    return bytes;
}

/* One side of an item: what it is, or the bytes for `call` to make it of. */
struct half {
    PyObject *object, *call; /* owned, borrowed */
};

static bool take_half(const struct hot_decode *decode, const char *data, size_t size, struct half *half)
{
    half->call = NULL;
    if (decode->plain) {
        half->object = decode->plain(data, size);
        if (half->object || PyErr_Occurred())
            return half->object;
    }
    half->call = decode->call;
    half->object = copy_out(data, size);
    return half->object;
}

/* The record at self->record; self->record moves on.  A side that is not wanted stays NULL. */
static bool take(struct hot_scan *self, struct half *key, struct half *value)
{
    uint32_t key_size;
    uint64_t value_size;
    memcpy(&key_size, self->record, sizeof key_size);
    memcpy(&value_size, self->record + 8, sizeof value_size);
    const char *key_data = self->record + RECORD_BYTES, *value_data = key_data + key_size;
    size_t size = RECORD_BYTES + (size_t)key_size + (self->what == KEYS ? 0 : (size_t)value_size);
    self->record += (size + 7) & ~(size_t)7;
    self->left--;
    if (self->what != VALUES && !take_half(&self->key_decode, key_data, key_size, key))
        return false;
    if (self->what == KEYS || take_half(&self->value_decode, value_data, value_size, value))
        return true;
    Py_CLEAR(key->object);
    return false;
}

/* Takes both references.  The pair is used again when only we refer to it. */
static PyObject *pair_of(struct hot_scan *self, PyObject *key, PyObject *value)
{
    PyObject *pair = self->pair;
#if PY_VERSION_HEX < 0x030E0000 /* later tuples remember their hash */
    if (pair && Py_REFCNT(pair) == 1) {
        PyObject *old_key = PyTuple_GET_ITEM(pair, 0), *old_value = PyTuple_GET_ITEM(pair, 1);
        Py_INCREF(pair);
        PyTuple_SET_ITEM(pair, 0, key);
        PyTuple_SET_ITEM(pair, 1, value);
        if (!PyObject_GC_IsTracked(pair)) /* the collector lets go of those that hold atoms */
            PyObject_GC_Track(pair);
        Py_DECREF(old_key); /* which may run anything */
        Py_DECREF(old_value);
        return pair;
    }
#endif
    pair = PyTuple_New(2);
    if (!pair) {
        Py_DECREF(key);
        Py_DECREF(value);
        return NULL;
    }
    PyTuple_SET_ITEM(pair, 0, key);
    PyTuple_SET_ITEM(pair, 1, value);
#if PY_VERSION_HEX < 0x030E0000
    if (self->scan)
        Py_XSETREF(self->pair, Py_NewRef(pair));
#endif
    return pair;
}

/* Makes the object of a half whose bytes are not one yet; takes the reference. */
static PyObject *whole(struct half half)
{
    if (!half.object || !half.call)
        return half.object;
    PyObject *object = PyObject_CallOneArg(half.call, half.object);
    Py_DECREF(half.object);
    return object;
}

/* What a step gives, of halves that it took. */
static PyObject *item_of(struct hot_scan *self, struct half key_half, struct half value_half)
{
    PyObject *key = whole(key_half);
    if (self->what == KEYS || (self->what == ITEMS && !key)) {
        Py_XDECREF(value_half.object);
        return key;
    }
    PyObject *value = whole(value_half);
    if (self->what == VALUES)
        return value;
    if (value)
        return pair_of(self, key, value);
    rx_hot_note_key(key);
    Py_DECREF(key);
    return NULL;
}

static PyObject *scan_next(struct hot_scan *self)
{
    if (self->busy) {
        PyErr_SetString(PyExc_ValueError, "scan already executing");
        return NULL;
    }
    if (!self->scan)
        return NULL;
    struct half key = {NULL, NULL}, value = {NULL, NULL};
    bool taken = false;
    Py_INCREF(self); /* whoever steps us may let go of us meanwhile */
    self->busy = true;
    if (self->left || refill(self) > 0)
        taken = take(self, &key, &value);
    else
        finish(self); /* also after an exception, as a generator */
    self->busy = false;
    /* What cannot be made an object is passed over by the next step, as by map(). */
    PyObject *result = taken ? item_of(self, key, value) : NULL;
    Py_DECREF(self);
    return result;
}

/* --- bounds --- */

static bool less(const struct hot_key *a, const struct hot_key *b)
{
    int order = memcmp(a->data, b->data, Py_MIN(a->size, b->size));
    return order ? order < 0 : a->size < b->size;
}

static int optional_key(PyObject *object, struct hot_key *key)
{
    key->data = NULL;
    key->size = 0;
    key->copy = NULL;
    return object && object != Py_None ? rx_hot_key_begin(object, key) : 0;
}

/* The first key after all that begin with prefix; none (data NULL) where it is all 0xff. */
static int successor(const struct hot_key *prefix, struct hot_key *after)
{
    size_t size = prefix->size;
    while (size && (unsigned char)prefix->data[size - 1] == 0xff)
        size--;
    if (size == 0)
        return optional_key(NULL, after);
    /* NULL first: a one-byte object made from its byte would be the interpreter's shared one. */
    after->copy = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (!after->copy)
        return -1;
    char *data = PyBytes_AS_STRING(after->copy);
    memcpy(data, prefix->data, size);
    data[size - 1]++;
    after->data = data;
    after->size = size;
    return 0;
}

/* start and stop, made narrower to what begins with prefix. */
static int open_range(struct hot_scan *self, const struct hot_key *start, const struct hot_key *stop,
                      const struct hot_key *prefix, int reverse, int64_t limit)
{
    struct hot_key after = {0};
    if (prefix->data) {
        if (successor(prefix, &after) < 0)
            return -1;
        if (!start->data || less(start, prefix))
            start = prefix;
        if (after.data && (!stop->data || less(&after, stop)))
            stop = &after;
    }
    self->handle = self->door->handle;
    int code = RX_E_CLOSED;
    if (self->handle)
        code = rx_hot->scan_open(self->handle, start->data, start->size, stop->data, stop->size, reverse, limit,
                                 &self->scan);
    rx_hot_key_end(&after);
    return code == RX_OK ? 0 : rx_hot_raise(code, NULL);
}

static int limit_of(PyObject *object, int64_t *limit)
{
    *limit = -1;
    if (!object || object == Py_None)
        return 0;
    if (!PyIndex_Check(object)) {
        PyErr_Format(PyExc_TypeError, "limit must be an int or None, not %.200s", Py_TYPE(object)->tp_name);
        return -1;
    }
    *limit = PyNumber_AsSsize_t(object, NULL); /* a larger one is as good as none */
    if (*limit == -1 && PyErr_Occurred())
        return -1;
    if (*limit >= 0)
        return 0;
    PyErr_SetString(PyExc_ValueError, "limit must not be negative");
    return -1;
}

/* slot: start, stop, prefix, reverse, limit; NULL where left out.  to_key, to_value: NULL, or the decoders. */
static PyObject *scan_open(struct hot_door *door, PyTypeObject *defining, PyObject **slot, enum what what,
                           PyObject *to_key, PyObject *to_value)
{
    struct hot_state *state = PyType_GetModuleState(defining);
    int64_t limit;
    int reverse = slot[3] ? PyObject_IsTrue(slot[3]) : 0;
    if (!state || reverse < 0 || limit_of(slot[4], &limit) < 0)
        return NULL;
    struct hot_scan *self = (struct hot_scan *)state->scan_type->tp_alloc(state->scan_type, 0);
    if (!self)
        return NULL;
    self->door = (struct hot_door *)Py_NewRef((PyObject *)door);
    self->batch_items = limit > FIRST_ITEMS && limit <= FIRST_ITEMS_MAX ? (size_t)limit : FIRST_ITEMS;
    self->wanted = limit;
    self->what = what;
    rx_hot_decode_begin(to_key, &self->key_decode);
    rx_hot_decode_begin(to_value, &self->value_decode);
    Py_XINCREF(self->key_decode.call);
    Py_XINCREF(self->value_decode.call);

    struct hot_key key[3] = {{0}};
    int result = 0;
    for (int i = 0; i < 3 && result == 0; i++)
        result = optional_key(slot[i], &key[i]);
    if (result == 0)
        result = open_range(self, &key[0], &key[1], &key[2], reverse, limit);
    for (int i = 0; i < 3; i++)
        rx_hot_key_end(&key[i]);
    if (result < 0)
        Py_CLEAR(self);
    return (PyObject *)self;
}

PyObject *rx_hot_scan(struct hot_door *self, PyTypeObject *defining, PyObject *const *args, Py_ssize_t nargs,
                      PyObject *names)
{
    static const char *const parameter[] = {"start", "stop", "prefix", "reverse", "limit"};
    static const struct hot_signature signature = {"scan", 0, 2, 5, parameter};
    PyObject *slot[5];
    return rx_hot_parse(&signature, args, nargs, names, slot) < 0 ? NULL : scan_open(self, defining, slot, ITEMS, NULL, NULL);
}

PyObject *rx_hot_scan_what(struct hot_door *self, PyTypeObject *defining, PyObject *const *args, Py_ssize_t nargs,
                           PyObject *names)
{
    static const char *const parameter[] = {"start", "stop", "prefix", "reverse", "limit", "what", "to_key", "to_value"};
    static const struct hot_signature signature = {"_scan", 6, 8, 8, parameter};
    PyObject *slot[8];
    if (rx_hot_parse(&signature, args, nargs, names, slot) < 0)
        return NULL;
    long what = PyLong_AsLong(slot[5]);
    if (what == -1 && PyErr_Occurred())
        return NULL;
    if (what < ITEMS || what > VALUES) {
        PyErr_SetString(PyExc_ValueError, "what is 0 for items, 1 for keys, 2 for values");
        return NULL;
    }
    return scan_open(self, defining, slot, (enum what)what, slot[6], slot[7]);
}

/* --- life --- */

static int scan_traverse(struct hot_scan *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->door);
    Py_VISIT(self->pair);
    Py_VISIT(self->key_decode.call);
    Py_VISIT(self->value_decode.call);
    return 0;
}

static int scan_clear(struct hot_scan *self)
{
    finish(self);
    Py_CLEAR(self->door);
    Py_CLEAR(self->key_decode.call);
    Py_CLEAR(self->value_decode.call);
    return 0;
}

static void scan_dealloc(struct hot_scan *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    scan_clear(self);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

/* list() makes room for so many at once: what a limit allows, while that is little. */
static PyObject *scan_hint(struct hot_scan *self, PyObject *unused)
{
    (void)unused;
    if (self->busy) /* another thread's step: the core may be writing what is left */
        return PyLong_FromLong(0);
    int64_t more = self->scan && self->wanted > 0 ? Py_MIN(self->wanted, HOT_CHUNK_ITEMS) : 0;
    return PyLong_FromLongLong(more + (int64_t)self->left);
}

static PyMethodDef scan_methods[] = {
    {"__length_hint__", (PyCFunction)scan_hint, METH_NOARGS, PyDoc_STR("About how many items are left.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot scan_slots[] = {
    {Py_tp_doc, PyDoc_STR("A scan in progress.")},
    {Py_tp_dealloc, scan_dealloc},
    {Py_tp_traverse, scan_traverse},
    {Py_tp_clear, scan_clear},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, scan_next},
    {Py_tp_methods, scan_methods},
    {0, NULL},
};

PyType_Spec rx_hot_scan_spec = {
    .name = "rowex._hot.Scan",
    .basicsize = sizeof(struct hot_scan),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = scan_slots,
};
