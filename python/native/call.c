/* call.c - see native.h. */
#include "native.h"

#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define SLICE_NS INT64_C(100000000)
#define SHORT_NS INT64_C(2000000) /* while others want their turn */
#define OUTCOMES 8
#define ERRORS 32

PyObject *PublisherStats, *SubscriberStats, *Event;
PyObject *name_close, *name_release, *name_frombuffer;
static PyObject *outcomes[OUTCOMES], *errors[ERRORS]; /* exceptions by code and by -code */

/* ---- errors */

static bool know_error(PyObject *by_code, int code, PyObject **ret) {
    PyObject *key = PyLong_FromLong(code);
    PyObject *kind = key ? PyDict_GetItemWithError(by_code, key) : NULL;
    Py_XDECREF(key);
    Py_XINCREF(kind);
    *ret = kind;
    return !PyErr_Occurred();
}

static bool know_errors(void) {
    PyObject *module = PyImport_ImportModule("shmps.errors");
    PyObject *by_code = module ? PyObject_GetAttrString(module, "BY_CODE") : NULL;
    bool known = by_code != NULL;
    for (int i = 1; known && i < ERRORS; i++)
        known = know_error(by_code, -i, &errors[i]) &&
                (i >= OUTCOMES || know_error(by_code, i, &outcomes[i]));
    Py_XDECREF(by_code);
    Py_XDECREF(module);
    return known;
}

bool call_init(void) {
    PyObject *records = PyImport_ImportModule("shmps.records");
    if (!records)
        return false;
    PublisherStats = PyObject_GetAttrString(records, "PublisherStats");
    SubscriberStats = PyObject_GetAttrString(records, "SubscriberStats");
    Event = PyObject_GetAttrString(records, "Event");
    Py_DECREF(records);
    name_close = PyUnicode_InternFromString("close");
    name_release = PyUnicode_InternFromString("release");
    name_frombuffer = PyUnicode_InternFromString("frombuffer");
    return PublisherStats && SubscriberStats && Event && name_close && name_release &&
           name_frombuffer && know_errors();
}

/* What is cut off, or comes from the environment, need not be UTF-8. */
static void raise_detail(PyObject *kind) {
    const char *detail = shmps_error_detail();
    PyObject *text = PyUnicode_DecodeUTF8(detail, (Py_ssize_t)strlen(detail), "replace");
    if (text)
        PyErr_SetObject(kind, text);
    Py_XDECREF(text);
}

PyObject *raise_result(int result, const char *what) {
    if (result == RAISED)
        return NULL;
    if (result == CLOSED_HERE) {
        PyErr_SetString(errors[-SHMPS_E_CLOSED], "it has been closed; open a new one");
        return NULL;
    }
    PyObject *kind = PyExc_RuntimeError;
    if (result < 0 && -result < ERRORS && errors[-result])
        kind = errors[-result];
    else if (result > 0 && result < OUTCOMES && outcomes[result])
        kind = outcomes[result];
    else if (result == SHMPS_EMPTY)
        kind = outcomes[SHMPS_TIMEOUT];
    if (result < 0)
        raise_detail(kind);
    else
        PyErr_Format(kind, "the time is over: %s", what);
    return NULL;
}

/* ---- arguments */

bool timeout_from(PyObject *seconds, int64_t *ret) {
    *ret = SHMPS_FOREVER;
    if (seconds == Py_None)
        return true;
    int overflow;
    if (PyLong_CheckExact(seconds) && PyLong_AsLongAndOverflow(seconds, &overflow) == 0) {
        *ret = 0; /* so often that it has a way of its own */
        return true;
    }
    double value = PyFloat_AsDouble(seconds);
    if (value == -1.0 && PyErr_Occurred())
        return false;
    if (!(value >= 0)) {
        PyErr_SetString(PyExc_ValueError,
                        "a timeout is a number of seconds from 0 on, or None: wait for ever");
        return false;
    }
    if (value < 9e9) /* else longer than ns can tell in 63 bits */
        *ret = (int64_t)ceil(value * 1e9);
    return true;
}

