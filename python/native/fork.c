/* fork.c - see native.h.
 *
 * The library's mappings are not inherited by a forked child, but the child has its parent's
 * objects, and views of them: it may not fault on these. So what messages hold in a ring is copied
 * before a fork, and in the child each copy is put where the original was; where a loan was, there
 * are zeros, and what is written goes nowhere. Forks that Python does not make (a C library's own)
 * are not covered; their children had better exec. */
#include "native.h"

#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

unsigned forks;

struct copy {
    struct copy *next;
    void *at;     /* in the ring's mapping; whole pages */
    void *memory; /* as many of its own */
    size_t bytes;
};
static struct copy *copies;
static _Thread_local bool python_forks; /* so this thread has the GIL when it forks */

/* Does a child find nothing where the message is? */
static bool in_ring(const struct message *message) {
    return !(message->sample.flags & SHMPS_SAMPLE_COPIED) && message->subscriber->sub;
}

/* The whole pages that it is in; how many bytes they have. */
static size_t pages_of(const void *data, size_t bytes, void **ret_start) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t start = (uintptr_t)data / page * page;
    *ret_start = (void *)start;
    return ((uintptr_t)data + bytes + page - 1) / page * page - start;
}

static void map_zeros(const void *data, size_t bytes) {
    void *start;
    size_t size = pages_of(data, bytes, &start);
    if (size > 0)
        mmap(start, size, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
}

/* False: no memory. */
static bool copy_pages(const struct message *message) {
    struct copy *copy = PyMem_Malloc(sizeof *copy);
    if (!copy)
        return false;
    *copy = (struct copy){ .next = copies };
    copy->bytes = pages_of(message->sample.data, message->sample.bytes, &copy->at);
    copy->memory = mmap(NULL, copy->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                        0);
    if (copy->memory == MAP_FAILED) {
        PyMem_Free(copy);
        return false;
    }
    memcpy(copy->memory, copy->at, copy->bytes);
    copies = copy;
    return true;
}

static void drop_copies(void) {
    while (copies) {
        struct copy *copy = copies;
        copies = copy->next;
        munmap(copy->memory, copy->bytes);
        PyMem_Free(copy);
    }
}

/* Hooks of others may come after this one, and let other threads run: too early to copy. */
static PyObject *before_fork(PyObject *self, PyObject *none) {
    (void)self;
    (void)none;
    python_forks = true;
    Py_RETURN_NONE;
}

static void in_parent_before(void) {
    if (!python_forks)
        return;
    drop_copies(); /* of a fork that is over but for hooks of others */
    for (const struct message *m = held_messages; m; m = m->next) {
        if (in_ring(m) && !copy_pages(m))
            return; /* who cannot be copied is not there in the child */
    }
}

static PyObject *after_fork(PyObject *self, PyObject *none) {
    (void)self;
    (void)none;
    python_forks = false;
    drop_copies();
    Py_RETURN_NONE;
}

/* Before anything else can be mapped there: system calls only. Pages of two messages come twice,
 * with the same bytes. */
static void in_child(void) {
    for (const struct copy *copy = copies; copy; copy = copy->next)
        mremap(copy->memory, copy->bytes, copy->bytes, MREMAP_MAYMOVE | MREMAP_FIXED, copy->at);
    copies = NULL;
    for (const struct loan *loan = open_loans; loan; loan = loan->next) {
        if (loan->publisher->handle.forks == forks)
            map_zeros(loan->data, (size_t)loan->bytes);
    }
    forks++;
    python_forks = false;
}

static PyMethodDef before = { "before_fork", before_fork, METH_NOARGS, NULL };
static PyMethodDef after = { "after_fork", after_fork, METH_NOARGS, NULL };

static bool register_with(PyObject *os) {
    PyObject *call = PyObject_GetAttrString(os, "register_at_fork");
    PyObject *none = PyTuple_New(0);
    PyObject *hooks = Py_BuildValue("{s:N,s:N}", "before", PyCFunction_NewEx(&before, NULL, NULL),
                                    "after_in_parent", PyCFunction_NewEx(&after, NULL, NULL));
    PyObject *done = call && none && hooks ? PyObject_Call(call, none, hooks) : NULL;
    Py_XDECREF(hooks);
    Py_XDECREF(none);
    Py_XDECREF(call);
    Py_XDECREF(done);
    return done != NULL;
}

bool fork_init(void) {
    if (pthread_atfork(in_parent_before, NULL, in_child) != 0) {
        PyErr_NoMemory();
        return false;
    }
    PyObject *os = PyImport_ImportModule("os");
    bool done = os && register_with(os);
    Py_XDECREF(os);
    return done;
}
