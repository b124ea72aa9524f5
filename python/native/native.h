/* native.h - the extension shmps._native: objects of Python around the handles of libshmps.
 *
 *     module.c      what is in it; functions on names
 *     call.c        arguments, times, errors; waiting without the interpreter's lock
 *     connection.c  Connection
 *     publisher.c   Publisher; loan.c: Loan
 *     subscriber.c  Subscriber; next.c: what `async for` awaits
 *     message.c     Message, and what keeps its bytes
 *     fork.c        what a forked child still sees of its parent's messages and loans
 *
 * Everything here is guarded by the interpreter's lock (GIL), which is let go only in a call of
 * the library that may wait or copies much: `busy` tells that a thread is in such a call, and all
 * others stay away from the library's handle until it is done. Such a call is cut into slices of
 * 100 ms, as the library's own sleeps are, so that Ctrl-C, close() and messages let go of
 * meanwhile are seen to; into shorter ones while others want their turn.
 *
 * Only the stable ABI of CPython 3.11 is used; the module has one state for the process. */
#ifndef SHMPS_PYTHON_NATIVE_H
#define SHMPS_PYTHON_NATIVE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <shmps/shmps.h>
#include <stdbool.h>
#include <time.h>

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define OBJECT(pointer) ((PyObject *)(pointer))
#define KEYWORDS(names) ((char **)(uintptr_t)(names)) /* as PyArg_ParseTupleAndKeywords wants it */
#define LENGTH(array) (sizeof(array) / sizeof *(array))

/* ---- call.c */

/* errors.BY_CODE and the tuples of shmps.records; false with an exception set. */
bool call_init(void);
extern PyObject *PublisherStats, *SubscriberStats, *Event;
/* Names of methods. One object each: Python's cache of methods goes by the name's address, and
 * keeps what it has seen. */
extern PyObject *name_close, *name_release, *name_frombuffer;

/* Results of waiting besides those of the library: an exception is set; close() was called. */
#define RAISED INT32_MIN
#define CLOSED_HERE (INT32_MIN + 1)

/* Raise the exception of a result of the library, with its detail; outcomes are told by `what`,
 * for which the caller waited. Returns NULL. */
PyObject *raise_result(int result, const char *what);

/* Seconds or None -> ns. False with an exception set. */
bool timeout_from(PyObject *seconds, int64_t *ret);

/* Arguments of a METH_FASTCALL | METH_KEYWORDS method: values[i] is the one of names[i], or stays.
 * The first `required` must be given, from `keyword_only` on only by name. False: exception. */
bool take_arguments(const char *function, PyObject *const *args, Py_ssize_t n_args,
                    PyObject *keywords, const char *const names[], int n, int required,
                    int keyword_only, PyObject *values[]);

/* A topic or filter; NULL with an exception set. Valid as long as the object is. */
const char *name_from(PyObject *object);
/* An option's number as the library's; false with an exception set. */
bool fits_u32(const char *what, long long value, uint32_t *ret);
/* An int, or what stands for one (numpy's), of 64 bits; false with an exception set. */
bool u64_from(PyObject *object, uint64_t *ret);
/* One of the words, as its index; false with an exception set. */
bool word_index(const char *what, const char *word, const char *const words[], int n, int *ret);

struct handle;
struct handle_kind {
    int (*close)(struct handle *);     /* close(): 0 or RAISED. Unlists it first */
    void (*catch_up)(struct handle *); /* with what was put off while a thread was busy */
};

/* What Publisher and Subscriber begin with. */
struct handle {
    PyObject_HEAD
    struct connection *connection;
    struct handle *next, *previous; /* of those open on the connection; NULL: not in it */
    const struct handle_kind *kind;
    PyThread_type_lock lock;        /* held during a slice, for those who wait for their turn */
    unsigned forks;                 /* of the process that opened it */
    unsigned waiting;               /* threads that wait for their turn */
    bool busy;                      /* a thread is in a slice */
    bool sleeps;                    /* there it waits for the next, and none was there before */
    bool closed;                    /* close() was called: it is not used any more */
};

/* One call of the library on a handle, 0 <= timeout_ns. */
typedef int (*waiting_call)(struct handle *handle, void *context, int64_t timeout_ns);
/* How to make it. */
#define QUICK 0U /* it takes a moment only, unless it waits */
#define HEAVY 1U /* not even then */
#define APART 2U /* it waits for something else than those who take the next, or publish one */
/* Make the call in turn, and wait in slices. Returns what it said at last, or RAISED. It is made
 * once at least, unless who has the turn waits for the same, and the time is over. */
int call_waiting(struct handle *handle, waiting_call call, void *context, int64_t timeout_ns,
                 unsigned how);
/* Wait until no other thread is in a slice. True: the handle may be used until the GIL is let go.
 * False: exception set (closed, or a signal's handler has raised). */
bool turn_take(struct handle *handle);
/* The same to close it: it may be closed already. */
bool turn_take_last(struct handle *handle);

/* Around what is done without the GIL while `busy`, for those who wait for their turn. In a forked
 * child, a thread that it has not may have the lock: there it means nothing. */
void slice_begin(struct handle *handle);
void slice_end(struct handle *handle);

/* Methods that publishers and subscribers share: name(n=1, timeout=None) waits until there are n
 * on the other side; event(timeout=None) for the next that comes or goes. */
PyObject *wait_for_others(struct handle *handle, const char *name, PyObject *const *args,
                          Py_ssize_t n_args, PyObject *keywords, waiting_call call,
                          const char *what);
