/* Many changes of one owner, one rebuild of his catalogue.
 *
 *   catalogue_emitter [ADDRESS [CHANGES [FAIL_EVERY]]]
 *
 * Shops publish changes of prices to topic "changes", the owner's name as the key, so that his
 * changes keep their order. The emitter pulls what has gathered, takes all changes of a batch in,
 * and only then builds the catalogue of each owner that is in it, once, however many of his changes
 * there were; it publishes the catalogue to topic "catalogues" and acks the changes.
 *
 * Every step can be done again: a change says which version it makes, so an old one that comes once
 * more changes nothing; and a catalogue is published under the idempotency key "owner@version", so
 * that one that was published before a crash is not published by the repeat. To show it, with
 * FAIL_EVERY every so many batches are given back after their catalogues are out, as if the emitter
 * had died right then:
 *
 *   5000 changes of 20 owners: 80 rebuilds, 60 catalogues published
 */
#include <flare/flare.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OWNERS = 20, ITEMS = 10, BATCH_MAX = 500, CATALOGUE_SIZE = 512 };

static const struct flare_source changes = {"changes", "emitter"};
static const struct flare_source catalogues = {"catalogues", "readers"};

struct owner {
    unsigned long version; /* of the last change that was taken in */
    unsigned prices[ITEMS];
    bool is_changed; /* by the batch at hand */
};

struct emitter {
    struct flare_client *client;
    struct owner owners[OWNERS];
    unsigned long batches;
    unsigned long rebuilds;
    unsigned long published;
};

static void need(enum flare_code code, const char *what, const struct flare_error *error)
{
    if (code != FLARE_OK) {
        fprintf(stderr, "catalogue_emitter: %s: %s\n", what, error->message);
        exit(1);
    }
}

static void set_up(struct flare_client *client)
{
    struct flare_error error;
    need(flare_topic_put(client, changes.topic, NULL, NULL, &error), "topic", &error);
    need(flare_topic_put(client, catalogues.topic, NULL, NULL, &error), "topic", &error);
    need(flare_subscription_put(client, &changes, NULL, NULL, &error), "subscription", &error);
    need(flare_subscription_put(client, &catalogues, NULL, NULL, &error), "subscription", &error);
}

/* ---- the shops --------------------------------------------------------------------------------
 */

static void on_published(void *user, const struct flare_result *result,
                         const struct flare_error *error)
{
    (void)user;
    need(result->code, "change", error);
}

/* "VERSION ITEM PRICE", the owner's version counting his changes. */
static void publish_changes(struct flare_client *client, unsigned long count)
{
    struct flare_error error;
    for (unsigned long number = 0; number < count; number++) {
        char body[64];
        char owner[16];
        int size = snprintf(body, sizeof body, "%lu %lu %lu", number / OWNERS + 1, number % ITEMS,
                            number % 997 + 1);
        (void)snprintf(owner, sizeof owner, "owner-%lu", number % OWNERS);
        const struct flare_message change = {.body = body, .body_size = (size_t)size, .key = owner};
        need(flare_publish_async(client, changes.topic, &change, on_published, NULL, &error),
             "change", &error);
    }
    need(flare_flush(client, 0, &error), "changes", &error);
}

/* ---- the emitter ------------------------------------------------------------------------------
 */

static void take_change(struct emitter *emitter, const struct flare_delivery *delivery)
{
    char body[64] = "";
    char key[16] = "";
    unsigned long version = 0;
    unsigned item = 0;
    unsigned price = 0;
    unsigned number = 0;
    if (delivery->body_size >= sizeof body || delivery->key_size >= sizeof key) {
        return;
    }
    memcpy(body, delivery->body, delivery->body_size);
    memcpy(key, delivery->key, delivery->key_size);
    if (sscanf(body, "%lu %u %u", &version, &item, &price) != 3 || item >= ITEMS ||
        sscanf(key, "owner-%u", &number) != 1 || number >= OWNERS) {
        return;
    }
    struct owner *owner = &emitter->owners[number];
    owner->is_changed = true; /* even by an old one: its catalogue may not be out yet */
    if (version > owner->version) {
        owner->version = version;
        owner->prices[item] = price;
    }
}

static void rebuild(struct emitter *emitter, unsigned number)
{
    const struct owner *owner = &emitter->owners[number];
    char catalogue[CATALOGUE_SIZE];
    char key[64];
    char name[16];
    struct flare_result result;
    struct flare_error error;
    int size =
        snprintf(catalogue, sizeof catalogue, "owner-%u version %lu:", number, owner->version);
    for (unsigned item = 0; item < ITEMS; item++) {
        size += snprintf(catalogue + size, sizeof catalogue - (size_t)size, " %u=%u", item,
                         owner->prices[item]);
    }
    (void)snprintf(name, sizeof name, "owner-%u", number);
    (void)snprintf(key, sizeof key, "%s@%lu", name, owner->version);
    const struct flare_message message = {
        .body = catalogue, .body_size = (size_t)size, .key = name, .idempotency_key = key};
    need(flare_publish(emitter->client, catalogues.topic, &message, &result, &error), "catalogue",
         &error);
    emitter->rebuilds++;
    emitter->published += !result.replayed;
}

/* Gives a batch back, as if nobody had seen it. */
static void give_back(struct emitter *emitter, const struct flare_batch *batch)
{
    const struct flare_nack now = {.has_delay = true, .delay_ms = 0};
    struct flare_error error;
    for (size_t index = 0; index < flare_batch_count(batch); index++) {
        const struct flare_delivery *delivery = flare_batch_get(batch, index);
        need(flare_nack(emitter->client, &changes, &now, &delivery->receipt, 1, &error), "nack",
             &error);
    }
}

/* How many changes are finished. */
static size_t take_batch(struct emitter *emitter, unsigned long fail_every)
{
    const struct flare_pull options = {.max = BATCH_MAX, .wait_ms = 1000};
    struct flare_batch *batch = NULL;
    struct flare_error error;
    need(flare_pull(emitter->client, &changes, &options, &batch, &error), "pull", &error);
    size_t count = flare_batch_count(batch);
    for (size_t index = 0; index < count; index++) {
        take_change(emitter, flare_batch_get(batch, index));
    }
    for (unsigned number = 0; number < OWNERS; number++) {
        if (emitter->owners[number].is_changed) {
            rebuild(emitter, number);
            emitter->owners[number].is_changed = false;
        }
    }
    emitter->batches++;
    if (fail_every != 0 && emitter->batches % fail_every == 0) {
        give_back(emitter, batch);
        count = 0;
    } else {
        need(flare_batch_ack(emitter->client, batch, &error), "ack", &error);
    }
    flare_batch_free(batch);
    return count;
}

int main(int argc, char **argv)
{
    static struct emitter emitter;
    const struct flare_options options = {.url = argc > 1 ? argv[1] : NULL,
                                          .name = "catalogue_emitter"};
    unsigned long count = argc > 2 ? strtoul(argv[2], NULL, 10) : 5000;
    unsigned long fail_every = argc > 3 ? strtoul(argv[3], NULL, 10) : 0;
    unsigned long done = 0;
    struct flare_error error;
    need(flare_connect(&options, &emitter.client, &error), "cannot connect", &error);
    set_up(emitter.client);
    publish_changes(emitter.client, count);
    while (done < count) {
        done += take_batch(&emitter, fail_every);
    }
    flare_close(emitter.client);
    printf("%lu changes of %d owners: %lu rebuilds, %lu catalogues published\n", count, OWNERS,
           emitter.rebuilds, emitter.published);
    return 0;
}
