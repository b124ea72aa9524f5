/* module.c - see native.h. */
#include "native.h"

static PyObject *version(PyObject *self, PyObject *none) {
    (void)self;
    (void)none;
    return PyUnicode_FromString(shmps_version());
}

static PyObject *checked(PyObject *name, int (*check)(const char *)) {
    const char *text = name_from(name);
    if (!text)
        return NULL;
    int result = check(text);
    if (result != 0)
        return raise_result(result, "checking a name");
    Py_RETURN_NONE;
}

static PyObject *topic_check(PyObject *self, PyObject *topic) {
    (void)self;
    return checked(topic, shmps_topic_check);
}

static PyObject *filter_check(PyObject *self, PyObject *filter) {
    (void)self;
    return checked(filter, shmps_filter_check);
}

static PyObject *filter_matches(PyObject *self, PyObject *args) {
    const char *filter, *topic;
    (void)self;
    if (!PyArg_ParseTuple(args, "ss:filter_matches", &filter, &topic))
        return NULL;
    int result = shmps_filter_check(filter);
    if (result == 0)
        result = shmps_topic_check(topic);
    if (result != 0)
        return raise_result(result, "checking a name");
    return PyBool_FromLong(shmps_filter_matches(filter, topic));
}

static PyMethodDef functions[] = {
    { "version", version, METH_NOARGS, "version($module, /)\n--\n\nThe version of libshmps." },
    { "topic_check", topic_check, METH_O,
      "topic_check($module, topic, /)\n--\n\nRaise TopicError, with the broken rule, if it is no "
      "name of a topic." },
    { "filter_check", filter_check, METH_O,
      "filter_check($module, filter, /)\n--\n\nRaise TopicError, with the broken rule, if it is "
      "no filter." },
    { "filter_matches", filter_matches, METH_VARARGS,
      "filter_matches($module, filter, topic, /)\n--\n\nDoes a filter match a topic? TopicError, "
      "if one is none." },
    { 0 },
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "shmps._native",
    .m_doc = "The C extension: connections, publishers, loans, subscribers and messages.",
    .m_size = -1,
    .m_methods = functions,
};

PyMODINIT_FUNC PyInit__native(void);
PyMODINIT_FUNC PyInit__native(void) {
    PyObject *module = PyModule_Create(&definition);
    if (module && call_init() && connection_init(module) && publisher_init(module) &&
        loan_init(module) && subscriber_init(module) && next_init(module) &&
        message_init(module) && fork_init())
        return module;
    Py_XDECREF(module);
    return NULL;
}
