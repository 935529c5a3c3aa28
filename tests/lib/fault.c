/* The malloc of this file replaces the one of every library (the first definition wins at run
 * time), and hands on to whatever it replaced. Under a sanitizer that must be the sanitizer's, or
 * its checks would see blocks that it never gave out; those go by the names of its interceptors.
 * Asking dlsym instead would not do: it finds libc's when a sanitizer is linked statically, and
 * allocates itself. */
#include "tests/lib/fault.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>

#define EXPORTED __attribute__((visibility("default")))

/* ThreadSanitizer allocates while it starts: what it puts into functions may not run by then. */
#ifdef __clang__
#define UNCHECKED __attribute__((disable_sanitizer_instrumentation))
#else
#define UNCHECKED __attribute__((no_sanitize_thread))
#endif

void *__interceptor_malloc(size_t size) __attribute__((weak));
void *__interceptor_calloc(size_t count, size_t size) __attribute__((weak));
void *__interceptor_realloc(void *data, size_t size) __attribute__((weak));
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *data, size_t size);

EXPORTED void *malloc(size_t size);
EXPORTED void *calloc(size_t count, size_t size);
EXPORTED void *realloc(void *data, size_t size);

static _Atomic uint64_t fault_calls;
static _Atomic uint64_t fault_first; /* number of the first call that fails; 0: none does */
static _Atomic uint64_t fault_last;  /* and of the last */
static _Atomic uint64_t fault_hits;

static void fault_start(uint64_t first, uint64_t last)
{
    atomic_store(&fault_first, 0);
    atomic_store(&fault_calls, 0);
    atomic_store(&fault_hits, 0);
    atomic_store(&fault_last, last);
    atomic_store(&fault_first, first);
}

void fault_alloc_nth(uint64_t nth)
{
    fault_start(nth, nth);
}

void fault_alloc_from(uint64_t nth)
{
    fault_start(nth, UINT64_MAX);
}

bool fault_alloc_stop(void)
{
    atomic_store(&fault_first, 0);
    return atomic_load(&fault_hits) > 0;
}

uint64_t fault_alloc_count(void)
{
    return atomic_load(&fault_calls);
}

UNCHECKED static bool fault_hit(void)
{
    uint64_t first = atomic_load(&fault_first);
    if (first == 0) {
        return false;
    }
    uint64_t call = atomic_fetch_add(&fault_calls, 1) + 1;
    if (call < first || call > atomic_load(&fault_last)) {
        return false;
    }
    atomic_fetch_add(&fault_hits, 1);
    errno = ENOMEM;
    return true;
}

UNCHECKED void *malloc(size_t size)
{
    if (fault_hit()) {
        return NULL;
    }
    return __interceptor_malloc != NULL ? __interceptor_malloc(size) : __libc_malloc(size);
}

UNCHECKED void *calloc(size_t count, size_t size)
{
    if (fault_hit()) {
        return NULL;
    }
    return __interceptor_calloc != NULL ? __interceptor_calloc(count, size)
                                        : __libc_calloc(count, size);
}

UNCHECKED void *realloc(void *data, size_t size)
{
    if (fault_hit()) {
        return NULL;
    }
    return __interceptor_realloc != NULL ? __interceptor_realloc(data, size)
                                         : __libc_realloc(data, size);
}
