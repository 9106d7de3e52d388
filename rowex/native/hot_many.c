/*
 * hot_many.c -- get_many and put_many: loops in C over chunks of keys.
 *
 * A chunk is handed to the core whole.  From HOT_SHARE_ITEMS keys on the
 * interpreter lock is given up for it; the chunk holds references to all that the
 * core sees then (H3).  Signals are looked at after each chunk.
 */
#include "hot.h"

#define ROOM_BYTES 65536
#define COPIED_BYTES 4194304 /* a chunk of copies ends here, so that large buffers are not all held twice */

/* --- get_many --- */

struct get_chunk {
    const void *key[HOT_CHUNK_ITEMS];
    size_t key_size[HOT_CHUNK_ITEMS];
    uint64_t value_size[HOT_CHUNK_ITEMS];
    PyObject *missing;
    struct hot_decode decode;
    char room[ROOM_BYTES];
};

/* A key as exact bytes. */
static PyObject *stored_key(PyObject *object, PyObject *encode)
{
    PyObject *data = encode ? PyObject_CallOneArg(encode, object) : Py_NewRef(object);
    if (data && !PyBytes_CheckExact(data))
        Py_SETREF(data, rx_hot_copy(data, "key"));
    return data;
}

/* Between many items: signals, and other threads, which an encoder in C does not let in. */
static int breathe(Py_ssize_t i)
{
    if (i % HOT_CHUNK_ITEMS != HOT_CHUNK_ITEMS - 1)
        return 0;
    Py_BEGIN_ALLOW_THREADS
    Py_END_ALLOW_THREADS
    return PyErr_CheckSignals();
}

/* Our own list of the keys, each an exact bytes object: later it becomes the list of the values. */
static PyObject *key_list(PyObject *keys, PyObject *encode)
{
    PyObject *list = PySequence_List(keys);
    if (!list)
        return NULL;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        if (encode && breathe(i) < 0) {
            Py_DECREF(list);
            return NULL;
        }
        if (!encode && PyBytes_CheckExact(PyList_GET_ITEM(list, i))) {
            __builtin_prefetch(PyBytes_AS_STRING(PyList_GET_ITEM(list, i))); /* half of them begin the next line */
            continue;
        }
        PyObject *copy = stored_key(PyList_GET_ITEM(list, i), encode);
        if (!copy || PyList_SetItem(list, i, copy) < 0) {
            rx_hot_note(i, "");
            Py_DECREF(list);
            return NULL;
        }
    }
    return list;
}

static int get_call(struct hot_door *self, struct get_chunk *chunk, size_t at, size_t n, size_t *done)
{
    rx_index *handle = self->handle;
    rx_thread *thread = self->thread;
    size_t need = 0;
    int code = RX_E_CLOSED;
    *done = 0;
    if (handle && n < HOT_SHARE_ITEMS) {
        code = rx_hot->get_many(handle, thread, n, chunk->key + at, chunk->key_size + at, chunk->room, ROOM_BYTES,
                                chunk->value_size + at, done, &need);
    } else if (handle) {
        Py_BEGIN_ALLOW_THREADS
        code = rx_hot->get_many(handle, thread, n, chunk->key + at, chunk->key_size + at, chunk->room, ROOM_BYTES,
                                chunk->value_size + at, done, &need);
        Py_END_ALLOW_THREADS
    }
    return code;
}

/* Replace the keys at list[from ..] by the n values that lie packed in chunk->room. */
static int take_values(PyObject *list, Py_ssize_t from, struct get_chunk *chunk, size_t at, size_t n)
{
    const char *value = chunk->room;
    for (size_t i = 0; i < n; i++) {
        uint64_t size = chunk->value_size[at + i];
        PyObject *item = size == UINT64_MAX ? Py_NewRef(chunk->missing) : rx_hot_decode(&chunk->decode, value, size);
        if (!item && chunk->decode.call)
            return rx_hot_note(from + (Py_ssize_t)i, "");
        if (!item || PyList_SetItem(list, from + (Py_ssize_t)i, item) < 0)
            return -1;
        value += size == UINT64_MAX ? 0 : size;
    }
    return 0;
}

/* A value that does not fit into the room is fetched by itself. */
static int take_large(struct hot_door *self, PyObject *list, Py_ssize_t i, struct get_chunk *chunk)
{
    PyObject *item;
    int found = rx_hot_fetch(self, PyList_GET_ITEM(list, i), &item);
    if (found < 0)
        return -1;
    if (found && chunk->decode.call)
        Py_SETREF(item, PyObject_CallOneArg(chunk->decode.call, item));
    if (found && !item)
        return rx_hot_note(i, "");
    return PyList_SetItem(list, i, found ? item : Py_NewRef(chunk->missing));
}

