/* publisher.c - see native.h. */
#include "native.h"

#include <string.h>

#define HEAVY_BYTES 32768 /* from here on a copy is made without the GIL */

static PyTypeObject *PublisherType;

/* ---- closing */

/* The library's handle goes; nobody else is in it. */
static void end_handle(struct publisher *self) {
    struct shmps_publisher *pub = self->pub;
    self->pub = NULL;
    Py_BEGIN_ALLOW_THREADS
    shmps_publisher_close(pub);
    Py_END_ALLOW_THREADS
    connection_unuse(self->handle.connection);
}

static int publisher_close(struct handle *handle) {
    struct publisher *self = (struct publisher *)handle;
    if (handle->closed)
        return 0;
    handle->closed = true;
    handle_unlist(handle);
    if (!turn_take_last(handle)) {
        handle_relist(handle);
        return RAISED;
    }
    if (self->loan) {
        self->loan->given_up = true;
        if (self->loan->views > 0)
            return 0; /* the end of its last view is that of the handle: publisher_discard() */
        loan_end(self->loan);
    }
    if (self->pub)
        end_handle(self);
    return 0;
}

static void publisher_catch_up(struct handle *handle) {
    struct publisher *self = (struct publisher *)handle;
    if (self->discard)
        publisher_discard(self);
}

void publisher_discard(struct publisher *self) {
    self->discard = self->handle.busy && self->handle.forks == forks;
    if (self->discard)
        return;
    if (self->handle.closed)
        end_handle(self);
    else
        shmps_discard(self->pub);
}

static const struct handle_kind kind = { publisher_close, publisher_catch_up };

/* ---- opening */

static PyObject *opened(struct publisher *self, int result) {
    struct shmps_publisher_stats stats = SHMPS_PUBLISHER_STATS_INIT;
    if (result == 0)
        result = shmps_publisher_stats(self->pub, &stats);
    self->id = stats.id;
    self->fits = stats.message_bytes;
    if (result != 0)
        raise_result(result, "opening");
    if (result == 0 && handle_enlist(&self->handle))
        return (PyObject *)self;
    Py_DECREF(OBJECT(self));
    return NULL;
}

static PyObject *publisher_open(struct publisher *self, PyObject *connection,
                                const struct shmps_publisher_options *options) {
    const char *topic = name_from(self->topic);
    if (!topic || !handle_init(&self->handle, connection, &kind) ||
        !connection_use(self->handle.connection)) {
        Py_DECREF(OBJECT(self));
        return NULL;
    }
    struct shmps *bus = self->handle.connection->bus;
    int result;
    Py_BEGIN_ALLOW_THREADS
    result = shmps_publisher_open(bus, topic, options, &self->pub);
    Py_END_ALLOW_THREADS
    if (result != 0) {
        self->pub = NULL;
        connection_unuse(self->handle.connection);
    }
    return opened(self, result);
}

static PyObject *publisher_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static const char *const names[] = { "connection", "topic", "depth",   "pins", "message_bytes",
                             "timestamps", "wait",  "history", NULL };
    static const char *const waits[] = { "default", "spin", "sleep" };
    struct shmps_publisher_options options = SHMPS_PUBLISHER_OPTIONS_INIT;
    PyObject *connection, *topic, *message_bytes = NULL;
    int timestamps = 1;
    long long depth = 0, pins = 0, history = 0;
    const char *wait = "default";
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OO|$LLOpsL:Publisher", KEYWORDS(names),
                                     &connection, &topic, &depth, &pins, &message_bytes,
                                     &timestamps, &wait, &history) ||
        !word_index("wait", wait, waits, LENGTH(waits), &options.wait) ||
        !fits_u32("depth", depth, &options.depth) || !fits_u32("pins", pins, &options.pins) ||
        !fits_u32("history", history, &options.history) ||
        (message_bytes && !u64_from(message_bytes, &options.message_bytes)))
        return NULL;
    options.timestamps = timestamps ? SHMPS_TIMESTAMPS_ON : SHMPS_TIMESTAMPS_OFF;
    struct publisher *self = (struct publisher *)PyType_GenericAlloc(type, 0);
    if (!self)
        return NULL;
    Py_INCREF(topic);
    self->topic = topic;
    return publisher_open(self, connection, &options);
}

static void publisher_dealloc(PyObject *object) {
    struct publisher *self = (struct publisher *)object;
    PyTypeObject *type = Py_TYPE(OBJECT(self));
    PyObject_GC_UnTrack(self);
    handle_unlist(&self->handle);
    if (self->pub)
        end_handle(self);
    handle_free(&self->handle);
    Py_CLEAR(self->topic);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(OBJECT(type));
}

/* ---- publishing */

struct one {
    const void *data;
    size_t bytes;
    uint64_t tag;
};