PyObject *wait_for_event(struct handle *handle, PyObject *const *args, Py_ssize_t n_args,
                         PyObject *keywords, waiting_call call);

static inline uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* A new instance of a type that is created with its specification; NULL with an exception set. */
PyTypeObject *add_type(PyObject *module, PyType_Spec *spec);
/* __enter__ and __exit__ of what has close(). */
PyObject *enter_self(PyObject *self, PyObject *none);
PyObject *exit_closing(PyObject *self, PyObject *args);

/* ---- connection.c */

struct connection {
    PyObject_HEAD
    struct shmps *bus;     /* NULL: closed */
    struct handle handles; /* those open: a ring of `next` and `previous` */
    PyObject *instance;
    unsigned users;        /* calls under way and handles of the library that are still open */
    bool closed;
};
extern PyTypeObject *ConnectionType;
bool connection_init(PyObject *module);
/* Begin and end a use of `bus`. False: closed, exception set. */
bool connection_use(struct connection *connection);
void connection_unuse(struct connection *connection);

/* Set up a handle that is to be opened on a connection; false with an exception set. */
bool handle_init(struct handle *handle, PyObject *connection, const struct handle_kind *kind);
/* It has been opened: the connection closes it; or the connection has been closed meanwhile: false
 * with an exception set, and nothing is enlisted. */
bool handle_enlist(struct handle *handle);
void handle_unlist(struct handle *handle);
/* It could not be closed: as it was. */
void handle_relist(struct handle *handle);
/* The end of an object: its lock and its reference to the connection. */
void handle_free(struct handle *handle);
int handle_traverse(struct handle *handle, visitproc visit, void *arg);

/* ---- publisher.c, loan.c */

struct loan;
struct publisher {
    struct handle handle;
    struct shmps_publisher *pub; /* NULL: closed */
    PyObject *topic;
    uint64_t id;
    uint64_t fits;               /* a message so large needs no larger ring */
    struct loan *loan;           /* the open one, which refers to this */
    bool discard;                /* the open loan has been given up while a thread was busy */
};
bool publisher_init(PyObject *module);
/* Its open loan has been given up, and no view of it is left. */
void publisher_discard(struct publisher *publisher);

struct loan {
    PyObject_HEAD
    struct publisher *publisher; /* NULL: it has ended */
    void *data;
    Py_ssize_t bytes;            /* loaned */
    Py_ssize_t size;             /* to be published */
    uint64_t tag;
    Py_ssize_t views;            /* that are alive */
    PyObject *view;              /* a weak reference to what __enter__ gave out, which refers to
                                    the loan: whoever never leaves it lets it go all the same */
    bool given_up;               /* discarded as soon as no view is alive */
    struct loan *next, *previous; /* of `open_loans` */
};
extern struct loan *open_loans;  /* those with a publisher */
bool loan_init(PyObject *module);
PyObject *loan_new(struct publisher *publisher, void *data, Py_ssize_t bytes, uint64_t tag);
/* The publisher closes, and the loan with it. */
void loan_end(struct loan *loan);

/* ---- subscriber.c, next.c, message.c, fork.c */

#define TOPICS_KNOWN 64
#define SMALL_BYTES 256 /* up to here a payload is copied into the message: cheaper than a pin */

struct message;
struct subscriber {
    struct handle handle;
    struct shmps_subscriber *sub; /* NULL: closed */
    struct shmps_kept *kept;      /* what messages still held then */
    PyObject *filter;
    int64_t timeout_ns;
    uint64_t lost;                /* not told with a message yet */
    uint32_t flags;               /* likewise */
    PyObject *pending;            /* the error that ended a batch: raised by the next call */
    unsigned turns;               /* messages that `async for` had without a wait */
    bool large;                   /* the last message was: take the next where it lies */
    unsigned n_held;              /* messages whose bytes the library keeps */
    struct message *let_go;       /* freed while a thread was busy: to be released */
    struct {                      /* names of topics as Python's, by the library's pointer */
        const char *name;
        PyObject *string;
    } topics[TOPICS_KNOWN];
};
bool subscriber_init(PyObject *module);
/* PYGEN_RETURN: the next message; PYGEN_NEXT: there is none now, or it is closed; PYGEN_ERROR: an
 * exception is set. */
PySendResult subscriber_take_now(struct subscriber *subscriber, PyObject **ret);
/* A message that the library keeps the bytes of is no longer needed. */
void subscriber_let_go(struct subscriber *subscriber, struct message *message);

/* __anext__(): what is to be awaited for the next message. */
PyObject *subscriber_anext(PyObject *subscriber);
bool next_init(PyObject *module);

struct message {
    PyObject_HEAD
    struct subscriber *subscriber; /* NULL: the bytes are in `small` */
    struct message *next, *previous; /* of `held_messages`; `next` of `let_go` */
    PyObject *topic;
    struct shmps_sample sample;
    unsigned char small[SMALL_BYTES] __attribute__((aligned(16)));
};
extern PyTypeObject *MessageType;
bool message_init(PyObject *module);
/* Memory for a message, into which `sample` is to be taken, a small one's bytes into `small`. NULL
 * with an exception set. */
struct message *message_room(void);
/* The message of the sample in it. NULL with an exception set: both are given back. */
PyObject *message_made(struct subscriber *subscriber, struct message *message);
/* All whose bytes the library keeps; take one out. */
extern struct message *held_messages;
void message_unhold(struct message *message);
/* Give back that memory; that of a message whose bytes are released. */
void message_give_back(struct message *message);
void message_free(struct message *message);

/* How often the process has been forked since the module was loaded. */
extern unsigned forks;
bool fork_init(void);

#endif