static int get_chunk(struct hot_door *self, PyObject *list, Py_ssize_t from, size_t n, struct get_chunk *chunk)
{
    for (size_t i = 0; i < n; i++) {
        PyObject *key = PyList_GET_ITEM(list, from + (Py_ssize_t)i);
        chunk->key[i] = PyBytes_AS_STRING(key);
        chunk->key_size[i] = (size_t)PyBytes_GET_SIZE(key);
    }
    for (size_t at = 0, done; at < n; at += done) {
        int code = get_call(self, chunk, at, n - at, &done);
        if (code != RX_OK && code != RX_TOO_SMALL) {
            Py_ssize_t i = from + (Py_ssize_t)(at + done < n ? at + done : at);
            return rx_hot_raise_item(code, PyList_GET_ITEM(list, i), i);
        }
        if (take_values(list, from + (Py_ssize_t)at, chunk, at, done) < 0)
            return -1;
        if (done)
            continue;
        if (take_large(self, list, from + (Py_ssize_t)at, chunk) < 0)
            return -1;
        done = 1;
    }
    return 0;
}

/* As _arguments.is_arrow() says: its class is asked, for an object may answer anything. */
static bool is_arrow(PyObject *data)
{
    if (PyList_CheckExact(data) || PyTuple_CheckExact(data) || PyDict_CheckExact(data) || PyGen_CheckExact(data))
        return false;
    return PyObject_HasAttrString((PyObject *)Py_TYPE(data), "__arrow_c_array__");
}

/* Columns take the other door, with a dtype or as a buffer of many: one call of cffi for all of them is nothing. */
static bool is_column(PyObject *keys)
{
    if (PyList_CheckExact(keys) || PyTuple_CheckExact(keys) || PyBytes_Check(keys) || PyByteArray_Check(keys))
        return false;
    return PyObject_CheckBuffer(keys) || is_arrow(keys);
}

static PyObject *get_all(struct hot_door *self, PyObject *keys, PyObject *missing, PyObject *encode, PyObject *decode)
{
    PyObject *list = key_list(keys, encode);
    struct get_chunk *chunk = list ? PyMem_Malloc(sizeof *chunk) : NULL;
    if (list && !chunk) {
        PyErr_NoMemory();
        Py_CLEAR(list);
    }
    if (chunk) {
        chunk->missing = missing;
        rx_hot_decode_begin(decode, &chunk->decode);
    }
    for (Py_ssize_t from = 0; list && from < PyList_GET_SIZE(list); from += HOT_CHUNK_ITEMS) {
        Py_ssize_t n = Py_MIN(PyList_GET_SIZE(list) - from, HOT_CHUNK_ITEMS);
        if (get_chunk(self, list, from, (size_t)n, chunk) < 0 || PyErr_CheckSignals() < 0)
            Py_CLEAR(list);
    }
    PyMem_Free(chunk);
    return list;
}

PyObject *rx_hot_get_many(struct hot_door *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    static const char *const parameter[] = {"keys", "default", "dtype"};
    static const struct hot_signature signature = {"get_many", 1, 2, 3, parameter};
    PyObject *slot[3];
    if (rx_hot_parse(&signature, args, nargs, names, slot) < 0)
        return NULL;
    if (!self->handle) {
        rx_hot_raise(RX_E_CLOSED, NULL);
        return NULL;
    }
    if ((slot[2] && slot[2] != Py_None) || is_column(slot[0]))
        return PyObject_CallMethod((PyObject *)self, "_get_columns", "OOO", slot[0], slot[1] ? slot[1] : Py_None,
                                   slot[2] ? slot[2] : Py_None);
    return get_all(self, slot[0], slot[1] ? slot[1] : Py_None, NULL, NULL);
}

PyObject *rx_hot_get_each(struct hot_door *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 4)
        return PyErr_Format(PyExc_TypeError, "_get_each() takes 4 arguments (%zd given)", nargs);
    if (self->handle)
        return get_all(self, args[0], args[1], args[2], args[3]);
    rx_hot_raise(RX_E_CLOSED, NULL);
    return NULL;
}

/* --- put_many --- */

struct put_chunk {
    size_t n, copied_bytes, value_bytes;
    Py_ssize_t first; /* number of the first item, for errors */
    uint64_t ticket;
    struct hot_wait wait;
    PyObject *key_object[HOT_CHUNK_ITEMS], *value_object[HOT_CHUNK_ITEMS]; /* owned, exact bytes */
    const void *key[HOT_CHUNK_ITEMS], *value[HOT_CHUNK_ITEMS];
    size_t key_size[HOT_CHUNK_ITEMS], value_size[HOT_CHUNK_ITEMS];
};

static void put_clear(struct put_chunk *chunk)
{
    for (size_t i = 0; i < chunk->n; i++) {
        Py_DECREF(chunk->key_object[i]);
        Py_DECREF(chunk->value_object[i]);
    }
    chunk->first += (Py_ssize_t)chunk->n;
    chunk->n = chunk->copied_bytes = chunk->value_bytes = 0;
}

