/* message.c - see native.h.
 *
 * A small payload is copied into the message; a larger one stays where the library holds it, until
 * neither the message nor a view of it is there. */
#include "native.h"

#include <string.h>

#define SPARE_MAX 256

PyTypeObject *MessageType;
struct message *held_messages;

/* Freed messages, kept for the next ones as objects of their type: making one costs half. */
static struct message *spare;
static unsigned n_spare;

struct message *message_room(void) {
    struct message *self = spare;
    if (likely(self != NULL)) {
        spare = self->next;
        n_spare--;
        return self;
    }
    int collects = PyGC_Disable(); /* what it runs could close the subscriber amid a batch */
    self = PyObject_GC_New(struct message, MessageType);
    if (collects)
        PyGC_Enable();
    return self;
}

void message_give_back(struct message *self) {
    if (likely(n_spare < SPARE_MAX)) {
        self->next = spare;
        spare = self;
        n_spare++;
    } else {
        PyObject_GC_Del(self);
        Py_DECREF(OBJECT(MessageType));
    }
}

void message_free(struct message *self) {
    Py_CLEAR(self->topic);
    message_give_back(self);
}

static void message_dealloc(PyObject *object) {
    struct message *self = (struct message *)object;
    if (likely(!self->subscriber)) {
        message_free(self);
        return;
    }
    PyObject_GC_UnTrack(self);
    subscriber_let_go(self->subscriber, self);
}

/* One without a subscriber is never looked at: it refers to nothing. */
static int message_traverse(PyObject *object, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(((struct message *)object)->subscriber);
    return 0;
}

/* ---- making one */

static PyObject *topic_of(struct subscriber *subscriber, const char *name) {
    size_t at = ((uintptr_t)name >> 4) % TOPICS_KNOWN;
    if (unlikely(subscriber->topics[at].name != name)) {
        PyObject *string = PyUnicode_FromString(name);
        if (!string)
            return NULL;
        Py_XDECREF(subscriber->topics[at].string);
        subscriber->topics[at].name = name;
        subscriber->topics[at].string = string;
    }
    Py_INCREF(subscriber->topics[at].string);
    return subscriber->topics[at].string;
}

static void hold(struct message *self, struct subscriber *subscriber) {
    Py_INCREF(OBJECT(subscriber));
    self->subscriber = subscriber;
    subscriber->n_held++;
    self->previous = NULL;
    self->next = held_messages;
    if (self->next)
        self->next->previous = self;
    held_messages = self;
    PyObject_GC_Track(self);
}

void message_unhold(struct message *self) {
    self->subscriber->n_held--;
    if (self->next)
        self->next->previous = self->previous;
    if (self->previous)
        self->previous->next = self->next;
    else
        held_messages = self->next;
}

/* A small sample that was not expected: copy it, and release it. */
static void copy_small(struct message *self, struct subscriber *subscriber) {
    memcpy(self->small, self->sample.data, self->sample.bytes);
    shmps_release(subscriber->sub, &self->sample);
    self->sample.data = self->small;
}

PyObject *message_made(struct subscriber *subscriber, struct message *self) {
    PyObject *topic = topic_of(subscriber, self->sample.topic);
    if (unlikely(!topic)) { /* no memory: told as lost with the next one */
        subscriber->lost += self->sample.lost + 1;
        if (self->sample.data != self->small)
            shmps_release(subscriber->sub, &self->sample);
        message_give_back(self);
        return NULL;
    }
    Py_SET_REFCNT(OBJECT(self), 1);
    self->subscriber = NULL;
    self->topic = topic;
    if (unlikely(subscriber->lost != 0 || subscriber->flags != 0)) {
        self->sample.lost += subscriber->lost;
        self->sample.flags |= subscriber->flags;
        subscriber->lost = 0;
        subscriber->flags = 0;
    }
    if (unlikely(self->sample.bytes > SMALL_BYTES))
        hold(self, subscriber);
    else if (unlikely(self->sample.data != self->small))
        copy_small(self, subscriber);
    return OBJECT(self);
}

/* ---- the payload */

static int message_get_buffer(PyObject *object, Py_buffer *view, int flags) {
    struct message *self = (struct message *)object;
    return PyBuffer_FillInfo(view, object, (void *)(uintptr_t)self->sample.data,
                             (Py_ssize_t)self->sample.bytes, 1, flags);
}

static PyObject *message_copy(PyObject *object, PyObject *none) {
    struct message *self = (struct message *)object;
    (void)none;
    return PyBytes_FromStringAndSize(self->sample.data, (Py_ssize_t)self->sample.bytes);
}

