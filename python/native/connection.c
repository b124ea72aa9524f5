/* connection.c - see native.h. */
#include "native.h"

#include <string.h>

PyTypeObject *ConnectionType;

/* ---- uses of the library's connection: the last one closes it */

bool connection_use(struct connection *connection) {
    if (connection->closed || !connection->bus) {
        raise_result(CLOSED_HERE, "the connection");
        return false;
    }
    connection->users++;
    return true;
}

void connection_unuse(struct connection *connection) {
    struct shmps *bus = connection->bus;
    if (--connection->users > 0 || !connection->closed || !bus)
        return;
    connection->bus = NULL;
    Py_BEGIN_ALLOW_THREADS
    shmps_close(bus);
    Py_END_ALLOW_THREADS
}

/* ---- handles */

bool handle_init(struct handle *handle, PyObject *connection, const struct handle_kind *kind) {
    handle->closed = true; /* until it is open */
    handle->kind = kind;
    handle->forks = forks;
    if (!PyObject_TypeCheck(connection, ConnectionType)) {
        PyErr_SetString(PyExc_TypeError, "the first argument is a connection of shmps");
        return false;
    }
    Py_INCREF(connection);
    handle->connection = (struct connection *)connection;
    handle->lock = PyThread_allocate_lock();
    if (!handle->lock)
        PyErr_NoMemory();
    return handle->lock != NULL;
}

void handle_relist(struct handle *handle) {
    struct handle *all = &handle->connection->handles;
    handle->closed = false;
    handle->previous = all;
    handle->next = all->next;
    all->next->previous = handle;
    all->next = handle;
}

bool handle_enlist(struct handle *handle) {
    if (handle->connection->closed) {
        raise_result(CLOSED_HERE, "the connection");
        return false;
    }
    handle_relist(handle);
    return true;
}

void handle_unlist(struct handle *handle) {
    if (!handle->next)
        return;
    handle->next->previous = handle->previous;
    handle->previous->next = handle->next;
    handle->next = handle->previous = NULL;
}

void handle_free(struct handle *handle) {
    if (handle->lock)
        PyThread_free_lock(handle->lock);
    Py_CLEAR(handle->connection);
}

int handle_traverse(struct handle *handle, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(OBJECT(handle)));
    Py_VISIT(handle->connection);
    return 0;
}

/* ---- Connection */

static int open_bus(struct connection *self, const struct shmps_connect_options *options) {
    int result;
    struct shmps *bus = NULL;
    Py_BEGIN_ALLOW_THREADS
    result = shmps_connect(&bus, options);
    Py_END_ALLOW_THREADS
    if (result != 0) {
        raise_result(result, "connecting");
        return -1;
    }
    self->bus = bus;
    self->instance = PyUnicode_FromString(shmps_instance(bus));
    return self->instance ? 0 : -1;
}

static PyObject *connection_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static const char *const names[] = { "instance", "autostart", "observe", "timeout", NULL };
    struct shmps_connect_options options = SHMPS_CONNECT_OPTIONS_INIT;
    PyObject *autostart = Py_None, *timeout = NULL;
    options.timeout_ns = INT64_C(5000000000);
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "|z$OpO:Connection", KEYWORDS(names),
                                     &options.instance, &autostart, &options.observe, &timeout))
        return NULL;
    if (timeout && !timeout_from(timeout, &options.timeout_ns))
        return NULL;
    if (options.timeout_ns == 0)
        options.timeout_ns = 1; /* 0 is the library's word for the default */
    else if (options.timeout_ns < 0)
        options.timeout_ns = INT64_MAX / 4;
    if (autostart != Py_None) {
        int wanted = PyObject_IsTrue(autostart);
        if (wanted < 0)
            return NULL;
        options.autostart = wanted ? SHMPS_AUTOSTART_ON : SHMPS_AUTOSTART_OFF;
    }
    struct connection *self = (struct connection *)PyType_GenericAlloc(type, 0);
    if (!self)
        return NULL;
    self->handles.next = self->handles.previous = &self->handles;
    if (open_bus(self, &options) < 0) {
        Py_DECREF(OBJECT(self));
        return NULL;
    }
    return (PyObject *)self;
}

