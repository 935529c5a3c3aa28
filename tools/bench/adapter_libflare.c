/* Flare as its C programs use it: libflare, with a connection and a thread for each link.
 * Publishing, pulling and acknowledging go on from the callbacks, on the client's thread, whose
 * turn then sends them together. */
#include <flare/flare.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tools/bench/adapter.h"

#define SUBSCRIPTION "peers"

enum { URL_SIZE = 64, NAME_SIZE = 64, WAIT_MS = 600000, LEASE_MS = 3600000 };

struct libflare_slot {
    struct libflare *link;
    uint32_t slot;
};

struct libflare {
    struct flare_client *client;
    struct link_options options;
    struct libflare_slot *slots;
    struct flare_receipt *receipts; /* received, and not acknowledged yet */
    uint32_t receipt_count;
};

/* A topic of its own for each run, as in adapter_flare.c. */
static char topic[NAME_SIZE];
static const struct flare_source source = {.topic = topic, .subscription = SUBSCRIPTION};

static void on_published(void *user, const struct flare_result *result,
                         const struct flare_error *error);
static void on_pulled(void *user, struct flare_batch *batch, const struct flare_error *error);
static void on_settled(void *user, const enum flare_code *codes, size_t count,
                       const struct flare_error *error);

static err_t check(enum flare_code code, const struct flare_error *error)
{
    return code == FLARE_OK ? NULL : ERR(UNAVAILABLE, "libflare: %s", error->message);
}

static err_t connect_to(const struct peer_address *address, struct flare_client **out)
{
    char url[URL_SIZE];
    struct flare_error error;
    const struct flare_options options = {.url = url, .name = "flare-peers"};
    (void)snprintf(url, sizeof url, "%s:%u", address->host, address->port);
    return check(flare_connect(&options, out, &error), &error);
}

static err_t libflare_open(const struct link_options *options, void **out)
{
    struct libflare *link = calloc(1, sizeof *link);
    if (link == NULL) {
        return ERR(MEMORY, "no memory for a connection");
    }
    link->options = *options;
    *out = link;
    link->slots = calloc(options->window + 1, sizeof *link->slots);
    link->receipts = calloc(options->batch + 1, sizeof *link->receipts);
    if (link->slots == NULL || link->receipts == NULL) {
        return ERR(MEMORY, "no memory for a connection");
    }
    for (uint32_t slot = 0; slot < options->window; slot++) {
        link->slots[slot] = (struct libflare_slot){.link = link, .slot = slot};
    }
    return connect_to(options->address, &link->client);
}

static void libflare_close(void *user)
{
    struct libflare *link = user;
    flare_close(link->client);
    free(link->slots);
    free(link->receipts);
    free(link);
}

static err_t libflare_publish(void *user, uint32_t slot, struct span body)
{
    struct libflare *link = user;
    struct flare_error error;
    const struct flare_message message = {.body = body.data, .body_size = body.size};
    return check(flare_publish_async(link->client, topic, &message, on_published,
                                     &link->slots[slot], &error),
                 &error);
}

static err_t libflare_pull(void *user)
{
    struct libflare *link = user;
    const struct flare_pull pull = {.max = link->options.batch, .wait_ms = WAIT_MS};
    struct flare_error error;
    return check(flare_pull_async(link->client, &source, &pull, on_pulled, link, &error), &error);
}

static err_t libflare_ack(void *user)
{
    struct libflare *link = user;
    struct flare_error error;
    const struct flare_settle settle = {
        .kind = FLARE_SETTLE_ACK, .receipts = link->receipts, .count = link->receipt_count};
    TRY(check(flare_settle_async(link->client, &source, &settle, on_settled, link, &error),
              &error));
    link->receipt_count = 0;
    return NULL;
}

/* Everything happens on the client's thread. */
static err_t libflare_advance(void *user, struct link_wait *wait)
{
    (void)user;
    (void)wait;
    return NULL;
}

/* ---- on the client's thread ---- */

static void fail(struct libflare *link, const struct flare_error *error)
{
    link->options.events->failed(link->options.user, check(error->code, error));
}

static void on_published(void *user, const struct flare_result *result,
                         const struct flare_error *error)
{
    const struct libflare_slot *slot = user;
    struct libflare *link = slot->link;
    link->options.events->enter(link->options.user);
    if (result->code == FLARE_OK) {
        link->options.events->confirmed(link->options.user, slot->slot);
    } else {
        fail(link, error);
    }
    link->options.events->leave(link->options.user);
}

static void on_pulled(void *user, struct flare_batch *batch, const struct flare_error *error)
{
    struct libflare *link = user;
    link->options.events->enter(link->options.user);
    if (batch == NULL) {
        fail(link, error);
    } else {
        size_t count = flare_batch_count(batch);
        for (size_t index = 0; index < count; index++) {
            const struct flare_delivery *delivery = flare_batch_get(batch, index);
            link->receipts[link->receipt_count++] = delivery->receipt;
            link->options.events->received(link->options.user,
                                           span_of(delivery->body, delivery->body_size));
        }
        link->options.events->batch_ended(link->options.user);
    }
    flare_batch_free(batch);
    link->options.events->leave(link->options.user);
}

static void on_settled(void *user, const enum flare_code *codes, size_t count,
                       const struct flare_error *error)
{
    struct libflare *link = user;
    uint32_t acked = 0;
    link->options.events->enter(link->options.user);
    for (size_t index = 0; codes != NULL && index < count; index++) {
        acked += codes[index] == FLARE_OK ? 1 : 0;
    }
    if (error != NULL) {
        fail(link, error);
    }
    link->options.events->acked(link->options.user, acked);
    link->options.events->leave(link->options.user);
}

/* ---- before and after ---- */

static err_t libflare_prepare(const struct peer_address *address)
{
    const struct flare_topic topic_settings = {.relaxed = address->relaxed};
    const struct flare_subscription settings = {.lease_ms = LEASE_MS};
    struct flare_client *client = NULL;
    struct flare_error error;
    struct timespec now;
    err_t err = NULL;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    (void)snprintf(topic, sizeof topic, "peers-%lld-%ld", (long long)now.tv_sec, now.tv_nsec);
    TRY(connect_to(address, &client));
    TRY_OUT(check(flare_topic_put(client, topic, &topic_settings, NULL, &error), &error));
    TRY_OUT(check(flare_subscription_put(client, &source, &settings, NULL, &error), &error));
out:
    flare_close(client);
    return err;
}

/* What is left to be pulled, by pulling it, as in adapter_flare.c. */
static err_t libflare_held(const struct peer_address *address, uint64_t *out)
{
    static const struct flare_pull pull = {.max = 1000};
    struct flare_client *client = NULL;
    struct flare_error error;
    uint64_t held = 0;
    size_t count = 0;
    err_t err = NULL;
    TRY(connect_to(address, &client));
    do {
        struct flare_batch *batch = NULL;
        TRY_OUT(check(flare_pull(client, &source, &pull, &batch, &error), &error));
        count = flare_batch_count(batch);
        held += count;
        flare_batch_free(batch);
    } while (count > 0);
    *out = held;
out:
    flare_close(client);
    return err;
}

const struct adapter adapter_libflare = {
    .name = "libflare",
    .prepare = libflare_prepare,
    .held = libflare_held,
    .open = libflare_open,
    .publish = libflare_publish,
    .pull = libflare_pull,
    .ack = libflare_ack,
    .advance = libflare_advance,
    .close = libflare_close,
};
