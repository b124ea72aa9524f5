/* next.c - see native.h.
 *
 * What `async for` awaits. A message that is there is taken by the await itself, without a
 * coroutine; else the coroutine _next() of shmps.Subscriber waits for one, and this stands for it.
 * Nothing is taken before it is awaited: who is cancelled loses nothing. */
#include "native.h"

#define TURNS 256 /* messages without a wait, after which others run; as in bus.py */

static PyTypeObject *NextType;

struct next {
    PyObject_HEAD
    struct subscriber *subscriber; /* NULL: it is done */
    PyObject *waiting;             /* the coroutine; since then the garbage collector knows this */
};

PyObject *subscriber_anext(PyObject *subscriber) {
    struct next *self = PyObject_GC_New(struct next, NextType);
    if (!self)
        return NULL;
    Py_INCREF(subscriber);
    self->subscriber = (struct subscriber *)subscriber;
    self->waiting = NULL;
    return OBJECT(self);
}

static void done(struct next *self) {
    struct subscriber *subscriber = self->subscriber;
    self->subscriber = NULL;
    Py_XDECREF(OBJECT(subscriber));
    Py_CLEAR(self->waiting);
}

static int next_clear(PyObject *self) {
    done((struct next *)self);
    return 0;
}

static void next_dealloc(PyObject *object) {
    struct next *self = (struct next *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(self);
    done(self);
    PyObject_GC_Del(self);
    Py_DECREF(OBJECT(type));
}

static int next_traverse(PyObject *object, visitproc visit, void *arg) {
    struct next *self = (struct next *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(OBJECT(self->subscriber));
    Py_VISIT(self->waiting);
    return 0;
}

/* Begin to wait, others first where they have waited long. */
static bool begin(struct next *self, bool give_way) {
    self->subscriber->turns = 0;
    self->waiting = PyObject_CallMethod(OBJECT(self->subscriber), "_next", "O",
                                        give_way ? Py_True : Py_False);
    if (self->waiting)
        PyObject_GC_Track(self);
    return self->waiting != NULL;
}

static bool is_done(struct next *self) {
    if (!self->subscriber)
        PyErr_SetString(PyExc_RuntimeError, "it has been awaited; call __anext__() again");
    return !self->subscriber;
}

/* PYGEN_NEXT: *ret is for the event loop; PYGEN_RETURN: it is the message. */
static PySendResult next_send(PyObject *object, PyObject *value, PyObject **ret) {
    struct next *self = (struct next *)object;
    *ret = NULL;
    if (unlikely(is_done(self)))
        return PYGEN_ERROR;
    if (likely(!self->waiting)) {
        bool give_way = ++self->subscriber->turns >= TURNS;
        PySendResult taken = give_way ? PYGEN_NEXT : subscriber_take_now(self->subscriber, ret);
        if (likely(taken == PYGEN_RETURN))
            done(self);
        if (likely(taken != PYGEN_NEXT))
            return taken;
        if (!begin(self, give_way))
            return PYGEN_ERROR;
    }
    PyObject *waiting = self->waiting; /* not to go while it runs, whoever calls close() in it */
    Py_INCREF(waiting);
    PySendResult result = PyIter_Send(waiting, value, ret);
    if (result != PYGEN_NEXT)
        done(self);
    Py_DECREF(waiting);
    return result;
}

static PyObject *next_iternext(PyObject *self) {
    PyObject *value;
    PySendResult result = next_send(self, Py_None, &value);
    if (result != PYGEN_RETURN)
        return value;
    PyErr_SetObject(PyExc_StopIteration, value);
    Py_DECREF(value);
    return NULL;
}

/* throw() and close(): those of the coroutine. */
static PyObject *next_throw(PyObject *object, PyObject *args) {
    struct next *self = (struct next *)object;
    if (is_done(self) || (!self->waiting && !begin(self, false)))
        return NULL;
    PyObject *method = PyObject_GetAttrString(self->waiting, "throw"); /* holds the coroutine */
    PyObject *value = method ? PyObject_Call(method, args, NULL) : NULL;
    Py_XDECREF(method);
    if (!value)
        done(self);
    return value;
}

static PyObject *next_close(PyObject *object, PyObject *none) {
    struct next *self = (struct next *)object;
    PyObject *waiting = self->waiting;
    (void)none;
    self->waiting = NULL;
    done(self);
    if (!waiting)
        Py_RETURN_NONE;
    PyObject *closed = PyObject_CallMethod(waiting, "close", NULL);
    Py_DECREF(waiting);
    return closed;
}

static PyObject *next_self(PyObject *self) {
    Py_INCREF(self);
    return self;
}

static PyMethodDef next_methods[] = {
    { "throw", next_throw, METH_VARARGS, "Raise an exception where it waits." },
    { "close", next_close, METH_NOARGS, "It is not awaited any more." },
    { 0 },
};

static PyType_Slot next_slots[] = {
    { Py_tp_dealloc, next_dealloc },
    { Py_tp_traverse, next_traverse },
    { Py_tp_clear, next_clear },
    { Py_tp_iter, next_self },
    { Py_tp_iternext, next_iternext },
    { Py_tp_methods, next_methods },
    { Py_am_await, next_self },
    { Py_am_send, next_send },
    { 0, NULL },
};

static PyType_Spec next_spec = {
    .name = "shmps._native.Next",
    .basicsize = sizeof(struct next),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = next_slots,
};

bool next_init(PyObject *module) {
    NextType = (PyTypeObject *)PyType_FromModuleAndSpec(module, &next_spec, NULL);
    return NextType != NULL;
}
