/*
 * hot_try.c -- changes of one key for who may not wait at all: an event loop.
 *
 * Once, with the interpreter lock held: the ticket, or None where the core would wait; then nothing
 * was changed.  What was changed is not waited for until it is durable, whatever the handle wants.
 */
#include "hot.h"

typedef int (*store_call)(rx_index *h, rx_thread *t, const void *key, size_t key_len, const void *value,
                          size_t value_len, int64_t wait_ns, uint64_t *ticket);

static PyObject *tried(struct hot_door *self, int code, PyObject *key_object, uint64_t ticket)
{
    if (code == RX_OK)
        return PyLong_FromUnsignedLongLong(ticket);
    if (code == RX_WOULD_WAIT)
        Py_RETURN_NONE;
    if (code == RX_ABSENT)
        PyErr_SetObject(PyExc_KeyError, key_object);
    else if (code == RX_E_READONLY && self->readonly)
        rx_hot_raise_readonly(self);
    else
        rx_hot_raise(code, key_object);
    return NULL;
}

static PyObject *try_store(struct hot_door *self, store_call call, PyObject *key_object, PyObject *value_object)
{
    struct hot_key key;
    struct hot_value value;
    uint64_t ticket = 0;
    if (rx_hot_key_begin(key_object, &key) < 0)
        return NULL;
    if (rx_hot_value_begin(value_object, &value) < 0) {
        rx_hot_key_end(&key);
        return NULL;
    }
    int code = !self->handle ? RX_E_CLOSED : self->readonly ? RX_E_READONLY
             : call(self->handle, self->thread, key.data, key.size, value.data, value.size, 0, &ticket);
    rx_hot_value_end(&value);
    PyObject *result = tried(self, code, key_object, ticket);
    rx_hot_key_end(&key);
    return result;
}

static const char *const store_parameter[] = {"key", "value"};

PyObject *rx_hot_try_put(struct hot_door *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    static const struct hot_signature signature = {"_try_put", 2, 2, 2, store_parameter};
    PyObject *slot[2];
    return rx_hot_parse(&signature, args, nargs, names, slot) < 0 ? NULL
                                                                  : try_store(self, rx_hot->put, slot[0], slot[1]);
}

PyObject *rx_hot_try_insert(struct hot_door *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    static const struct hot_signature signature = {"_try_insert", 2, 2, 2, store_parameter};
    PyObject *slot[2];
    return rx_hot_parse(&signature, args, nargs, names, slot) < 0 ? NULL
                                                                  : try_store(self, rx_hot->insert, slot[0], slot[1]);
}

PyObject *rx_hot_try_remove(struct hot_door *self, PyObject *key_object)
{
    struct hot_key key;
    uint64_t ticket = 0;
    if (rx_hot_key_begin(key_object, &key) < 0)
        return NULL;
    int code = !self->handle ? RX_E_CLOSED : self->readonly ? RX_E_READONLY
             : rx_hot->remove(self->handle, self->thread, key.data, key.size, 0, &ticket);
    PyObject *result = tried(self, code, key_object, ticket);
    rx_hot_key_end(&key);
    return result;
}