static int put_call(struct hot_door *self, struct put_chunk *chunk, size_t at, int64_t slice_ns, size_t *done)
{
    rx_index *handle = self->handle;
    rx_thread *thread = self->thread;
    size_t n = chunk->n - at;
    int code = RX_E_CLOSED;
    *done = 0;
    if (handle && n < HOT_SHARE_ITEMS && chunk->value_bytes <= HOT_LARGE_BYTES && slice_ns == 0) {
        code = rx_hot->put_many(handle, thread, n, chunk->key + at, chunk->key_size + at, chunk->value + at,
                                chunk->value_size + at, slice_ns, done, &chunk->ticket);
    } else if (handle) {
        Py_BEGIN_ALLOW_THREADS
        code = rx_hot->put_many(handle, thread, n, chunk->key + at, chunk->key_size + at, chunk->value + at,
                                chunk->value_size + at, slice_ns, done, &chunk->ticket);
        Py_END_ALLOW_THREADS
    }
    return code;
}

/* Apply what the chunk holds, and empty it. */
static int put_flush(struct hot_door *self, struct put_chunk *chunk)
{
    int64_t slice_ns = 0;
    int result = 0;
    for (size_t at = 0, done; result == 0 && at < chunk->n;) {
        int code = put_call(self, chunk, at, slice_ns, &done);
        at += done;
        if (code == RX_OK)
            break;
        if (code == RX_WOULD_WAIT)
            result = rx_hot_wait_more(&chunk->wait, &slice_ns);
        else
            result = rx_hot_raise_item(code, at < chunk->n ? chunk->key_object[at] : NULL, chunk->first + (Py_ssize_t)at);
    }
    put_clear(chunk);
    return result < 0 ? -1 : PyErr_CheckSignals();
}

/* A new reference to object where it is exact bytes, else to a copy that is. */
static PyObject *exact(struct put_chunk *chunk, PyObject *object, const char *what)
{
    if (PyBytes_CheckExact(object))
        return Py_NewRef(object);
    PyObject *copy = rx_hot_copy(object, what);
    if (copy)
        chunk->copied_bytes += (size_t)PyBytes_GET_SIZE(copy);
    return copy;
}

static int put_add(struct put_chunk *chunk, PyObject *key_object, PyObject *value_object)
{
    PyObject *key = exact(chunk, key_object, "key");
    PyObject *value = key ? exact(chunk, value_object, "value") : NULL;
    if (!value) {
        rx_hot_note(chunk->first + (Py_ssize_t)chunk->n, key ? "value" : "key");
        Py_XDECREF(key);
        return -1;
    }
    size_t i = chunk->n++;
    chunk->key_object[i] = key;
    chunk->key[i] = PyBytes_AS_STRING(key);
    chunk->key_size[i] = (size_t)PyBytes_GET_SIZE(key);
    chunk->value_object[i] = value;
    chunk->value[i] = PyBytes_AS_STRING(value);
    chunk->value_size[i] = (size_t)PyBytes_GET_SIZE(value);
    chunk->value_bytes += chunk->value_size[i];
    return 0;
}

static int put_pair(struct put_chunk *chunk, PyObject *item)
{
    bool plain = (PyTuple_CheckExact(item) || PyList_CheckExact(item)) && PySequence_Fast_GET_SIZE(item) == 2;
    PyObject *pair = plain ? Py_NewRef(item) : rx_hot_ask("pair_of", "(O)", item);
    if (!pair)
        return rx_hot_note(chunk->first + (Py_ssize_t)chunk->n, "");
    /* Converting the key may run code that changes a list: hold both first. */
    PyObject *key = Py_NewRef(PySequence_Fast_GET_ITEM(pair, 0));
    PyObject *value = Py_NewRef(PySequence_Fast_GET_ITEM(pair, 1));
    int result = put_add(chunk, key, value);
    Py_DECREF(key);
    Py_DECREF(value);
    Py_DECREF(pair);
    return result;
}

/* An iterator over the pairs of whatever has some; a list is its own. */
static PyObject *pairs_of(PyObject *items)
{
    if (PyList_CheckExact(items))
        return Py_NewRef(items);
    if (!PyDict_CheckExact(items))
        return rx_hot_ask("pairs_of", "(O)", items);
    PyObject *view = PyObject_CallMethod(items, "items", NULL);
    PyObject *iterator = view ? PyObject_GetIter(view) : NULL;
    Py_XDECREF(view);
    return iterator;
}

/*
 * What came before an error of the iterable is applied, and that error is the one told, whatever
 * becomes of it; before it comes only what ends programs, like Ctrl-C in this very wait.  An error
 * that is such a thing itself does not wait for others beyond one slice.
 */