static int index_of(PyObject *name, const char *const names[], int n) {
    for (int i = 0; i < n; i++) {
        if (PyUnicode_CompareWithASCIIString(name, names[i]) == 0)
            return i;
    }
    return -1;
}

bool take_arguments(const char *function, PyObject *const *args, Py_ssize_t n_args,
                    PyObject *keywords, const char *const names[], int n, int required,
                    int keyword_only, PyObject *values[]) {
    PyObject *given[8] = { NULL };
    if (likely(!keywords && n_args >= required && n_args <= keyword_only)) {
        for (Py_ssize_t i = 0; i < n_args; i++)
            values[i] = args[i];
        return true;
    }
    if (n_args > keyword_only) {
        PyErr_Format(PyExc_TypeError, "%s() takes %d positional arguments, not %zd", function,
                     keyword_only, n_args);
        return false;
    }
    for (Py_ssize_t i = 0; i < n_args; i++)
        given[i] = args[i];
    Py_ssize_t n_keywords = keywords ? PyTuple_Size(keywords) : 0;
    for (Py_ssize_t i = 0; i < n_keywords; i++) {
        PyObject *name = PyTuple_GetItem(keywords, i);
        int k = index_of(name, names, n);
        if (k < 0 || given[k]) {
            PyErr_Format(PyExc_TypeError,
                         k < 0 ? "%s() has no argument '%U'" : "%s() was given '%U' twice",
                         function, name);
            return false;
        }
        given[k] = args[n_args + i];
    }
    for (int i = 0; i < n; i++) {
        if (given[i])
            values[i] = given[i];
        else if (i < required) {
            PyErr_Format(PyExc_TypeError, "%s() needs '%s'", function, names[i]);
            return false;
        }
    }
    return true;
}

bool word_index(const char *what, const char *word, const char *const words[], int n, int *ret) {
    char all[128] = "";
    for (int i = 0; i < n; i++) {
        if (strcmp(word, words[i]) == 0) {
            *ret = i;
            return true;
        }
        size_t length = strlen(all);
        snprintf(all + length, sizeof all - length, "%s'%s'", i > 0 ? ", " : "", words[i]);
    }
    PyErr_Format(PyExc_ValueError, "%s is one of %s, not '%s'", what, all, word);
    return false;
}

const char *name_from(PyObject *object) {
    Py_ssize_t bytes;
    if (!PyUnicode_Check(object)) {
        PyErr_SetString(PyExc_TypeError, "a topic or filter is a str");
        return NULL;
    }
    const char *name = PyUnicode_AsUTF8AndSize(object, &bytes);
    if (name && strlen(name) != (size_t)bytes) {
        PyErr_SetString(PyExc_ValueError, "a topic or filter has no null character in it");
        return NULL;
    }
    return name;
}

bool u64_from(PyObject *object, uint64_t *ret) {
    PyObject *number = PyNumber_Index(object);
    if (!number)
        return false;
    uint64_t value = PyLong_AsUnsignedLongLong(number);
    Py_DECREF(number);
    if (value == UINT64_MAX && PyErr_Occurred())
        return false;
    *ret = value;
    return true;
}

bool fits_u32(const char *what, long long value, uint32_t *ret) {
    *ret = (uint32_t)value;
    if (value >= 0 && value < UINT32_MAX)
        return true;
    PyErr_Format(PyExc_ValueError, "%s may be 0 to 4294967294, not %lld", what, value);
    return false;
}

/* ---- waiting */

static int64_t left_of(uint64_t deadline_ns) {
    if (deadline_ns == UINT64_MAX)
        return SLICE_NS;
    int64_t left = (int64_t)(deadline_ns - now_ns());
    return left < SLICE_NS ? left : SLICE_NS;
}

