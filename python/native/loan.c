/* loan.c - see native.h.
 *
 * The library's loan is open as long as a view of it may still write: what is published does not
 * change any more. */
#include "native.h"

static PyTypeObject *LoanType;
struct loan *open_loans;

PyObject *loan_new(struct publisher *publisher, void *data, Py_ssize_t bytes, uint64_t tag) {
    struct loan *self = (struct loan *)PyType_GenericAlloc(LoanType, 0);
    if (!self)
        return NULL;
    Py_INCREF(OBJECT(publisher));
    self->publisher = publisher;
    self->data = data;
    self->bytes = self->size = bytes;
    self->tag = tag;
    publisher->loan = self;
    self->next = open_loans;
    if (self->next)
        self->next->previous = self;
    open_loans = self;
    return (PyObject *)self;
}

static void unlist(struct loan *self) {
    if (self->next)
        self->next->previous = self->previous;
    if (self->previous)
        self->previous->next = self->next;
    else
        open_loans = self->next;
}

static void end(struct loan *self, bool discard) {
    struct publisher *publisher = self->publisher;
    unlist(self);
    publisher->loan = NULL;
    self->publisher = NULL;
    if (discard)
        publisher_discard(publisher);
    Py_DECREF(OBJECT(publisher));
}

void loan_end(struct loan *self) {
    end(self, false);
}

/* Discard it, now or after its last view. */
static void give_up(struct loan *self) {
    self->given_up = true;
    if (self->publisher && self->views == 0)
        end(self, true);
}

static void loan_dealloc(PyObject *object) {
    struct loan *self = (struct loan *)object;
    PyTypeObject *type = Py_TYPE(OBJECT(self));
    give_up(self);
    Py_CLEAR(self->view);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(OBJECT(type));
}

/* ---- views */

static int loan_get_buffer(PyObject *object, Py_buffer *view, int flags) {
    struct loan *self = (struct loan *)object;
    view->obj = NULL;
    if (!self->publisher || self->given_up) {
        PyErr_SetString(PyExc_BufferError, "this loan has ended; take another one");
        return -1;
    }
    if (PyBuffer_FillInfo(view, object, self->data, self->bytes, 0, flags) < 0)
        return -1;
    self->views++;
    return 0;
}

static void loan_release_buffer(PyObject *object, Py_buffer *view) {
    struct loan *self = (struct loan *)object;
    (void)view;
    self->views--;
    if (self->given_up)
        give_up(self);
}

/* ---- with */

static PyObject *loan_enter(PyObject *object, PyObject *none) {
    struct loan *self = (struct loan *)object;
    (void)none;
    if (self->view) {
        PyErr_SetString(PyExc_RuntimeError, "a loan is entered once");
        return NULL;
    }
    PyObject *view = PyMemoryView_FromObject(object);
    self->view = view ? PyWeakref_NewRef(view, NULL) : NULL;
    if (!self->view)
        Py_CLEAR(view);
    return view;
}

static bool release_view(struct loan *self) {
    PyObject *view = self->view ? PyObject_CallNoArgs(self->view) : NULL;
    PyObject *done = view && view != Py_None
                         ? PyObject_CallMethodObjArgs(view, name_release, NULL)
                         : NULL;
    if (!done)
        PyErr_Clear(); /* BufferError: it is told by the count of views */
    Py_XDECREF(done);
    Py_XDECREF(view);
    return self->views == 0;
}

static PyObject *ended(void) {
    return raise_result(CLOSED_HERE, "the publisher, and the loan with it");
}

static PyObject *still_seen(void) {
    PyErr_SetString(PyExc_BufferError,
                    "a view of the loan is still alive, and could change what is published: "
                    "delete it (also numpy arrays on it) before the `with` block ends; nothing "
                    "was published");
    return NULL;
}