static int publish_one(struct handle *handle, void *context, int64_t timeout_ns) {
    const struct one *one = context;
    return shmps_publish(((struct publisher *)handle)->pub, one->data, one->bytes, one->tag,
                         timeout_ns);
}

static PyObject *published(int result) {
    if (likely(result == 0))
        Py_RETURN_NONE;
    return raise_result(result == SHMPS_TIMEOUT ? SHMPS_FULL : result,
                        "a reliable subscriber holds the publisher back");
}

/* A contiguous view of anything that has bytes. */
static bool view_of(PyObject *data, Py_buffer *ret) {
    if (unlikely(PyUnicode_Check(data))) {
        PyErr_SetString(PyExc_TypeError,
                        "a message is bytes or another buffer, not str: encode it, as "
                        "text.encode()");
        return false;
    }
    return PyObject_GetBuffer(data, ret, PyBUF_SIMPLE) == 0;
}

/* What needs a larger ring asks pubsubd for it, and waits for its answer. */
static int call_for_room(struct publisher *self, waiting_call call, void *context, size_t bytes,
                         int64_t timeout_ns, bool heavy) {
    bool grows = bytes > self->fits;
    int result = call_waiting(&self->handle, call, context, timeout_ns,
                              heavy || grows ? HEAVY : QUICK);
    if (unlikely(grows) && result == 0)
        self->fits = bytes;
    return result;
}

static bool is_free(const struct handle *handle) {
    return !handle->busy && handle->waiting == 0 && !handle->closed;
}

static PyObject *publish_view(struct publisher *self, const struct one *one, int64_t timeout_ns) {
    bool heavy = one->bytes >= HEAVY_BYTES;
    if (likely(!heavy && one->bytes <= self->fits && is_free(&self->handle))) {
        /* as call_waiting() begins */
        int result = shmps_publish(self->pub, one->data, one->bytes, one->tag, 0);
        if (likely(result <= 0 || timeout_ns == 0))
            return published(result);
    }
    return published(call_for_room(self, publish_one, (void *)(uintptr_t)one, one->bytes,
                                   timeout_ns, heavy));
}

static PyObject *publish(struct publisher *self, PyObject *data, uint64_t tag,
                         int64_t timeout_ns) {
    struct one one = { .tag = tag };
    Py_buffer view;
    if (likely(PyBytes_CheckExact(data))) { /* who calls holds it, and it does not change */
        one.data = PyBytes_AsString(data);
        one.bytes = (size_t)Py_SIZE(data);
        return publish_view(self, &one, timeout_ns);
    }
    if (!view_of(data, &view))
        return NULL;
    one.data = view.buf;
    one.bytes = (size_t)view.len;
    PyObject *result = publish_view(self, &one, timeout_ns);
    PyBuffer_Release(&view);
    return result;
}

static PyObject *publisher_publish(PyObject *self, PyObject *const *args, Py_ssize_t n_args,
                                   PyObject *keywords) {
    static const char *const names[] = { "data", "tag", "timeout" };
    PyObject *values[3] = { NULL, NULL, Py_None };
    uint64_t tag = 0;
    int64_t timeout_ns;
    if (likely(n_args == 1 && !keywords))
        return publish((struct publisher *)self, args[0], 0, SHMPS_FOREVER);
    if (!take_arguments("publish", args, n_args, keywords, names, 3, 1, 3, values) ||
        !timeout_from(values[2], &timeout_ns) || (values[1] && !u64_from(values[1], &tag)))
        return NULL;
    return publish((struct publisher *)self, values[0], tag, timeout_ns);
}

/* ---- batches */

struct batch {
    struct shmps_message *messages;
    size_t n, done;
    enum shmps_batch how;
};

static int publish_some(struct handle *handle, void *context, int64_t timeout_ns) {
    struct batch *batch = context;
    size_t done;
    int result = shmps_publish_batch(((struct publisher *)handle)->pub,
                                     batch->messages + batch->done, batch->n - batch->done,
                                     batch->how, timeout_ns, &done);
    batch->done += done;
    return result;
}

static PyObject *publish_batch(struct publisher *self, struct batch *batch, int64_t timeout_ns) {
    uint64_t deadline = timeout_ns > 0 ? now_ns() + (uint64_t)timeout_ns : 0;
    int result = 0;
    while (result == 0 && batch->done < batch->n) {
        int64_t left = timeout_ns;
        if (deadline != 0) {
            uint64_t now = now_ns();
            left = now < deadline ? (int64_t)(deadline - now) : 0;
        }
        result = call_waiting(&self->handle, publish_some, batch, left,
                              batch->how == SHMPS_EXACTLY ? HEAVY | APART : HEAVY);
    }
    if (result == RAISED || result < 0 || (result != 0 && batch->done == 0))
        return published(result);
    return PyLong_FromSize_t(batch->done);
}

