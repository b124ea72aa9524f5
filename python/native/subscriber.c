/* subscriber.c - see native.h. */
#include "native.h"

#include <string.h>

#define BATCH 64 /* messages put into a list at once */

static PyTypeObject *SubscriberType;

/* ---- what messages hold */

/* No other thread is in the library's handle. */
static void release(struct subscriber *self, struct message *message) {
    if (self->sub) {
        shmps_release(self->sub, &message->sample);
    } else if (self->n_held == 0) {
        shmps_kept_free(self->kept);
        self->kept = NULL;
    }
    message_free(message);
    Py_DECREF(OBJECT(self));
}

void subscriber_let_go(struct subscriber *self, struct message *message) {
    message_unhold(message);
    if (self->handle.busy && self->handle.forks == forks) {
        message->next = self->let_go;
        self->let_go = message;
        return;
    }
    Py_INCREF(OBJECT(self));
    release(self, message);
    Py_DECREF(OBJECT(self));
}

static void catch_up(struct handle *handle) {
    struct subscriber *self = (struct subscriber *)handle;
    while (unlikely(self->let_go != NULL)) {
        struct message *message = self->let_go;
        self->let_go = message->next;
        release(self, message);
    }
}

/* ---- closing */

/* Close the library's handle; what messages hold outlives it. No other thread is in it. */
static int end_handle(struct subscriber *self) {
    int result = 0;
    bool held = self->n_held > 0;
    self->handle.busy = true;
    Py_BEGIN_ALLOW_THREADS
    slice_begin(&self->handle);
    if (held)
        result = shmps_subscriber_close_keep(self->sub, &self->kept);
    else
        shmps_subscriber_close(self->sub);
    slice_end(&self->handle);
    Py_END_ALLOW_THREADS
    self->handle.busy = false;
    if (result == 0) {
        self->sub = NULL;
        connection_unuse(self->handle.connection);
    }
    catch_up(&self->handle);
    return result;
}

static int subscriber_close(struct handle *handle) {
    struct subscriber *self = (struct subscriber *)handle;
    if (handle->closed)
        return 0;
    handle->closed = true;
    handle_unlist(handle);
    bool turn = turn_take_last(handle);
    int result = turn ? end_handle(self) : RAISED;
    if (result != 0 && result != SHMPS_E_FORKED) { /* in a child, the last message closes it */
        handle_relist(handle);
        raise_result(result, "closing");
        return RAISED;
    }
    return 0;
}

static const struct handle_kind kind = { subscriber_close, catch_up };

/* ---- opening */

static PyObject *subscriber_open(struct subscriber *self, PyObject *connection,
                                 const struct shmps_subscriber_options *options) {
    int result;
    const char *filter = name_from(self->filter);
    if (!filter || !handle_init(&self->handle, connection, &kind) ||
        !connection_use(self->handle.connection)) {
        Py_DECREF(OBJECT(self));
        return NULL;
    }
    struct shmps *bus = self->handle.connection->bus;
    Py_BEGIN_ALLOW_THREADS
    result = shmps_subscriber_open(bus, filter, options, &self->sub);
    Py_END_ALLOW_THREADS
    if (result != 0) {
        self->sub = NULL;
        connection_unuse(self->handle.connection);
        raise_result(result, "opening");
    }
    if (result == 0 && handle_enlist(&self->handle))
        return (PyObject *)self;
    Py_DECREF(OBJECT(self));
    return NULL;
}

static bool history_from(PyObject *history, uint32_t *ret) {
    if (history == Py_None)
        return true;
    long long k = PyLong_AsLongLong(history);
    if ((k == -1 && PyErr_Occurred()) || !fits_u32("history", k, ret))
        return false;
    if (k == 0)
        *ret = SHMPS_HISTORY_NONE;
    return true;
}

