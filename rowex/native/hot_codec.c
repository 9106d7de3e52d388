/*
 * hot_codec.c -- the codecs of rowex/_forms.py for what is plain: ints of up to 64
 * bits, str, flat tuples of these and bytes.
 *
 * _forms.py defines the stored forms and has every refusal.  Whatever is not plain
 * here, because it is large, nested, of a subclass, damaged or wrong, goes there.
 */
#include "hot.h"

#include <string.h>

#define DIGITS_MAX 8 /* bytes of an int that is plain */
#define ITEMS_MAX 16 /* elements of a tuple that is plain */
#define TEXT_MAX 65536 /* bytes of one of them */

enum tag { TAG_BYTES = 0x10, TAG_STR = 0x20, TAG_INT = 0x30, END = 0x00 };

static PyObject *ask_forms(const char *function, PyObject *object)
{
    PyObject *module = PyImport_ImportModule("rowex._forms");
    PyObject *answer = module ? PyObject_CallMethod(module, function, "(O)", object) : NULL;
    Py_XDECREF(module);
    return answer;
}

/* --- bytes --- */

static PyObject *encode_key(PyObject *module, PyObject *object)
{
    (void)module;
    return PyBytes_CheckExact(object) ? Py_NewRef(object) : rx_hot_copy(object, "key");
}

static PyObject *encode_bytes(PyObject *module, PyObject *object)
{
    (void)module;
    return PyBytes_CheckExact(object) ? Py_NewRef(object) : rx_hot_copy(object, "value");
}

static PyObject *decode_bytes(PyObject *module, PyObject *data)
{
    (void)module;
    return Py_NewRef(data);
}

/* --- int --- */

/* How many bytes a number takes, without leading zeros. */
static size_t digits_of(uint64_t number)
{
    return number ? 8 - (size_t)__builtin_clzll(number) / 8 : 0;
}

/* The form of an int to `to`, which has 1 + DIGITS_MAX bytes of room; its size, or 0: not plain. */
static size_t put_int(PyObject *object, unsigned char *to)
{
    int overflow;
    long long number = PyLong_CheckExact(object) ? PyLong_AsLongLongAndOverflow(object, &overflow) : 0;
    if (!PyLong_CheckExact(object) || overflow)
        return 0;
    uint64_t natural = number < 0 ? ~(uint64_t)number : (uint64_t)number; /* of n < 0: -n - 1 */
    size_t size = digits_of(natural);
    unsigned char flip = number < 0 ? 0xff : 0;
    to[0] = (unsigned char)(0x80 + size) ^ flip;
    for (size_t i = 0; i < size; i++)
        to[1 + i] = (unsigned char)(natural >> (8 * (size - 1 - i))) ^ flip;
    return 1 + size;
}

/* How many bytes the form at `data` takes, with the number; 0: not plain. */
static size_t get_int(const unsigned char *data, size_t left, uint64_t *natural, bool *negative)
{
    if (left == 0)
        return 0;
    *negative = data[0] < 0x80;
    unsigned char flip = *negative ? 0xff : 0;
    size_t size = (size_t)(unsigned char)(data[0] ^ flip) - 0x80;
    if (size > DIGITS_MAX || size >= left || (size && (data[1] ^ flip) == 0))
        return 0;
    *natural = 0;
    for (size_t i = 0; i < size; i++)
        *natural = *natural << 8 | (unsigned char)(data[1 + i] ^ flip);
    return *negative && *natural > INT64_MAX ? 0 : 1 + size;
}

static PyObject *int_of(uint64_t natural, bool negative)
{
    return negative ? PyLong_FromLongLong(-(long long)natural - 1) : PyLong_FromUnsignedLongLong(natural);
}

static PyObject *encode_int(PyObject *module, PyObject *object)
{
    (void)module;
    unsigned char form[1 + DIGITS_MAX];
    size_t size = put_int(object, form);
    return size ? PyBytes_FromStringAndSize((char *)form, (Py_ssize_t)size) : ask_forms("encode_int", object);
}

/* NULL without an exception: not plain. */
static PyObject *plain_int(const char *data, size_t size)
{
    uint64_t natural;
    bool negative;
    if (size == 0 || get_int((const unsigned char *)data, size, &natural, &negative) != size)
        return NULL;
    return int_of(natural, negative);
}