static PyObject *message_as_numpy(PyObject *self, PyObject *args, PyObject *keywords) {
    static const char *const names[] = { "dtype", NULL };
    PyObject *dtype = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "|O:as_numpy", KEYWORDS(names), &dtype))
        return NULL;
    PyObject *numpy = PyImport_ImportModule("numpy");
    if (!numpy)
        return NULL;
    PyObject *type = dtype ? dtype : PyUnicode_FromString("u1");
    PyObject *array = type ? PyObject_CallMethodObjArgs(numpy, name_frombuffer, self, type, NULL)
                           : NULL;
    if (!dtype)
        Py_XDECREF(type);
    Py_DECREF(numpy);
    return array;
}

static Py_ssize_t message_length(PyObject *self) {
    return (Py_ssize_t)((struct message *)self)->sample.bytes;
}

/* An empty one is one, too: while (message := subscriber.try_take()) takes it. */
static int message_is_true(PyObject *self) {
    (void)self;
    return 1;
}

static PyObject *message_repr(PyObject *object) {
    struct message *self = (struct message *)object;
    return PyUnicode_FromFormat("<shmps.Message %U #%llu, %zd bytes>", self->topic,
                                (unsigned long long)self->sample.seq,
                                (Py_ssize_t)self->sample.bytes);
}

/* ---- attributes */

static PyObject *message_topic(PyObject *self, void *none) {
    (void)none;
    PyObject *topic = ((struct message *)self)->topic;
    Py_INCREF(topic);
    return topic;
}

/* closure: the offset of the number */
static PyObject *message_number(PyObject *self, void *offset) {
    uint64_t value;
    memcpy(&value, (const char *)self + (uintptr_t)offset, sizeof value);
    return PyLong_FromUnsignedLongLong(value);
}

/* closure: the flag */
static PyObject *message_flag(PyObject *self, void *flag) {
    return PyBool_FromLong((((struct message *)self)->sample.flags & (uintptr_t)flag) != 0);
}

static PyObject *message_pinned(PyObject *self, void *none) {
    (void)none;
    return PyBool_FromLong((((struct message *)self)->sample.flags & SHMPS_SAMPLE_COPIED) == 0);
}

static PyObject *message_payload(PyObject *self, void *none) {
    (void)none;
    return PyMemoryView_FromObject(self);
}

#define AT(field) (void *)(uintptr_t)offsetof(struct message, sample.field)
#define FLAG(flag) (void *)(uintptr_t)flag
static PyGetSetDef message_attributes[] = {
    { "topic", message_topic, NULL, "The topic it was published on.", NULL },
    { "payload", message_payload, NULL, "Its bytes: a read-only memoryview, not a copy.", NULL },
    { "seq", message_number, NULL, "0, 1, 2 ... of its publisher.", AT(seq) },
    { "time_ns", message_number, NULL,
      "time.monotonic_ns() at publishing; 0: timestamps are off.", AT(time_ns) },
    { "tag", message_number, NULL, "The publisher's own word.", AT(tag) },
    { "lost", message_number, NULL, "Messages lost since the previous one that was received.",
      AT(lost) },
    { "publisher", message_number, NULL, "Publisher.id of its publisher.", AT(publisher) },
    { "pinned", message_pinned, NULL,
      "False: it had to be copied, as no pin was left to hold it in the ring. True: it lies "
      "there, or is so small that it needs none.",
      NULL },
    { "history", message_flag, NULL, "Published before the subscriber was opened?",
      FLAG(SHMPS_SAMPLE_HISTORY) },
    { "evicted", message_flag, NULL,
      "The publisher goes on without this reliable subscriber, which has stalled it.",
      FLAG(SHMPS_SAMPLE_EVICTED) },
    { 0 },
};

static PyMethodDef message_methods[] = {
    { "copy", message_copy, METH_NOARGS,
      "copy($self, /)\n--\n\nThe payload as bytes of its own." },
    { "__bytes__", message_copy, METH_NOARGS, NULL },
    { "as_numpy", (PyCFunction)(uintptr_t)message_as_numpy, METH_VARARGS | METH_KEYWORDS,
      "as_numpy($self, /, dtype='u1')\n--\n\nA read-only array on the payload, no copy." },
    { 0 },
};

static const char message_doc[] =
    "A received message. Its bytes are there, and do not change, as long as the message or any\n"
    "view of it is: also after close().";

static PyType_Slot message_slots[] = {
    { Py_tp_doc, (void *)(uintptr_t)message_doc },
    { Py_tp_dealloc, message_dealloc },
    { Py_tp_traverse, message_traverse },
    { Py_tp_repr, message_repr },
    { Py_tp_methods, message_methods },
    { Py_tp_getset, message_attributes },
    { Py_sq_length, message_length },
    { Py_nb_bool, message_is_true },
    { Py_bf_getbuffer, message_get_buffer },
    { 0, NULL },
};

static PyType_Spec message_spec = {
    .name = "shmps._native.Message",
    .basicsize = sizeof(struct message),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_HAVE_GC,
    .slots = message_slots,
};

bool message_init(PyObject *module) {
    MessageType = add_type(module, &message_spec);
    return MessageType != NULL;
}