static PyObject *subscriber_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static const char *const names[] = { "connection", "filter", "timeout", "delivery",
                             "wait",       "history", "pins",   NULL };
    static const char *const waits[] = { "default", "spin", "sleep" };
    static const char *const deliveries[] = { "lossy", "latest", "reliable", "observe" };
    struct shmps_subscriber_options options = SHMPS_SUBSCRIBER_OPTIONS_INIT;
    PyObject *connection, *filter, *timeout = Py_None, *history = Py_None;
    const char *delivery = "lossy", *wait = "default";
    long long pins = 0;
    int64_t timeout_ns;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OO|$OssOL:Subscriber", KEYWORDS(names),
                                     &connection, &filter, &timeout, &delivery, &wait, &history,
                                     &pins) ||
        !word_index("delivery", delivery, deliveries, LENGTH(deliveries), &options.delivery) ||
        !word_index("wait", wait, waits, LENGTH(waits), &options.wait) ||
        !fits_u32("pins", pins, &options.pins) || !history_from(history, &options.history) ||
        !timeout_from(timeout, &timeout_ns))
        return NULL;
    struct subscriber *self = (struct subscriber *)PyType_GenericAlloc(type, 0);
    if (!self)
        return NULL;
    Py_INCREF(filter);
    self->filter = filter;
    self->timeout_ns = timeout_ns;
    return subscriber_open(self, connection, &options);
}

static void subscriber_dealloc(PyObject *object) {
    struct subscriber *self = (struct subscriber *)object;
    PyTypeObject *type = Py_TYPE(OBJECT(self));
    PyObject_GC_UnTrack(self);
    handle_unlist(&self->handle);
    if (self->sub)
        end_handle(self);
    for (size_t i = 0; i < TOPICS_KNOWN; i++)
        Py_CLEAR(self->topics[i].string);
    handle_free(&self->handle);
    Py_CLEAR(self->pending);
    Py_CLEAR(self->filter);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(OBJECT(type));
}

/* ---- taking */

/* A loss that no message follows is told with the next one. */
static void note_loss(struct subscriber *self, const struct shmps_sample *sample) {
    self->lost += sample->lost;
    self->flags |= sample->flags & SHMPS_SAMPLE_EVICTED;
}

/* The next sample into a message's memory. What is small is read at once into the message; after a
 * large one it is expected to be large again, and taken where it lies. */
static int take_one(struct handle *handle, void *context, int64_t timeout_ns) {
    struct subscriber *self = (struct subscriber *)handle;
    struct message *message = context;
    for (;;) {
        int result = SHMPS_E_SIZE;
        if (likely(!self->large))
            result = shmps_read(self->sub, message->small, SMALL_BYTES, &message->sample,
                                timeout_ns);
        if (unlikely(result == SHMPS_E_SIZE)) {
            result = shmps_take(self->sub, &message->sample, timeout_ns);
            self->large = result == 0 ? message->sample.bytes > SMALL_BYTES : self->large;
        }
        if (likely(result != SHMPS_LOST))
            return result;
        note_loss(self, &message->sample);
    }
}

/* What has come of take_one(); NULL: *result says why not, RAISED: an exception is set. */
static inline PyObject *made(struct subscriber *self, struct message *message, int *result) {
    if (unlikely(*result != 0)) {
        message_give_back(message);
        return NULL;
    }
    PyObject *object = message_made(self, message);
    *result = object ? 0 : RAISED;
    return object;
}

/* The next message. */
static PyObject *next(struct subscriber *self, int64_t timeout_ns, int *ret_result) {
    *ret_result = RAISED;
    if (unlikely(self->pending != NULL)) {
        PyErr_SetObject(OBJECT(Py_TYPE(self->pending)), self->pending);
        Py_CLEAR(self->pending);
        return NULL;
    }
    struct message *message = message_room();
    if (unlikely(!message))
        return NULL;
    *ret_result = call_waiting(&self->handle, take_one, message, timeout_ns, QUICK);
    return made(self, message, ret_result);
}

/* The same after another one, since when no other thread has run. */
static PyObject *one_more(struct subscriber *self, int *ret_result) {
    struct message *message = message_room();
    *ret_result = RAISED;
    if (unlikely(!message))
        return NULL;
    *ret_result = take_one(&self->handle, message, 0);
    return made(self, message, ret_result);
}