/* --- str --- */

/* NULL without an exception: not plain. */
static PyObject *utf8_of(PyObject *object)
{
    if (!PyUnicode_CheckExact(object))
        return NULL;
    if (PyUnicode_IS_COMPACT_ASCII(object))
        return PyBytes_FromStringAndSize((const char *)PyUnicode_1BYTE_DATA(object), PyUnicode_GET_LENGTH(object));
    return PyUnicode_AsEncodedString(object, "utf-8", "surrogatepass");
}

static PyObject *encode_str(PyObject *module, PyObject *object)
{
    (void)module;
    PyObject *data = utf8_of(object);
    return data || PyErr_Occurred() ? data : ask_forms("encode_str", object);
}

static PyObject *plain_str(const char *data, size_t size)
{
    PyObject *text = PyUnicode_DecodeUTF8(data, (Py_ssize_t)size, "surrogatepass");
    if (!text && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError))
        PyErr_Clear();
    return text;
}

/* --- tuple --- */

struct element {
    PyObject *data; /* its bytes, owned; NULL: an int, whose form is `form` */
    size_t size;
    unsigned char tag, form[1 + DIGITS_MAX];
};

/* 1, 0: not plain, -1 with an exception. */
static int measure_element(PyObject *item, struct element *element)
{
    element->data = NULL;
    element->tag = TAG_INT;
    element->size = put_int(item, element->form);
    if (element->size)
        return 1;
    element->tag = PyBytes_CheckExact(item) ? TAG_BYTES : TAG_STR;
    element->data = PyBytes_CheckExact(item) ? Py_NewRef(item) : utf8_of(item);
    if (!element->data)
        return PyErr_Occurred() ? -1 : 0;
    element->size = (size_t)PyBytes_GET_SIZE(element->data);
    return element->size <= TEXT_MAX && !memchr(PyBytes_AS_STRING(element->data), 0, element->size);
}

static PyObject *join(const struct element *element, size_t n)
{
    size_t size = 0;
    for (size_t i = 0; i < n; i++)
        size += 1 + element[i].size + (element[i].data != NULL); /* tag, bytes, END */
    PyObject *joined = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (!joined)
        return NULL;
    char *to = PyBytes_AS_STRING(joined);
    for (size_t i = 0; i < n; i++) {
        *to++ = (char)element[i].tag;
        memcpy(to, element[i].data ? (const void *)PyBytes_AS_STRING(element[i].data) : element[i].form, element[i].size);
        to += element[i].size;
        if (element[i].data)
            *to++ = END;
    }
    return joined;
}

static PyObject *encode_tuple(PyObject *module, PyObject *object)
{
    (void)module;
    struct element element[ITEMS_MAX];
    size_t n = PyTuple_CheckExact(object) ? (size_t)PyTuple_GET_SIZE(object) : 0, done = 0;
    int plain = n > 0 && n <= ITEMS_MAX;
    while (plain > 0 && done < n) {
        plain = measure_element(PyTuple_GET_ITEM(object, (Py_ssize_t)done), &element[done]);
        done++;
    }
    PyObject *joined = plain > 0 ? join(element, n) : NULL;
    for (size_t i = 0; i < done; i++)
        Py_XDECREF(element[i].data);
    return plain ? joined : ask_forms("encode_tuple", object);
}

/* The element at `at`, which moves behind it; NULL without an exception: not plain. */
static PyObject *take_element(const char **at, const char *end)
{
    unsigned char tag = (unsigned char)*(*at)++;
    if (tag == TAG_INT) {
        uint64_t natural;
        bool negative;
        size_t size = get_int((const unsigned char *)*at, (size_t)(end - *at), &natural, &negative);
        *at += size;
        return size ? int_of(natural, negative) : NULL;
    }
    if (tag != TAG_BYTES && tag != TAG_STR)
        return NULL;
    const char *data = *at, *stop = memchr(data, END, (size_t)(end - data));
    if (!stop || (stop + 1 < end && (unsigned char)stop[1] == 0xff)) /* cut short, or an escape */
        return NULL;
    *at = stop + 1;
    if (tag == TAG_STR)
        return plain_str(data, (size_t)(stop - data));
    return PyBytes_FromStringAndSize(data, stop - data);
}