static uint64_t deadline_of(int64_t timeout_ns) {
    return timeout_ns < 0 ? UINT64_MAX : now_ns() + (uint64_t)timeout_ns;
}

/* A forked child's other threads are gone, whatever they were in. */
static bool is_busy(const struct handle *handle) {
    return handle->busy && handle->forks == forks;
}

/* Has the thread that is in a slice found nothing of what is wanted here, too, and the time for it
 * is over? Then there is no need to look. Else a slice soon ends. */
static bool in_vain(const struct handle *handle, uint64_t deadline_ns, unsigned how) {
    return handle->sleeps && !(how & APART) && now_ns() >= deadline_ns;
}

/* As the interpreter ends, daemon threads never come back from a slice. */
static bool interpreter_ends(void) {
    PyObject *is_finalizing = PySys_GetObject("is_finalizing");
    PyObject *answer = is_finalizing ? PyObject_CallNoArgs(is_finalizing) : NULL;
    bool ends = answer != Py_False;
    if (!answer)
        PyErr_Clear();
    Py_XDECREF(answer);
    return ends;
}

static int turn_wait(struct handle *handle, uint64_t deadline_ns, unsigned how) {
    while (is_busy(handle)) {
        if (in_vain(handle, deadline_ns, how))
            return SHMPS_TIMEOUT;
        int64_t left = left_of(deadline_ns);
        if (left <= 0)
            left = SLICE_NS;
        PyLockStatus slice;
        handle->waiting++;
        Py_BEGIN_ALLOW_THREADS
        slice = PyThread_acquire_lock_timed(handle->lock, left / 1000 + 1, 0);
        if (slice == PY_LOCK_ACQUIRED)
            PyThread_release_lock(handle->lock);
        Py_END_ALLOW_THREADS
        handle->waiting--;
        if (slice == PY_LOCK_ACQUIRED && is_busy(handle) && interpreter_ends())
            handle->busy = false;
        if (PyErr_CheckSignals() < 0)
            return RAISED;
    }
    return 0;
}

bool turn_take_last(struct handle *handle) {
    return !is_busy(handle) || turn_wait(handle, UINT64_MAX, 0) == 0;
}

bool turn_take(struct handle *handle) {
    if (!turn_take_last(handle))
        return false;
    if (handle->closed)
        raise_result(CLOSED_HERE, "by close()");
    return !handle->closed;
}

static bool over(int result) {
    return result != SHMPS_EMPTY && result != SHMPS_FULL && result != SHMPS_TIMEOUT;
}

/* Let others in between two slices, who wait for their turn. */
static void give_way(struct handle *handle) {
    if (handle->waiting == 0)
        return;
    struct timespec moment = { .tv_nsec = 50000 };
    Py_BEGIN_ALLOW_THREADS
    nanosleep(&moment, NULL);
    Py_END_ALLOW_THREADS
}

void slice_begin(struct handle *handle) {
    if (handle->forks == forks)
        PyThread_acquire_lock(handle->lock, WAIT_LOCK);
}

void slice_end(struct handle *handle) {
    if (handle->forks == forks)
        PyThread_release_lock(handle->lock);
}

static int slice(struct handle *handle, waiting_call call, void *context, int64_t timeout_ns,
                 bool sleeps) {
    int result;
    handle->busy = true;
    handle->sleeps = sleeps;
    Py_BEGIN_ALLOW_THREADS
    slice_begin(handle);
    result = call(handle, context, timeout_ns);
    slice_end(handle);
    Py_END_ALLOW_THREADS
    handle->busy = false;
    handle->kind->catch_up(handle);
    return result;
}