static PyObject *nothing(int result) {
    return raise_result(result, "nothing was published");
}

static PyObject *take(struct subscriber *self, int64_t timeout_ns) {
    int result;
    PyObject *message = next(self, timeout_ns, &result);
    return likely(message != NULL) ? message : nothing(result);
}

static PyObject *subscriber_take(PyObject *object, PyObject *const *args, Py_ssize_t n_args,
                                 PyObject *keywords) {
    static const char *const names[] = { "timeout" };
    struct subscriber *self = (struct subscriber *)object;
    PyObject *timeout = NULL;
    int64_t timeout_ns = self->timeout_ns;
    if (unlikely(n_args > 0 || keywords) &&
        (!take_arguments("take", args, n_args, keywords, names, 1, 0, 1, &timeout) ||
         (timeout && !timeout_from(timeout, &timeout_ns))))
        return NULL;
    return take(self, timeout_ns);
}

static PyObject *subscriber_try_take(PyObject *self, PyObject *none) {
    int result;
    PyObject *message = next((struct subscriber *)self, 0, &result);
    (void)none;
    if (message)
        return message;
    if (result == SHMPS_EMPTY || result == SHMPS_TIMEOUT)
        Py_RETURN_NONE;
    return nothing(result);
}

static PyObject *subscriber_next(PyObject *object) {
    struct subscriber *self = (struct subscriber *)object;
    int result;
    PyObject *message = next(self, self->timeout_ns, &result);
    if (likely(message != NULL))
        return message;
    return result == CLOSED_HERE ? NULL : nothing(result);
}

PySendResult subscriber_take_now(struct subscriber *self, PyObject **ret) {
    int result;
    *ret = next(self, 0, &result);
    if (likely(*ret != NULL))
        return PYGEN_RETURN;
    if (result == SHMPS_EMPTY || result == SHMPS_TIMEOUT || result == CLOSED_HERE)
        return PYGEN_NEXT;
    nothing(result);
    return PYGEN_ERROR;
}

/* ---- batches */

/* Messages into a list, at its end; NULL is a new one. False: exception set. */
static bool append(PyObject **list, PyObject **messages, Py_ssize_t n) {
    PyObject *more = PyList_New(n);
    for (Py_ssize_t i = 0; i < n; i++) {
        if (more)
            PyList_SetItem(more, i, messages[i]);
        else
            Py_DECREF(messages[i]);
    }
    if (!more)
        return false;
    if (likely(!*list)) {
        *list = more;
        return true;
    }
    Py_ssize_t end = PyList_Size(*list);
    int failed = PyList_SetSlice(*list, end, end, more);
    Py_DECREF(more);
    return failed == 0;
}

/* Up to n messages, at most BATCH; waits for the first. 0: all of them, else why not. */
static int take_some(struct subscriber *self, int64_t timeout_ns, size_t n, PyObject **ret,
                     size_t *ret_n) {
    int result;
    size_t k = 0;
    PyObject *message = next(self, timeout_ns, &result);
    while (message) {
        ret[k++] = message;
        if (k == n)
            break;
        message = one_more(self, &result);
    }
    *ret_n = k;
    return result;
}

/* Keep the exception of an error, as the library tells its cause only now. */
static void raise_later(struct subscriber *self, int result) {
    PyObject *type, *error, *trace;
    nothing(result);
    PyErr_Fetch(&type, &error, &trace);
    PyErr_NormalizeException(&type, &error, &trace);
    Py_XDECREF(type);
    Py_XDECREF(trace);
    self->pending = error;
}

/* What ends a batch is told by the next call, unless there is nothing else to tell. */
static PyObject *take_batch(struct subscriber *self, size_t n, int64_t timeout_ns) {
    PyObject *messages[BATCH], *list = NULL;
    int result = 0;
    while (result == 0 && n > 0) {
        size_t done;
        result = take_some(self, list ? 0 : timeout_ns, n < BATCH ? n : BATCH, messages, &done);
        if (done == 0 && !list)
            return nothing(result);
        if (!append(&list, messages, (Py_ssize_t)done) || result == RAISED) {
            Py_CLEAR(list);
            return NULL;
        }
        n -= done;
    }
    if (result < 0 && result != CLOSED_HERE)
        raise_later(self, result);
    return list;
}

