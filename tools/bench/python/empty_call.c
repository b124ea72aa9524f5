/* empty_call: what a call of a C extension costs that does nothing. `./dev bench python` compares
 * with it. */
#include <Python.h>

static PyObject *empty(PyObject *module, PyObject *const *args, Py_ssize_t n_args) {
    (void)module;
    (void)args;
    (void)n_args;
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    { "empty", (PyCFunction)(uintptr_t)empty, METH_FASTCALL, "Takes anything, does nothing." },
    { 0 },
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "empty_call",
    .m_size = 0,
    .m_methods = functions,
};

PyMODINIT_FUNC PyInit_empty_call(void);
PyMODINIT_FUNC PyInit_empty_call(void) {
    return PyModule_Create(&definition);
}
