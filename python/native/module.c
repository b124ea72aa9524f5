#include <Python.h>
static struct PyModuleDef d = { PyModuleDef_HEAD_INIT, "shmps._native", NULL, -1, NULL, NULL, NULL, NULL, NULL };
PyMODINIT_FUNC PyInit__native(void) {
    return PyModule_Create(&d);
}