static PyObject *subscriber_take_batch(PyObject *object, PyObject *const *args, Py_ssize_t n_args,
                                       PyObject *keywords) {
    static const char *const names[] = { "n", "timeout" };
    struct subscriber *self = (struct subscriber *)object;
    PyObject *values[2] = { NULL, NULL };
    int64_t timeout_ns = self->timeout_ns;
    if (!take_arguments("take_batch", args, n_args, keywords, names, 2, 1, 2, values) ||
        (values[1] && !timeout_from(values[1], &timeout_ns)))
        return NULL;
    Py_ssize_t n = PyNumber_AsSsize_t(values[0], PyExc_OverflowError);
    if (n <= 0) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "a batch has 1 message or more");
        return NULL;
    }
    return take_batch(self, (size_t)n, timeout_ns);
}

/* ---- the other side, the descriptor */

static int wait_publishers(struct handle *handle, void *context, int64_t timeout_ns) {
    return shmps_subscriber_wait_publishers(((struct subscriber *)handle)->sub,
                                            *(const uint32_t *)context, timeout_ns);
}

static PyObject *subscriber_wait_publishers(PyObject *self, PyObject *const *args,
                                            Py_ssize_t n_args, PyObject *keywords) {
    return wait_for_others((struct handle *)self, "wait_publishers", args, n_args, keywords,
                           wait_publishers, "fewer publishers are open");
}

static int next_event(struct handle *handle, void *context, int64_t timeout_ns) {
    return shmps_subscriber_event(((struct subscriber *)handle)->sub, context, timeout_ns);
}

static PyObject *subscriber_event(PyObject *self, PyObject *const *args, Py_ssize_t n_args,
                                  PyObject *keywords) {
    return wait_for_event((struct handle *)self, args, n_args, keywords, next_event);
}

static PyObject *subscriber_fileno(PyObject *object, PyObject *none) {
    struct subscriber *self = (struct subscriber *)object;
    (void)none;
    if (!turn_take(&self->handle))
        return NULL;
    int fd = shmps_subscriber_fd(self->sub);
    return fd < 0 ? raise_result(fd, "a descriptor") : PyLong_FromLong(fd);
}

static PyObject *subscriber_stats(PyObject *object, PyObject *none) {
    struct subscriber *self = (struct subscriber *)object;
    struct shmps_subscriber_stats s = SHMPS_SUBSCRIBER_STATS_INIT;
    (void)none;
    if (!turn_take(&self->handle))
        return NULL;
    int result = shmps_subscriber_stats(self->sub, &s);
    if (result != 0)
        return raise_result(result, "statistics");
    return PyObject_CallFunction(
        SubscriberStats, "KKKKKIIII", (unsigned long long)s.received, (unsigned long long)s.lost,
        (unsigned long long)s.copied, (unsigned long long)s.sleeps,
        (unsigned long long)s.evictions, s.publishers, s.held, s.pins, s.topics);
}

static PyObject *subscriber_close_method(PyObject *self, PyObject *none) {
    (void)none;
    if (subscriber_close((struct handle *)self) != 0)
        return NULL;
    Py_RETURN_NONE;
}

/* ---- attributes, the type */

static PyObject *subscriber_filter(PyObject *self, void *none) {
    (void)none;
    PyObject *filter = ((struct subscriber *)self)->filter;
    Py_INCREF(filter);
    return filter;
}

static PyObject *subscriber_closed(PyObject *self, void *none) {
    (void)none;
    return PyBool_FromLong(((struct handle *)self)->closed);
}

static PyObject *subscriber_timeout(PyObject *self, void *none) {
    (void)none;
    int64_t timeout_ns = ((struct subscriber *)self)->timeout_ns;
    if (timeout_ns < 0)
        Py_RETURN_NONE;
    return PyFloat_FromDouble((double)timeout_ns / 1e9);
}