/* All that is open on it, then itself; as much as can be, the first exception stays. */
static PyObject *connection_close(PyObject *object, PyObject *none) {
    struct connection *self = (struct connection *)object;
    (void)none;
    if (self->closed)
        Py_RETURN_NONE;
    self->users++;
    self->closed = true;
    int result = 0;
    while (result == 0 && self->handles.next != &self->handles) {
        struct handle *handle = self->handles.next;
        if (Py_REFCNT(OBJECT(handle)) == 0) { /* it ends, and what it calls meanwhile is here */
            handle_unlist(handle);
            continue;
        }
        Py_INCREF(OBJECT(handle));
        result = handle->kind->close(handle);
        Py_DECREF(OBJECT(handle));
    }
    if (result != 0)
        self->closed = false; /* what could not be closed is still there: try again */
    connection_unuse(self);
    if (result != 0)
        return NULL;
    Py_RETURN_NONE;
}

static void connection_dealloc(PyObject *object) {
    struct connection *self = (struct connection *)object;
    PyTypeObject *type = Py_TYPE(OBJECT(self));
    PyObject_GC_UnTrack(self);
    if (self->bus) {
        self->users++;
        self->closed = true;
        connection_unuse(self);
    }
    Py_CLEAR(self->instance);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(OBJECT(type));
}

static int connection_traverse(PyObject *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(OBJECT(self)));
    return 0;
}

static PyObject *connection_instance(PyObject *self, void *none) {
    (void)none;
    PyObject *instance = ((struct connection *)self)->instance;
    Py_INCREF(instance);
    return instance;
}

static PyObject *connection_closed(PyObject *self, void *none) {
    (void)none;
    return PyBool_FromLong(((struct connection *)self)->closed);
}

/* A call of the library on the connection itself, without the GIL. */
static int ask(PyObject *object, int (*call)(struct shmps *)) {
    struct connection *self = (struct connection *)object;
    int result;
    if (!connection_use(self))
        return RAISED;
    struct shmps *bus = self->bus;
    Py_BEGIN_ALLOW_THREADS
    result = call(bus);
    Py_END_ALLOW_THREADS
    if (result < 0)
        raise_result(result, "pubsubd");
    connection_unuse(self);
    return result;
}

static PyObject *connection_daemon_alive(PyObject *self, PyObject *none) {
    (void)none;
    int result = ask(self, shmps_daemon_alive);
    return result < 0 ? NULL : PyBool_FromLong(result);
}

static PyObject *connection_stop_daemon(PyObject *self, PyObject *none) {
    (void)none;
    if (ask(self, shmps_stop_daemon) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyGetSetDef connection_attributes[] = {
    { "instance", connection_instance, NULL, "The name of the instance of the bus.", NULL },
    { "closed", connection_closed, NULL, "Has close() been called?", NULL },
    { 0 },
};

static PyMethodDef connection_methods[] = {
    { "daemon_alive", connection_daemon_alive, METH_NOARGS,
      "daemon_alive($self, /)\n--\n\nDoes pubsubd answer now? Publishing and receiving go on "
      "without it." },
    { "stop_daemon", connection_stop_daemon, METH_NOARGS,
      "stop_daemon($self, /)\n--\n\nAsk pubsubd to end, and wait until it has closed this "
      "connection." },
    { "close", connection_close, METH_NOARGS,
      "close($self, /)\n--\n\nClose it and all that is open on it. Messages that are held stay as "
      "they are. May be called again." },
    { "__enter__", enter_self, METH_NOARGS, NULL },
    { "__exit__", exit_closing, METH_VARARGS, NULL },
    { 0 },
};

static const char connection_doc[] =
    "Connection(instance=None, *, autostart=None, observe=False, timeout=5.0)\n--\n\n"
    "A connection to one instance of the bus: its name or the path of its socket; None:\n"
    "$SHMPS_INSTANCE, else 'default'. autostart: start a pubsubd of this user if none answers;\n"
    "None: yes, unless SHMPS_AUTOSTART=0. observe: never talk to pubsubd, only look; works when\n"
    "it is dead. timeout: seconds for finding or starting pubsubd, and for each of its answers.";

static PyType_Slot connection_slots[] = {
    { Py_tp_doc, (void *)(uintptr_t)connection_doc },
    { Py_tp_new, connection_new },
    { Py_tp_dealloc, connection_dealloc },
    { Py_tp_traverse, connection_traverse },
    { Py_tp_methods, connection_methods },
    { Py_tp_getset, connection_attributes },
    { 0, NULL },
};

static PyType_Spec connection_spec = {
    .name = "shmps._native.Connection",
    .basicsize = sizeof(struct connection),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = connection_slots,
};

bool connection_init(PyObject *module) {
    ConnectionType = add_type(module, &connection_spec);
    return ConnectionType != NULL;
}
