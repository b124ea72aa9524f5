/* Accesses become steps; what is told of them. */
#include "accesses.h"

#include "checker.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#define TRACE_COLUMNS 120

static bool tracing;

void trace_open(bool on) {
    tracing = on;
}
bool trace_on(void) {
    return tracing;
}

void trace(uint32_t fiber, const char *format, ...) {
    char line[TRACE_COLUMNS];
    va_list args;
    if (!tracing)
        return;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    printf("#   %5llu %-12s %s\n", (unsigned long long)run_steps, fiber_name(fiber), line);
}

static const char *order_name(int order) {
    switch (order) {
    case memory_order_relaxed:
        return "relaxed";
    case memory_order_acquire:
        return "acquire";
    case memory_order_release:
        return "release";
    default:
        return "seq_cst";
    }
}

static void told(const char *what, const void *p, uint64_t value, int order, const char *where,
                 int line) {
    if (tracing)
        trace(fiber_self(), "%-5s %-24s %20lld  %s, %s:%d", what, name_of(p), (long long)value,
              order_name(order), where, line);
}

static bool is_step(const void *p, size_t size) {
    return running() && memory_holds(p, size) && is_shared(p) && step();
}

uint64_t access_load(const void *p, size_t size, int order, const char *where, int line) {
    if (!is_step(p, size))
        return size == 8 ? *(const volatile uint64_t *)p : *(const volatile uint32_t *)p;
    uint64_t value = memory_load(fiber_self(), p, size, order);
    told("load", p, value, order, where, line);
    return value;
}

void access_store(void *p, uint64_t value, size_t size, int order, const char *where, int line) {
    if (is_step(p, size)) {
        told("store", p, value, order, where, line);
        memory_store(fiber_self(), p, value, size, order);
    } else if (size == 8) {
        *(volatile uint64_t *)p = value;
    } else {
        *(volatile uint32_t *)p = (uint32_t)value;
    }
}

uint64_t access_add(void *p, uint64_t value, size_t size, int order, const char *where, int line) {
    if (is_step(p, size)) {
        told("add", p, value, order, where, line);
        return memory_add(fiber_self(), p, value, size, order);
    }
    uint64_t old = access_load(p, size, order, where, line);
    access_store(p, old + value, size, order, where, line);
    return old;
}

bool access_cas(void *p, void *expected, uint64_t value, size_t size, int order, int failed,
                const char *where, int line) {
    uint64_t old = 0;
    memcpy(&old, expected, size);
    if (!is_step(p, size))
        violated("a compare-and-swap outside of a run");
    bool done = memory_cas(fiber_self(), p, &old, value, size, order, failed);
    memcpy(expected, &old, size);
    told(done ? "cas" : "cas -", p, done ? value : old, order, where, line);
    return done;
}

void access_fence(int order, const char *where, int line) {
    if (!running() || !step())
        return;
    if (tracing)
        trace(fiber_self(), "fence %s  %s:%d", order_name(order), where, line);
    memory_fence(fiber_self(), order);
}

void access_barrier(const char *where, int line) {
    (void)where;
    (void)line;
    if (running()) /* not a step: it does nothing that others could see */
        memory_compiler_barrier(fiber_self());
}

/* Word by word: others may come in between. */
void *access_copy(void *to, const void *from, size_t n, const char *where, int line) {
    bool in = running() && memory_holds(to, n) && is_shared(to);
    bool out = running() && memory_holds(from, n) && is_shared(from);
    if (!in && !out)
        return memcpy(to, from, n);
    trace(fiber_self(), "%s %zu bytes of %s  %s:%d", in ? "write" : "read", n,
          name_of(in ? to : from), where, line);
    for (size_t i = 0; i < n; i += 8) {
        size_t part = n - i < 8 ? n - i : 8;
        step();
        if (in)
            memory_copy_in(fiber_self(), (char *)to + i, (const char *)from + i, part);
        else
            memory_copy_out(fiber_self(), (char *)to + i, (const char *)from + i, part);
    }
    return to;
}

void access_relax(void) {
    if (running() && step())
        choose_yielding(fiber_self());
}