/* Views of all of them; those made are released by the caller. */
static bool view_all(PyObject *list, Py_ssize_t n, Py_buffer *views,
                     struct shmps_message *messages, Py_ssize_t *ret_made) {
    for (Py_ssize_t i = 0; i < n; i++) {
        if (!view_of(PyTuple_GetItem(list, i), &views[i]))
            return false;
        *ret_made = i + 1;
        messages[i] = (struct shmps_message){ views[i].buf, (size_t)views[i].len, 0 };
    }
    return true;
}

static PyObject *publish_all(struct publisher *self, PyObject *list, enum shmps_batch how,
                             int64_t timeout_ns) {
    Py_ssize_t n = PyTuple_Size(list), made = 0;
    Py_buffer *views = PyMem_Calloc((size_t)n + 1, sizeof *views);
    struct batch batch = {
        .messages = PyMem_Calloc((size_t)n + 1, sizeof *batch.messages),
        .n = (size_t)n,
        .how = how,
    };
    PyObject *result = NULL;
    if (!views || !batch.messages)
        PyErr_NoMemory();
    else if (view_all(list, n, views, batch.messages, &made))
        result = publish_batch(self, &batch, timeout_ns);
    while (made > 0)
        PyBuffer_Release(&views[--made]);
    PyMem_Free(batch.messages);
    PyMem_Free(views);
    return result;
}

static PyObject *publisher_publish_batch(PyObject *self, PyObject *const *args, Py_ssize_t n_args,
                                         PyObject *keywords) {
    static const char *const names[] = { "messages", "exactly", "timeout" };
    PyObject *values[3] = { NULL, Py_False, Py_None };
    int64_t timeout_ns;
    if (!take_arguments("publish_batch", args, n_args, keywords, names, 3, 1, 1, values) ||
        !timeout_from(values[2], &timeout_ns))
        return NULL;
    int exactly = PyObject_IsTrue(values[1]);
    PyObject *list = exactly < 0 ? NULL : PySequence_Tuple(values[0]);
    if (!list)
        return NULL;
    PyObject *result = publish_all((struct publisher *)self, list,
                                   exactly ? SHMPS_EXACTLY : SHMPS_UP_TO, timeout_ns);
    Py_DECREF(list);
    return result;
}

/* ---- loans */

struct room {
    size_t bytes;
    void *data;
};

static int loan_room(struct handle *handle, void *context, int64_t timeout_ns) {
    struct room *room = context;
    return shmps_loan(((struct publisher *)handle)->pub, room->bytes, timeout_ns, &room->data);
}

static PyObject *publisher_loan(PyObject *object, PyObject *const *args, Py_ssize_t n_args,
                                PyObject *keywords) {
    static const char *const names[] = { "size", "tag", "timeout" };
    struct publisher *self = (struct publisher *)object;
    PyObject *values[3] = { NULL, NULL, Py_None };
    uint64_t tag = 0;
    int64_t timeout_ns;
    if (!take_arguments("loan", args, n_args, keywords, names, 3, 1, 1, values) ||
        !timeout_from(values[2], &timeout_ns) || (values[1] && !u64_from(values[1], &tag)))
        return NULL;
    Py_ssize_t bytes = PyNumber_AsSsize_t(values[0], PyExc_OverflowError);
    if (bytes < 0) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "a loan has 0 bytes or more");
        return NULL;
    }
    struct room room = { .bytes = (size_t)bytes };
    int result = call_for_room(self, loan_room, &room, room.bytes, timeout_ns, false);
    if (result != 0)
        return published(result);
    PyObject *loan = loan_new(self, room.data, bytes, tag);
    if (!loan)
        shmps_discard(self->pub);
    return loan;
}

/* ---- the other side */

static int wait_subscribers(struct handle *handle, void *context, int64_t timeout_ns) {
    return shmps_publisher_wait_subscribers(((struct publisher *)handle)->pub,
                                            *(const uint32_t *)context, timeout_ns);
}

static PyObject *publisher_wait_subscribers(PyObject *self, PyObject *const *args,
                                            Py_ssize_t n_args, PyObject *keywords) {
    return wait_for_others((struct handle *)self, "wait_subscribers", args, n_args, keywords,
                           wait_subscribers, "fewer subscribers are open");
}

static int next_event(struct handle *handle, void *context, int64_t timeout_ns) {
    return shmps_publisher_event(((struct publisher *)handle)->pub, context, timeout_ns);
}

static PyObject *publisher_event(PyObject *self, PyObject *const *args, Py_ssize_t n_args,
                                 PyObject *keywords) {
    return wait_for_event((struct handle *)self, args, n_args, keywords, next_event);
}