static int subscriber_set_timeout(PyObject *self, PyObject *value, void *none) {
    (void)none;
    int64_t timeout_ns;
    if (!value) {
        PyErr_SetString(PyExc_AttributeError, "a subscriber always has a timeout; None: for ever");
        return -1;
    }
    if (!timeout_from(value, &timeout_ns))
        return -1;
    ((struct subscriber *)self)->timeout_ns = timeout_ns;
    return 0;
}

static PyGetSetDef subscriber_attributes[] = {
    { "filter", subscriber_filter, NULL, "The topic or filter it was opened for.", NULL },
    { "closed", subscriber_closed, NULL, "Has it been closed?", NULL },
    { "timeout", subscriber_timeout, subscriber_set_timeout,
      "Seconds that take() and iterating wait for each message; None: for ever.", NULL },
    { 0 },
};

#define FAST (METH_FASTCALL | METH_KEYWORDS)
static PyMethodDef subscriber_methods[] = {
    { "take", (PyCFunction)(uintptr_t)subscriber_take, FAST,
      "take($self, /, timeout=...)\n--\n\nThe next message; Timeout, if none comes within "
      "self.timeout, or the one given here." },
    { "try_take", subscriber_try_take, METH_NOARGS,
      "try_take($self, /)\n--\n\nThe next message, or None if there is none now." },
    { "take_batch", (PyCFunction)(uintptr_t)subscriber_take_batch, FAST,
      "take_batch($self, /, n, timeout=...)\n--\n\nWait for one message, as take() does, and take "
      "up to n, at least one." },
    { "fileno", subscriber_fileno, METH_NOARGS,
      "fileno($self, /)\n--\n\nA descriptor that is readable while there may be something to "
      "take. Take until try_take() gives None before each wait. Never read, write or close it." },
    { "wait_publishers", (PyCFunction)(uintptr_t)subscriber_wait_publishers, FAST,
      "wait_publishers($self, /, n=1, timeout=None)\n--\n\nWait until at least n "
      "publishers are open on its topics, or raise Timeout." },
    { "event", (PyCFunction)(uintptr_t)subscriber_event, FAST,
      "event($self, /, timeout=None)\n--\n\nThe next publisher that has come or gone; those "
      "present at the first call come first. Timeout, if none does." },
    { "stats", subscriber_stats, METH_NOARGS,
      "stats($self, /)\n--\n\nCounts since it was opened." },
    { "close", subscriber_close_method, METH_NOARGS,
      "close($self, /)\n--\n\nUnsubscribe. Messages that are held stay as they are; who iterates "
      "in another thread comes to the end. May be called again." },
    { "__enter__", enter_self, METH_NOARGS, NULL },
    { "__exit__", exit_closing, METH_VARARGS, NULL },
    { 0 },
};

static const char subscriber_doc[] =
    "Subscriber(connection, filter, *, timeout=None, delivery='lossy', wait='default',\n"
    "           history=None, pins=0)\n--\n\n"
    "Receives what is published on the topics of a filter. timeout: how long take() and\n"
    "iterating wait for each message. history: begin with that many of the newest messages of\n"
    "each topic; None: as configured for the topic, 0: none.";

static PyType_Slot subscriber_slots[] = {
    { Py_tp_doc, (void *)(uintptr_t)subscriber_doc },
    { Py_tp_new, subscriber_new },
    { Py_tp_dealloc, subscriber_dealloc },
    { Py_tp_traverse, handle_traverse },
    { Py_tp_iter, PyObject_SelfIter },
    { Py_tp_iternext, subscriber_next },
    { Py_am_aiter, PyObject_SelfIter },
    { Py_am_anext, subscriber_anext },
    { Py_tp_methods, subscriber_methods },
    { Py_tp_getset, subscriber_attributes },
    { 0, NULL },
};

static PyType_Spec subscriber_spec = {
    .name = "shmps._native.Subscriber",
    .basicsize = sizeof(struct subscriber),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = subscriber_slots,
};

bool subscriber_init(PyObject *module) {
    SubscriberType = add_type(module, &subscriber_spec);
    return SubscriberType != NULL;
}
