/*
 * hot_write.c -- changes of one key: put, insert, remove, discard, [key] = and del [key].
 *
 * The core is asked first without waiting and with the interpreter lock held; where it
 * answers that it would wait, the lock is given up and it is asked again (H4).
 */
#include "hot.h"

typedef int (*store_call)(rx_index *h, rx_thread *t, const void *key, size_t key_len, const void *value,
                          size_t value_len, int64_t wait_ns, uint64_t *ticket);

/* Calls until done (H4): the first time without waiting and, for a small value, with the lock held. */
static int store_until(struct hot_door *self, store_call call, const struct hot_key *key,
                       const struct hot_value *value, const struct hot_wait *wait, uint64_t *ticket, int *code)
{
    bool give_up_lock = value->size > HOT_LARGE_BYTES;
    int64_t slice_ns = 0;
    for (;;) {
        rx_index *handle = self->handle;
        rx_thread *thread = self->thread;
        *code = RX_E_CLOSED;
        if (!handle)
            return 0;
        if (give_up_lock) {
            Py_BEGIN_ALLOW_THREADS
            *code = call(handle, thread, key->data, key->size, value->data, value->size, slice_ns, ticket);
            Py_END_ALLOW_THREADS
        } else {
            *code = call(handle, thread, key->data, key->size, value->data, value->size, slice_ns, ticket);
        }
        if (*code != RX_WOULD_WAIT)
            return 0;
        if (rx_hot_wait_more(wait, &slice_ns) < 0)
            return -1;
        give_up_lock = true;
    }
}

/* What is to be durable needs a log: said before anything is stored. */
static int needs_log(struct hot_door *self)
{
    int code = self->handle ? rx_hot->wait_durable(self->handle, self->thread, 0, 0) : RX_OK;
    return code < 0 ? rx_hot_raise(code, NULL) : 0;
}

/* The exception that ended a wait says that the change was made all the same.  Always returns -1. */
static int made(uint64_t ticket)
{
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    PyObject *errors = PyImport_ImportModule("rowex.errors");
    PyObject *nothing = errors ? PyObject_CallMethod(errors, "made", "OK", error, (unsigned long long)ticket) : NULL;
    Py_XDECREF(errors);
    Py_XDECREF(nothing);
    if (!nothing)
        PyErr_Clear(); /* no memory: the first exception is the one told */
    PyErr_Restore(type, error, traceback);
    return -1;
}

int rx_hot_settle(struct hot_door *self, uint64_t ticket, bool asked, const struct hot_wait *wait)
{
    int64_t slice_ns = HOT_SLICE_NS;
    if (!ticket || (!self->commit && !asked))
        return 0;
    for (;;) {
        rx_index *handle = self->handle;
        rx_thread *thread = self->thread;
        int code = RX_E_CLOSED;
        if (handle) {
            Py_BEGIN_ALLOW_THREADS
            code = rx_hot->wait_durable(handle, thread, ticket, slice_ns);
            Py_END_ALLOW_THREADS
        }
        if (code == RX_OK)
            return 0;
        if ((code != RX_WOULD_WAIT ? rx_hot_raise(code, NULL) : rx_hot_wait_more(wait, &slice_ns)) < 0)
            return made(ticket);
    }
}

static int store(struct hot_door *self, store_call call, PyObject *key_object, PyObject *value_object,
                 PyObject *timeout, PyObject *durable, uint64_t *ticket)
{
    int asked = durable ? PyObject_IsTrue(durable) : 0;
    struct hot_key key;
    struct hot_value value;
    struct hot_wait wait;
    int code = RX_OK, result = -1;

    if (asked < 0 || rx_hot_wait_begin(timeout, &wait) < 0 || rx_hot_key_begin(key_object, &key) < 0)
        return -1;
    if (rx_hot_value_begin(value_object, &value) == 0) {
        if (self->handle && self->readonly)
            result = rx_hot_raise_readonly(self);
        else if (!asked || (result = needs_log(self)) == 0)
            result = store_until(self, call, &key, &value, &wait, ticket, &code);
        rx_hot_value_end(&value);
    }
    if (result == 0 && code != RX_OK)
        result = rx_hot_raise(code, key_object);
    rx_hot_key_end(&key);
    return result < 0 ? result : rx_hot_settle(self, *ticket, asked, &wait);
}