static PyObject *publisher_stats(PyObject *object, PyObject *none) {
    struct publisher *self = (struct publisher *)object;
    struct shmps_publisher_stats s = SHMPS_PUBLISHER_STATS_INIT;
    (void)none;
    if (!turn_take(&self->handle))
        return NULL;
    int result = shmps_publisher_stats(self->pub, &s);
    if (result != 0)
        return raise_result(result, "statistics");
    return PyObject_CallFunction(
        PublisherStats, "KKKKKIIK", (unsigned long long)s.messages, (unsigned long long)s.bytes,
        (unsigned long long)s.stalls, (unsigned long long)s.wakes,
        (unsigned long long)s.evictions, s.subscribers, s.depth,
        (unsigned long long)s.message_bytes);
}

static PyObject *publisher_close_method(PyObject *self, PyObject *none) {
    (void)none;
    if (publisher_close((struct handle *)self) != 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *publisher_topic(PyObject *self, void *none) {
    (void)none;
    PyObject *topic = ((struct publisher *)self)->topic;
    Py_INCREF(topic);
    return topic;
}

static PyObject *publisher_id(PyObject *self, void *none) {
    (void)none;
    return PyLong_FromUnsignedLongLong(((struct publisher *)self)->id);
}

static PyObject *publisher_closed(PyObject *self, void *none) {
    (void)none;
    return PyBool_FromLong(((struct handle *)self)->closed);
}

/* ---- the type */

static PyGetSetDef publisher_attributes[] = {
    { "topic", publisher_topic, NULL, "The topic it publishes on.", NULL },
    { "id", publisher_id, NULL, "Message.publisher of what it publishes.", NULL },
    { "closed", publisher_closed, NULL, "Has it been closed?", NULL },
    { 0 },
};

#define FAST (METH_FASTCALL | METH_KEYWORDS)
static PyMethodDef publisher_methods[] = {
    { "publish", (PyCFunction)(uintptr_t)publisher_publish, FAST,
      "publish($self, /, data, tag=0, timeout=None)\n--\n\nCopy a message into the ring. Waits "
      "only for reliable subscribers: raises Full when one has made no room within the "
      "timeout." },
    { "publish_batch", (PyCFunction)(uintptr_t)publisher_publish_batch, FAST,
      "publish_batch($self, /, messages, *, exactly=False, timeout=None)\n--\n\n"
      "Publish in order; returns how many: all, or those that there was room for within the "
      "timeout (Full, if none). exactly: all at once, or Full." },
    { "loan", (PyCFunction)(uintptr_t)publisher_loan, FAST,
      "loan($self, /, size, *, tag=0, timeout=None)\n--\n\nRoom in the ring, to be written in "
      "place: see Loan." },
    { "wait_subscribers", (PyCFunction)(uintptr_t)publisher_wait_subscribers, FAST,
      "wait_subscribers($self, /, n=1, timeout=None)\n--\n\nWait until at least n "
      "subscribers are open on the topic, or raise Timeout." },
    { "event", (PyCFunction)(uintptr_t)publisher_event, FAST,
      "event($self, /, timeout=None)\n--\n\nThe next subscriber that has come or gone; those "
      "present at the first call come first. Timeout, if none does." },
    { "stats", publisher_stats, METH_NOARGS,
      "stats($self, /)\n--\n\nCounts since it was opened." },
    { "close", publisher_close_method, METH_NOARGS,
      "close($self, /)\n--\n\nClose it; an open loan is discarded. May be called again." },
    { "__enter__", enter_self, METH_NOARGS, NULL },
    { "__exit__", exit_closing, METH_VARARGS, NULL },
    { 0 },
};

static const char publisher_doc[] =
    "Publisher(connection, topic, *, depth=0, pins=0, message_bytes=0, timestamps=True,\n"
    "          wait='default', history=0)\n--\n\n"
    "Publishes on one topic. Options as in struct shmps_publisher_options, 0: the default.\n"
    "history: the topic keeps at least that many of its newest messages for late subscribers,\n"
    "also after its publishers have gone.";

static PyType_Slot publisher_slots[] = {
    { Py_tp_doc, (void *)(uintptr_t)publisher_doc },
    { Py_tp_new, publisher_new },
    { Py_tp_dealloc, publisher_dealloc },
    { Py_tp_traverse, handle_traverse },
    { Py_tp_methods, publisher_methods },
    { Py_tp_getset, publisher_attributes },
    { 0, NULL },
};

static PyType_Spec publisher_spec = {
    .name = "shmps._native.Publisher",
    .basicsize = sizeof(struct publisher),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = publisher_slots,
};

bool publisher_init(PyObject *module) {
    PublisherType = add_type(module, &publisher_spec);
    return PublisherType != NULL;
}