static PyObject *plain_tuple(const char *data, size_t size)
{
    PyObject *item[ITEMS_MAX], *result = NULL;
    const char *at = data, *end = data + size;
    Py_ssize_t n = 0;
    bool plain = true;
    while (plain && at < end) {
        plain = n < ITEMS_MAX && (item[n] = take_element(&at, end));
        n += plain;
    }
    if (plain)
        result = PyTuple_New(n);
    for (Py_ssize_t i = 0; i < n; i++) {
        if (result)
            PyTuple_SET_ITEM(result, i, item[i]);
        else
            Py_DECREF(item[i]);
    }
    return result;
}

/* --- decoding --- */

/* What each decode function does: what is plain by itself, the rest where the forms are defined. */
static PyObject *decoded(PyObject *data, PyObject *(*plain)(const char *data, size_t size), const char *name)
{
    if (!PyBytes_CheckExact(data))
        return ask_forms(name, data);
    PyObject *object = plain(PyBytes_AS_STRING(data), (size_t)PyBytes_GET_SIZE(data));
    return object || PyErr_Occurred() ? object : ask_forms(name, data);
}

static PyObject *decode_int(PyObject *module, PyObject *data)
{
    (void)module;
    return decoded(data, plain_int, "decode_int");
}

static PyObject *decode_str(PyObject *module, PyObject *data)
{
    (void)module;
    return decoded(data, plain_str, "decode_str");
}

static PyObject *decode_tuple(PyObject *module, PyObject *data)
{
    (void)module;
    return decoded(data, plain_tuple, "decode_tuple");
}

void rx_hot_decode_begin(PyObject *call, struct hot_decode *decode)
{
    static const struct {
        PyCFunction call;
        PyObject *(*plain)(const char *data, size_t size);
    } known[] = {{decode_int, plain_int}, {decode_str, plain_str}, {decode_tuple, plain_tuple}};
    PyCFunction function = call && PyCFunction_CheckExact(call) ? PyCFunction_GET_FUNCTION(call) : NULL;
    decode->call = call == Py_None || function == decode_bytes ? NULL : call;
    decode->plain = NULL;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (function == known[i].call)
            decode->plain = known[i].plain;
}

PyObject *rx_hot_decode(const struct hot_decode *decode, const char *data, size_t size)
{
    PyObject *object = decode->plain ? decode->plain(data, size) : NULL;
    if (object || PyErr_Occurred())
        return object;
    object = PyBytes_FromStringAndSize(data, (Py_ssize_t)size);
    if (object && decode->call)
        Py_SETREF(object, PyObject_CallOneArg(decode->call, object));
    return object;
}

PyMethodDef rx_hot_codec_functions[] = {
    {"encode_key", encode_key, METH_O, PyDoc_STR("encode_key($module, key, /)\n--\n\nAs rowex._forms.encode_key().")},
    {"encode_bytes", encode_bytes, METH_O,
     PyDoc_STR("encode_bytes($module, value, /)\n--\n\nAs rowex._forms.encode_bytes().")},
    {"decode_bytes", decode_bytes, METH_O,
     PyDoc_STR("decode_bytes($module, data, /)\n--\n\nAs rowex._forms.decode_bytes().")},
    {"encode_int", encode_int, METH_O, PyDoc_STR("encode_int($module, value, /)\n--\n\nAs rowex._forms.encode_int().")},
    {"decode_int", decode_int, METH_O, PyDoc_STR("decode_int($module, data, /)\n--\n\nAs rowex._forms.decode_int().")},
    {"encode_str", encode_str, METH_O, PyDoc_STR("encode_str($module, value, /)\n--\n\nAs rowex._forms.encode_str().")},
    {"decode_str", decode_str, METH_O, PyDoc_STR("decode_str($module, data, /)\n--\n\nAs rowex._forms.decode_str().")},
    {"encode_tuple", encode_tuple, METH_O,
     PyDoc_STR("encode_tuple($module, value, /)\n--\n\nAs rowex._forms.encode_tuple().")},
    {"decode_tuple", decode_tuple, METH_O,
     PyDoc_STR("decode_tuple($module, data, /)\n--\n\nAs rowex._forms.decode_tuple().")},
    {NULL, NULL, 0, NULL},
};
