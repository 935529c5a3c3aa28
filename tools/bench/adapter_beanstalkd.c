/* beanstalkd, in its text protocol. It works one command of a connection at a time and in order, so
 * a pipeline saves nothing but round trips: that is what its clients can do.
 *
 * A batch is one reserve that waits and then those that do not; the deletes of a batch leave with
 * the reserves of the next. Nothing may follow one that waits but its own batch, least of all a
 * delete: so the next batch is asked for before one has come, by reserves none of which waits, only
 * while batches come full. */
#include <assert.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/bench/stream.h"

enum { TIME_TO_RUN_S = 3600, LINE_SIZE = 128, REPLY_TIMEOUT_MS = 30000 };

struct beanstalkd {
    struct stream stream;
    struct link_options options;
    uint32_t *slots; /* of a publisher: a ring in the order of their puts */
    uint32_t slot_first;
    uint32_t slot_count;
    uint64_t *reserved; /* ids of a consumer's batch */
    uint32_t reserved_count;
    uint32_t answered;        /* of the oldest batch's reserves */
    uint32_t batches_wanted;  /* pulls of the driver without their batch */
    uint32_t batches_pending; /* whose reserves were sent */
    bool is_drained;          /* the last batch has left nothing */
    uint32_t deletes;         /* that are not answered */
};

static err_t beanstalkd_open(const struct link_options *options, void **out)
{
    struct beanstalkd *link = calloc(1, sizeof *link);
    err_t err = NULL;
    if (link == NULL) {
        return ERR(MEMORY, "no memory for a connection");
    }
    link->options = *options;
    link->is_drained = true;
    link->slots = calloc(options->window + 1, sizeof *link->slots);
    link->reserved = calloc(options->batch + 1, sizeof *link->reserved);
    *out = link;
    TRY_OUT(stream_open(&link->stream, options->address));
    if (link->slots == NULL || link->reserved == NULL) {
        err = ERR(MEMORY, "no memory for a connection");
    }
out:
    return err;
}

static void beanstalkd_close(void *user)
{
    struct beanstalkd *link = user;
    stream_close(&link->stream);
    free(link->slots);
    free(link->reserved);
    free(link);
}

static err_t beanstalkd_publish(void *user, uint32_t slot, struct span body)
{
    struct beanstalkd *link = user;
    char line[LINE_SIZE];
    int size = snprintf(line, sizeof line, "put 0 0 %d %zu\r\n", TIME_TO_RUN_S, body.size);
    assert(link->slot_count < link->options.window);
    buf_append(&link->stream.out, line, (size_t)size);
    buf_append_span(&link->stream.out, body);
    buf_append(&link->stream.out, "\r\n", 2);
    link->slots[(link->slot_first + link->slot_count++) % link->options.window] = slot;
    return NULL;
}

static void send_reserves(struct beanstalkd *link, bool waits)
{
    static const char waiting[] = "reserve\r\n";
    static const char at_once[] = "reserve-with-timeout 0\r\n";
    if (waits) {
        buf_append(&link->stream.out, waiting, sizeof waiting - 1);
    }
    for (uint32_t i = waits ? 1 : 0; i < link->options.batch; i++) {
        buf_append(&link->stream.out, at_once, sizeof at_once - 1);
    }
    link->batches_pending++;
}

static void send_batches(struct beanstalkd *link)
{
    if (link->is_drained && link->batches_pending == 0) {
        send_reserves(link, true);
    }
    while (!link->is_drained && link->batches_pending < link->batches_wanted) {
        send_reserves(link, false);
    }
}

static err_t beanstalkd_pull(void *user)
{
    struct beanstalkd *link = user;
    link->batches_wanted++;
    send_batches(link);
    return NULL;
}

static err_t beanstalkd_ack(void *user)
{
    struct beanstalkd *link = user;
    for (uint32_t i = 0; i < link->reserved_count; i++) {
        buf_printf(&link->stream.out, "delete %llu\r\n", (unsigned long long)link->reserved[i]);
    }
    link->deletes += link->reserved_count;
    link->reserved_count = 0;
    return NULL;
}

/* ---- answers ---- */

static void end_batch(struct beanstalkd *link)
{
    link->answered = 0;
    link->batches_pending--;
    link->is_drained = link->options.batch == 1 || link->reserved_count < link->options.batch;
    if (link->reserved_count == 0) {
        send_batches(link);
        return;
    }
    link->batches_wanted--;
    link->options.events->batch_ended(link->options.user);
}

/* The answer of a reserve: "RESERVED <id> <size>\r\n<body>\r\n", or that there is none. Its size;
 * 0: more is to come. */
