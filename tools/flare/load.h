/* The load generator of the benchmarks: connections on one epoll, each with a window of requests
 * outstanding, so that client and server can share two cores and the server still be what is
 * measured.
 *
 * Requests are bytes prepared beforehand; what they mean and how a reply is framed is the driver's.
 */
#ifndef FLARE_LOAD_H
#define FLARE_LOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "broker/base/err.h"
#include "broker/base/span.h"
#include "tools/flare/progress.h"

enum { LOAD_CONNECTIONS_MAX = 4096, LOAD_KINDS = 2 };

/* Latencies in microseconds: exact below 32, within 3 % above. */
enum { HISTOGRAM_SUB = 32, HISTOGRAM_BUCKETS = 60 * HISTOGRAM_SUB };

struct histogram {
    uint64_t counts[HISTOGRAM_BUCKETS];
    uint64_t count;
    uint64_t sum;
    uint64_t max;
};

void histogram_add(struct histogram *histogram, uint64_t value);
void histogram_merge(struct histogram *histogram, const struct histogram *other);
/* The value that `fraction` (0..1) of all values do not exceed. */
uint64_t histogram_quantile(const struct histogram *histogram, double fraction);

struct load_request {
    struct span bytes; /* unchanged until the last reply has come */
    uint32_t replies;  /* 1, or the length of a pipeline; 0: it has no answer */
    uint32_t kind;     /* below LOAD_KINDS: whose histogram its latency belongs to */
};

enum { LOAD_FRAME_BAD = -1 };
#define LOAD_SLOT_NONE UINT32_MAX

struct load_driver {
    /* The next request of a connection, which takes the given slot of its window; false: it has
     * nothing to send now. Asked again after each reply. */
    bool (*next)(void *user, uint32_t connection, uint32_t slot, struct load_request *out);
    /* Size of the whole reply at the front of `bytes`; 0: more is to come; LOAD_FRAME_BAD. */
    int64_t (*frame)(struct span bytes);
    /* One reply; valid for the call. */
    err_t (*reply)(void *user, uint32_t connection, struct span reply);
    /* Whether the work is done, whatever other connections still wait for. */
    bool (*done)(void *user);
    /* How many messages are done. */
    uint64_t (*count)(void *user);
    /* The slot that a reply answers, LOAD_SLOT_NONE for what nobody asked for. NULL: windows of
     * one.
     */
    uint32_t (*slot)(struct span reply);
};

struct load_options {
    const char *host;
    const char *port;
    uint32_t connections;
    uint32_t outstanding; /* requests of a connection at the same time; 0: 1 */
    const struct load_driver *driver;
    void *user;
    uint64_t timeout_ms;       /* without any reply: an error */
    struct progress *progress; /* where messages are counted; may be NULL */
};

struct load_result {
    uint64_t duration_us; /* from the first request to the end of the work */
    uint64_t cpu_us;      /* of this process meanwhile */
    struct histogram latencies[LOAD_KINDS];
};

/* Processor time of this process so far. */
uint64_t load_cpu_us(void);

err_t load_run(const struct load_options *options, struct load_result *out) MUST_CHECK;

/* Framing of the two protocols. */
int64_t load_frame_http(struct span bytes);
int64_t load_frame_resp(struct span bytes);
/* Of a whole HTTP reply. */
uint32_t load_http_status(struct span reply);
struct span load_http_body(struct span reply);

#endif