int call_waiting(struct handle *handle, waiting_call call, void *context, int64_t timeout_ns,
                 unsigned how) {
    uint64_t deadline = 0;
    int64_t longest = SLICE_NS;
    if (unlikely(handle->waiting > 0) && !is_busy(handle))
        give_way(handle); /* they have been here before */
    for (bool first = true;; first = false) {
        if (unlikely(is_busy(handle))) {
            if (deadline == 0)
                deadline = deadline_of(timeout_ns);
            int turn = turn_wait(handle, deadline, how);
            if (turn != 0)
                return turn;
        }
        if (unlikely(handle->closed))
            return CLOSED_HERE;
        if (first) {
            int result = how & HEAVY ? slice(handle, call, context, 0, false)
                                     : call(handle, context, 0);
            if (over(result) || timeout_ns == 0)
                return result;
            if (how & HEAVY)
                continue; /* a slice has passed: others may be in, or have closed it */
        }
        if (deadline == 0)
            deadline = deadline_of(timeout_ns);
        int64_t left = left_of(deadline);
        if (left > longest)
            left = longest;
        int result = slice(handle, call, context, left > 0 ? left : 0, !(how & APART));
        if (over(result) || left <= 0)
            return result;
        if (PyErr_CheckSignals() < 0)
            return RAISED;
        longest = handle->waiting > 0 ? SHORT_NS : longest < SLICE_NS ? 2 * longest : SLICE_NS;
        give_way(handle);
    }
}

/* ---- the other side */

PyObject *wait_for_others(struct handle *handle, const char *name, PyObject *const *args,
                          Py_ssize_t n_args, PyObject *keywords, waiting_call call,
                          const char *what) {
    static const char *const names[] = { "n", "timeout" };
    PyObject *values[2] = { NULL, Py_None };
    int64_t timeout_ns;
    uint32_t n = 1;
    if (!take_arguments(name, args, n_args, keywords, names, 2, 0, 2, values) ||
        !timeout_from(values[1], &timeout_ns))
        return NULL;
    if (values[0]) {
        long long value = PyLong_AsLongLong(values[0]);
        if ((value == -1 && PyErr_Occurred()) || !fits_u32("n", value, &n))
            return NULL;
    }
    int result = call_waiting(handle, call, &n, timeout_ns, APART);
    if (result != 0)
        return raise_result(result, what);
    Py_RETURN_NONE;
}

PyObject *wait_for_event(struct handle *handle, PyObject *const *args, Py_ssize_t n_args,
                         PyObject *keywords, waiting_call call) {
    static const char *const names[] = { "timeout" };
    static const char *const kinds[] = {
        [0] = "?",
        [SHMPS_PUBLISHER_JOINED] = "publisher joined",
        [SHMPS_PUBLISHER_LEFT] = "publisher left",
        [SHMPS_SUBSCRIBER_JOINED] = "subscriber joined",
        [SHMPS_SUBSCRIBER_LEFT] = "subscriber left",
    };
    PyObject *values[1] = { Py_None };
    int64_t timeout_ns;
    struct shmps_event event;
    if (!take_arguments("event", args, n_args, keywords, names, 1, 0, 1, values) ||
        !timeout_from(values[0], &timeout_ns))
        return NULL;
    int result = call_waiting(handle, call, &event, timeout_ns, APART);
    if (result != 0)
        return raise_result(result, "nobody has come or gone");
    unsigned index = (unsigned)event.kind < LENGTH(kinds) ? (unsigned)event.kind : 0;
    return PyObject_CallFunction(Event, "siKs", kinds[index], (int)event.pid,
                                 (unsigned long long)event.id, event.topic);
}

/* ---- types */

PyTypeObject *add_type(PyObject *module, PyType_Spec *spec) {
    PyTypeObject *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    if (type && PyModule_AddType(module, type) < 0) {
        Py_DECREF(OBJECT(type));
        return NULL;
    }
    return type;
}

PyObject *enter_self(PyObject *self, PyObject *none) {
    (void)none;
    Py_INCREF(OBJECT(self));
    return self;
}

PyObject *exit_closing(PyObject *self, PyObject *args) {
    (void)args;
    return PyObject_CallMethodObjArgs(self, name_close, NULL);
}