static err_t take_reserve(struct beanstalkd *link, struct span rest, size_t line_size, size_t *used)
{
    unsigned long long id = 0;
    size_t size = 0;
    if (sscanf((const char *)rest.data, "RESERVED %llu %zu", &id, &size) == 2) {
        if (rest.size < line_size + size + 2) {
            *used = 0;
            return NULL;
        }
        link->reserved[link->reserved_count++] = id;
        link->options.events->received(link->options.user, span_of(rest.data + line_size, size));
        *used = line_size + size + 2;
    } else if (memcmp(rest.data, "TIMED_OUT", 9) != 0) {
        return ERR(UNAVAILABLE, "reserve: %.*s", (int)line_size - 2, (const char *)rest.data);
    }
    if (++link->answered == link->options.batch) {
        end_batch(link);
    }
    return NULL;
}

static err_t take_answer(struct beanstalkd *link, struct span rest, size_t *used)
{
    const uint8_t *end = memchr(rest.data, '\n', rest.size);
    if (end == NULL) {
        *used = 0;
        return NULL;
    }
    size_t line_size = (size_t)(end - rest.data) + 1;
    *used = line_size;
    if (link->slot_count > 0 && memcmp(rest.data, "INSERTED", 8) == 0) {
        uint32_t slot = link->slots[link->slot_first];
        link->slot_first = (link->slot_first + 1) % link->options.window;
        link->slot_count--;
        link->options.events->confirmed(link->options.user, slot);
    } else if (link->deletes > 0 && memcmp(rest.data, "DELETED", 7) == 0) {
        link->deletes--;
        link->options.events->acked(link->options.user, 1);
    } else if (link->batches_pending > 0) {
        return take_reserve(link, rest, line_size, used);
    } else {
        return ERR(UNAVAILABLE, "beanstalkd: %.*s", (int)line_size - 2, (const char *)rest.data);
    }
    return NULL;
}

static err_t beanstalkd_advance(void *user, struct link_wait *wait)
{
    struct beanstalkd *link = user;
    TRY(stream_send(&link->stream));
    TRY(stream_receive(&link->stream, &wait->again));
    size_t at = 0;
    size_t used = 1;
    while (used > 0 && at < link->stream.in.size) {
        TRY(take_answer(link, span_of(link->stream.in.data + at, link->stream.in.size - at),
                        &used));
        at += used;
    }
    buf_consume(&link->stream.in, at);
    TRY(stream_send(&link->stream));
    stream_wait(&link->stream, wait);
    return NULL;
}

/* ---- before and after ---- */

/* Waits for an answer that ends with `end`, terminated in stream->in. */
static err_t ask(struct stream *stream, const char *command, const char *end)
{
    buf_reset(&stream->in);
    buf_append_text(&stream->out, command);
    for (;;) {
        struct link_wait wait = {.fd = -1};
        TRY(stream_send(stream));
        TRY(stream_receive(stream, &wait.again));
        buf_append_byte(&stream->in, '\0');
        stream->in.size--;
        size_t end_size = strlen(end);
        if (stream->in.size >= end_size &&
            memcmp(stream->in.data + stream->in.size - end_size, end, end_size) == 0) {
            return NULL;
        }
        stream_wait(stream, &wait);
        struct pollfd poll_one = {.fd = wait.fd, .events = wait.events};
        if (poll(&poll_one, 1, REPLY_TIMEOUT_MS) == 0) {
            return ERR(TIMEOUT, "no answer to %s", command);
        }
    }
}

static uint64_t stats_number(const struct stream *stream, const char *name)
{
    const char *at = strstr((const char *)stream->in.data, name);
    return at == NULL ? 0 : strtoull(at + strlen(name), NULL, 10);
}

/* Kicked out of the way by hand: it has no command that empties a tube. */
static err_t beanstalkd_prepare(const struct peer_address *address)
{
    struct stream stream;
    err_t err = NULL;
    TRY_OUT(stream_open(&stream, address));
    for (;;) {
        char line[LINE_SIZE];
        TRY_OUT(ask(&stream, "peek-ready\r\n", "\r\n"));
        if (memcmp(stream.in.data, "FOUND ", 6) != 0) {
            break;
        }
        (void)snprintf(line, sizeof line, "delete %llu\r\n",
                       strtoull((const char *)stream.in.data + 6, NULL, 10));
        TRY_OUT(ask(&stream, line, "\r\n"));
    }
out:
    stream_close(&stream);
    return err;
}

static err_t beanstalkd_held(const struct peer_address *address, uint64_t *out)
{
    struct stream stream;
    err_t err = NULL;
    TRY_OUT(stream_open(&stream, address));
    TRY_OUT(ask(&stream, "stats-tube default\r\n", "\n\r\n"));
    *out = stats_number(&stream, "current-jobs-ready: ") +
           stats_number(&stream, "current-jobs-reserved: ");
out:
    stream_close(&stream);
    return err;
}

const struct adapter adapter_beanstalkd = {
    .name = "beanstalkd",
    .prepare = beanstalkd_prepare,
    .held = beanstalkd_held,
    .open = beanstalkd_open,
    .publish = beanstalkd_publish,
    .pull = beanstalkd_pull,
    .ack = beanstalkd_ack,
    .advance = beanstalkd_advance,
    .close = beanstalkd_close,
};