static const char *const store_parameter[] = {"key", "value", "timeout", "durable"};

static inline PyObject *store_called(struct hot_door *self, const char *name, store_call call, PyObject *const *args,
                                     Py_ssize_t nargs, PyObject *names)
{
    struct hot_signature signature = {name, 2, 2, 4, store_parameter};
    PyObject *slot[4];
    uint64_t ticket = 0;
    if (rx_hot_parse(&signature, args, nargs, names, slot) < 0)
        return NULL;
    int result = store(self, call, slot[0], slot[1], slot[2], slot[3], &ticket);
    return result < 0 ? NULL : PyLong_FromUnsignedLongLong(ticket);
}

PyObject *rx_hot_put(struct hot_door *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    return store_called(self, "put", rx_hot->put, args, nargs, names);
}

PyObject *rx_hot_insert(struct hot_door *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    return store_called(self, "insert", rx_hot->insert, args, nargs, names);
}

/* --- removing --- */

/* 1 removed and, where the handle wants that, durable; 0 absent; -1 with an exception. */
static int take_out(struct hot_door *self, PyObject *key_object, PyObject *timeout, uint64_t *ticket)
{
    struct hot_key key;
    struct hot_wait wait;
    int code = RX_E_CLOSED, waited = 0;
    int64_t slice_ns = 0;

    if (rx_hot_wait_begin(timeout, &wait) < 0 || rx_hot_key_begin(key_object, &key) < 0)
        return -1;
    if (self->handle && self->readonly)
        waited = rx_hot_raise_readonly(self);
    else if (self->handle)
        code = rx_hot->remove(self->handle, self->thread, key.data, key.size, 0, ticket);
    while (code == RX_WOULD_WAIT && (waited = rx_hot_wait_more(&wait, &slice_ns)) == 0) {
        rx_index *handle = self->handle;
        rx_thread *thread = self->thread;
        code = RX_E_CLOSED;
        if (handle) {
            Py_BEGIN_ALLOW_THREADS
            code = rx_hot->remove(handle, thread, key.data, key.size, slice_ns, ticket);
            Py_END_ALLOW_THREADS
        }
    }
    int result = code == RX_OK ? 1 : code == RX_ABSENT ? 0 : waited < 0 ? -1 : rx_hot_raise(code, key_object);
    rx_hot_key_end(&key);
    return result == 1 && rx_hot_settle(self, *ticket, false, &wait) < 0 ? -1 : result;
}

static const char *const take_parameter[] = {"key", "timeout"};

PyObject *rx_hot_remove(struct hot_door *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    static const struct hot_signature signature = {"remove", 1, 1, 2, take_parameter};
    PyObject *slot[2];
    uint64_t ticket = 0;
    if (rx_hot_parse(&signature, args, nargs, names, slot) < 0)
        return NULL;
    int found = take_out(self, slot[0], slot[1], &ticket);
    if (found == 0)
        PyErr_SetObject(PyExc_KeyError, slot[0]);
    return found == 1 ? PyLong_FromUnsignedLongLong(ticket) : NULL;
}

PyObject *rx_hot_discard(struct hot_door *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    static const struct hot_signature signature = {"discard", 1, 1, 2, take_parameter};
    PyObject *slot[2];
    uint64_t ticket = 0;
    if (rx_hot_parse(&signature, args, nargs, names, slot) < 0)
        return NULL;
    int found = take_out(self, slot[0], slot[1], &ticket);
    return found < 0 ? NULL : PyBool_FromLong(found);
}

/* door[key] = value and, with no value, del door[key] */
int rx_hot_set(struct hot_door *self, PyObject *key, PyObject *value)
{
    uint64_t ticket = 0;
    if (value)
        return store(self, rx_hot->put, key, value, NULL, NULL, &ticket);
    int found = take_out(self, key, NULL, &ticket);
    if (found == 0)
        PyErr_SetObject(PyExc_KeyError, key);
    return found == 1 ? 0 : -1;
}