static PyObject *publish_now(struct loan *self) {
    if (!self->publisher) /* while it waited for its turn */
        return ended();
    if (self->views > 0 || self->given_up) {
        give_up(self);
        return still_seen();
    }
    int result = shmps_publish_loan(self->publisher->pub, (size_t)self->size, self->tag);
    if (result != 0) {
        raise_result(result, "publishing a loan");
        give_up(self);
        return NULL;
    }
    loan_end(self);
    Py_RETURN_NONE;
}

static PyObject *publish(struct loan *self) {
    struct publisher *publisher = self->publisher;
    PyObject *done = NULL;
    Py_INCREF(OBJECT(publisher));
    if (turn_take(&publisher->handle))
        done = publish_now(self);
    else
        give_up(self);
    Py_DECREF(OBJECT(publisher));
    return done;
}

static PyObject *loan_exit(PyObject *object, PyObject *const *args, Py_ssize_t n_args) {
    struct loan *self = (struct loan *)object;
    bool failed = n_args > 0 && args[0] != Py_None;
    if (!self->publisher) {
        if (failed)
            Py_RETURN_NONE;
        return ended();
    }
    bool alone = release_view(self);
    if (alone && !failed && !self->given_up)
        return publish(self);
    give_up(self);
    if (failed)
        Py_RETURN_NONE;
    return still_seen();
}

/* ---- attributes */

static PyObject *loan_size(PyObject *self, void *none) {
    (void)none;
    return PyLong_FromSsize_t(((struct loan *)self)->size);
}

static int loan_set_size(PyObject *object, PyObject *value, void *none) {
    struct loan *self = (struct loan *)object;
    (void)none;
    Py_ssize_t size = value ? PyNumber_AsSsize_t(value, PyExc_OverflowError) : -1;
    if (size >= 0 && size <= self->bytes) {
        self->size = size;
        return 0;
    }
    if (!PyErr_Occurred())
        PyErr_Format(PyExc_ValueError, "the size may be 0 to %zd, what was loaned", self->bytes);
    return -1;
}

static PyObject *loan_tag(PyObject *self, void *none) {
    (void)none;
    return PyLong_FromUnsignedLongLong(((struct loan *)self)->tag);
}

static int loan_set_tag(PyObject *self, PyObject *value, void *none) {
    (void)none;
    if (!value) {
        PyErr_SetString(PyExc_AttributeError, "a loan always has a tag");
        return -1;
    }
    return u64_from(value, &((struct loan *)self)->tag) ? 0 : -1;
}

static PyGetSetDef loan_attributes[] = {
    { "size", loan_size, loan_set_size, "Bytes to publish, up to what was loaned.", NULL },
    { "tag", loan_tag, loan_set_tag, "The user's own word, carried along.", NULL },
    { 0 },
};

static PyMethodDef loan_methods[] = {
    { "__enter__", loan_enter, METH_NOARGS, NULL },
    { "__exit__", (PyCFunction)(uintptr_t)loan_exit, METH_FASTCALL, NULL },
    { 0 },
};

static const char loan_doc[] =
    "Room in the ring, to be written in place:\n\n"
    "    with publisher.loan(size) as view: ...\n\n"
    "publishes at the end of the block, and discards after an exception. Every view of it must\n"
    "have gone by then (BufferError, and nothing is published): what is published does not\n"
    "change any more.";

static PyType_Slot loan_slots[] = {
    { Py_tp_doc, (void *)(uintptr_t)loan_doc },
    { Py_tp_dealloc, loan_dealloc },
    { Py_tp_methods, loan_methods },
    { Py_tp_getset, loan_attributes },
    { Py_bf_getbuffer, loan_get_buffer },
    { Py_bf_releasebuffer, loan_release_buffer },
    { 0, NULL },
};

static PyType_Spec loan_spec = {
    .name = "shmps._native.Loan",
    .basicsize = sizeof(struct loan),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = loan_slots,
};

bool loan_init(PyObject *module) {
    LoanType = add_type(module, &loan_spec);
    return LoanType != NULL;
}