static int put_rest(struct hot_door *self, struct put_chunk *chunk)
{
    if (!PyErr_Occurred())
        return put_flush(self, chunk);
    PyObject *type, *error, *traceback;
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        rx_hot_wait_once(&chunk->wait);
    PyErr_Fetch(&type, &error, &traceback);
    if (put_flush(self, chunk) == 0 || PyErr_ExceptionMatches(PyExc_Exception)) {
        PyErr_Restore(type, error, traceback);
    } else {
        Py_XDECREF(type);
        Py_XDECREF(error);
        Py_XDECREF(traceback);
    }
    return -1;
}

#define AHEAD 16 /* pairs whose objects are asked for, so that their misses overlap; the pairs themselves are twice as far */

/* What a list's iterator gives, or another iterator. */
static PyObject *next_pair(PyObject *pairs, Py_ssize_t i)
{
    if (!PyList_CheckExact(pairs))
        return PyIter_Next(pairs);
    if (i >= PyList_GET_SIZE(pairs)) /* conversions may change it */
        return NULL;
    if (i + 2 * AHEAD < PyList_GET_SIZE(pairs))
        __builtin_prefetch(PyList_GET_ITEM(pairs, i + 2 * AHEAD));
    PyObject *later = i + AHEAD < PyList_GET_SIZE(pairs) ? PyList_GET_ITEM(pairs, i + AHEAD) : Py_None;
    if (PyTuple_CheckExact(later) && PyTuple_GET_SIZE(later) == 2) {
        for (Py_ssize_t side = 0; side < 2; side++) { /* what it is, and where its bytes begin, which may be the next line */
            __builtin_prefetch(PyTuple_GET_ITEM(later, side));
            __builtin_prefetch((const char *)PyTuple_GET_ITEM(later, side) + offsetof(PyBytesObject, ob_sval));
        }
    }
    return Py_NewRef(PyList_GET_ITEM(pairs, i));
}

static int put_all(struct hot_door *self, PyObject *pairs, struct put_chunk *chunk)
{
    PyObject *item;
    for (Py_ssize_t i = 0; (item = next_pair(pairs, i)); i++) {
        int result = put_pair(chunk, item);
        Py_DECREF(item);
        if (result < 0)
            break;
        if (chunk->n < HOT_CHUNK_ITEMS && chunk->copied_bytes < COPIED_BYTES)
            continue;
        if (put_flush(self, chunk) < 0)
            return -1;
    }
    return put_rest(self, chunk);
}

static PyObject *put_pairs(struct hot_door *self, PyObject *items, PyObject *timeout, Py_ssize_t first)
{
    struct put_chunk *chunk = PyMem_Malloc(sizeof *chunk);
    if (!chunk)
        return PyErr_NoMemory();
    chunk->n = chunk->copied_bytes = chunk->value_bytes = 0;
    chunk->first = first;
    chunk->ticket = 0;
    PyObject *pairs = rx_hot_wait_begin(timeout, &chunk->wait) < 0 ? NULL : pairs_of(items);
    int result = pairs ? put_all(self, pairs, chunk) : -1;
    Py_XDECREF(pairs);
    uint64_t ticket = chunk->ticket;
    if (result >= 0)
        result = rx_hot_settle(self, ticket, false, &chunk->wait);
    PyMem_Free(chunk);
    return result < 0 ? NULL : PyLong_FromUnsignedLongLong(ticket);
}

static bool may_write(struct hot_door *self)
{
    if (self->handle && !self->readonly)
        return true;
    (void)(self->handle ? rx_hot_raise_readonly(self) : rx_hot_raise(RX_E_CLOSED, NULL));
    return false;
}

PyObject *rx_hot_put_pairs(struct hot_door *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 3)
        return PyErr_Format(PyExc_TypeError, "_put_pairs() takes 3 arguments (%zd given)", nargs);
    Py_ssize_t first = PyNumber_AsSsize_t(args[2], PyExc_OverflowError);
    if ((first == -1 && PyErr_Occurred()) || !may_write(self))
        return NULL;
    return put_pairs(self, args[0], args[1], first);
}

PyObject *rx_hot_put_many(struct hot_door *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    static const char *const parameter[] = {"items", "values", "timeout"};
    static const struct hot_signature signature = {"put_many", 1, 2, 3, parameter};
    PyObject *slot[3];
    if (rx_hot_parse(&signature, args, nargs, names, slot) < 0 || !may_write(self))
        return NULL;
    if ((slot[1] && slot[1] != Py_None) || is_arrow(slot[0]))
        return PyObject_CallMethod((PyObject *)self, "_put_columns", "OOO", slot[0], slot[1] ? slot[1] : Py_None,
                                   slot[2] ? slot[2] : Py_None);
    return put_pairs(self, slot[0], slot[2], 0);
}
