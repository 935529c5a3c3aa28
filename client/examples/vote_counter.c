/* Counts every vote exactly once, whoever is killed meanwhile.
 *
 *   vote_counter vote ADDRESS COUNT             publishes COUNT votes and waits until each is kept
 *   vote_counter count ADDRESS STORE COUNT      counts into the file STORE until it holds COUNT
 *   vote_counter report STORE                   "votes 30000: red 10000, green 10000, blue 10000"
 *
 * Three things together make it exactly once:
 *  - the library sends a publish again when its connection has broken, under a key by which the
 *    broker knows it: each vote is in the topic's log once, at one (shard, sequence);
 *  - the counter acks votes only when they are in its store, on disk: none is lost;
 *  - the store keeps, in the same record, the (shard, sequence) of what it has counted: a vote that
 *    comes again, because the counter or the broker died before the ack, is known and passed over.
 *
 * The store is one file of records, each the votes of one flush: a head with their number and a
 * checksum, and the votes. A record is written and flushed as a whole; one that was cut short by a
 * crash fails its checksum and is cut off at the next start, and its votes come again. */
#include <flare/flare.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { COLORS = 3, SHARDS_MAX = 4096, FLUSH_VOTES_MAX = 2000, FLUSH_INTERVAL_MS = 50 };

static const char *const colors[COLORS] = {"red", "green", "blue"};
static const struct flare_source counters = {"votes", "counter"};

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "vote_counter: %s: %s\n", what, why);
    exit(1);
}

static void need(enum flare_code code, const char *what, const struct flare_error *error)
{
    if (code != FLARE_OK) {
        fail(what, error->message);
    }
}

/* ---- the store --------------------------------------------------------------------------------
 */

struct vote {
    uint64_t sequence;
    uint32_t shard;
    uint32_t color;
};

struct record_head {
    uint64_t checksum;
    uint64_t count;
};

/* Which sequences of a shard are counted, a bit each. */
struct seen {
    uint8_t *bits;
    uint64_t size; /* bytes */
};

struct store {
    int file;
    uint64_t counts[COLORS];
    uint64_t total;
    struct seen shards[SHARDS_MAX];
};

static uint64_t checksum_of(const struct vote *votes, uint64_t count)
{
    const uint8_t *bytes = (const uint8_t *)votes;
    uint64_t hash = 0xcbf29ce484222325u ^ count;
    for (uint64_t at = 0; at < count * sizeof votes[0]; at++) {
        hash = (hash ^ bytes[at]) * 0x100000001b3u;
    }
    return hash;
}

/* True: it has not been counted before, and is from now on. */
static bool mark(struct store *store, const struct vote *vote)
{
    struct seen *seen = &store->shards[vote->shard];
    uint64_t place = vote->sequence / 8;
    uint8_t bit = (uint8_t)(1u << (vote->sequence % 8));
    if (place >= seen->size) {
        uint64_t size = (place + 1) * 2;
        uint8_t *bits = realloc(seen->bits, size);
        if (bits == NULL) {
            fail("store", "no memory");
        }
        memset(bits + seen->size, 0, size - seen->size);
        seen->bits = bits;
        seen->size = size;
    }
    bool is_new = (seen->bits[place] & bit) == 0;
    seen->bits[place] |= bit;
    return is_new;
}

static void add(struct store *store, const struct vote *votes, uint64_t count)
{
    for (uint64_t index = 0; index < count; index++) {
        store->counts[votes[index].color]++;
        store->total++;
    }
}

/* One record; false: the file ends here, or what follows was cut short. */
static bool load_record(struct store *store, struct vote *votes)
{
    struct record_head head;
    if (read(store->file, &head, sizeof head) != (ssize_t)sizeof head ||
        head.count > FLUSH_VOTES_MAX) {
        return false;
    }
    ssize_t size = (ssize_t)(head.count * sizeof votes[0]);
    if (read(store->file, votes, (size_t)size) != size ||
        checksum_of(votes, head.count) != head.checksum) {
        return false;
    }
    for (uint64_t index = 0; index < head.count; index++) {
        (void)mark(store, &votes[index]);
    }
    add(store, votes, head.count);
    return true;
}

/* To count into, or only to look at: then what a counter is writing right now is let be. */
static void store_open(struct store *store, const char *path, bool is_counting)
{
    static struct vote votes[FLUSH_VOTES_MAX];
    off_t end = 0;
    store->file =
        open(path, is_counting ? O_RDWR | O_CREAT | O_CLOEXEC : O_RDONLY | O_CLOEXEC, 0666);
    if (store->file < 0) {
        fail(path, "cannot open");
    }
    while (load_record(store, votes)) {
        end = lseek(store->file, 0, SEEK_CUR);
    }
    if (is_counting &&
        (ftruncate(store->file, end) != 0 || lseek(store->file, end, SEEK_SET) != end)) {
        fail(path, "cannot cut off what a crash has left");
    }
}

/* Once this returns the votes are counted for good. */
static void store_flush(struct store *store, const struct vote *votes, uint64_t count)
{
    const struct record_head head = {.checksum = checksum_of(votes, count), .count = count};
    ssize_t size = (ssize_t)(count * sizeof votes[0]);
    if (write(store->file, &head, sizeof head) != (ssize_t)sizeof head ||
        write(store->file, votes, (size_t)size) != size || fsync(store->file) != 0) {
        fail("store", "cannot write");
    }
    add(store, votes, count);
}

static void store_close(struct store *store)
{
    for (uint32_t shard = 0; shard < SHARDS_MAX; shard++) {
        free(store->shards[shard].bits);
    }
    close(store->file);
}

/* ---- the broker -------------------------------------------------------------------------------
 */

static struct flare_client *connect_to(const char *address)
{
    const struct flare_options options = {.url = address, .name = "vote_counter"};
    const struct flare_subscription settings = {.lease_ms = 2000, .max_attempts = FLARE_NONE_U32};
    struct flare_client *client = NULL;
    struct flare_error error;
    need(flare_connect(&options, &client, &error), "cannot connect", &error);
    need(flare_topic_put(client, counters.topic, NULL, NULL, &error), "topic", &error);
    need(flare_subscription_put(client, &counters, &settings, NULL, &error), "subscription",
         &error);
    return client;
}

static void on_voted(void *user, const struct flare_result *result, const struct flare_error *error)
{
    (void)user;
    need(result->code, "a vote is lost", error);
}

static void vote(const char *address, unsigned long count)
{
    struct flare_client *client = connect_to(address);
    struct flare_error error;
    for (unsigned long number = 0; number < count; number++) {
        const char *color = colors[number % COLORS];
        const struct flare_message ballot = {.body = color, .body_size = strlen(color)};
        need(flare_publish_async(client, counters.topic, &ballot, on_voted, NULL, &error), "vote",
             &error);
    }
    need(flare_flush(client, 120000, &error), "votes", &error);
    flare_close(client);
    printf("voted %lu\n", count);
}

/* The votes of a batch that the store does not know yet. */
static uint64_t take_new(struct store *store, const struct flare_batch *batch, struct vote *votes)
{
    uint64_t count = 0;
    for (size_t index = 0; index < flare_batch_count(batch); index++) {
        const struct flare_delivery *delivery = flare_batch_get(batch, index);
        struct vote ballot = {.sequence = delivery->sequence, .shard = delivery->shard};
        while (ballot.color < COLORS &&
               (strlen(colors[ballot.color]) != delivery->body_size ||
                memcmp(colors[ballot.color], delivery->body, delivery->body_size) != 0)) {
            ballot.color++;
        }
        if (ballot.color < COLORS && ballot.shard < SHARDS_MAX && mark(store, &ballot)) {
            votes[count] = ballot;
            count++;
        }
    }
    return count;
}

static void count_votes(const char *address, const char *path, uint64_t until)
{
    static struct store store;
    static struct vote votes[FLUSH_VOTES_MAX];
    const struct flare_pull options = {
        .max = FLUSH_VOTES_MAX, .wait_ms = FLUSH_INTERVAL_MS, .consumer = "vote_counter"};
    struct flare_error error;
    store_open(&store, path, true);
    struct flare_client *client = connect_to(address);
    printf("counting from %llu\n", (unsigned long long)store.total);
    fflush(stdout);
    while (store.total < until) {
        struct flare_batch *batch = NULL;
        need(flare_pull(client, &counters, &options, &batch, &error), "pull", &error);
        uint64_t count = take_new(&store, batch, votes);
        if (count > 0) {
            store_flush(&store, votes, count);
        }
        /* An ack that fails costs nothing: the votes come again and are known. */
        (void)flare_batch_ack(client, batch, &error);
        flare_batch_free(batch);
    }
    flare_close(client);
    store_close(&store);
    printf("counted %llu\n", (unsigned long long)store.total);
}

static void report(const char *path)
{
    static struct store store;
    store_open(&store, path, false);
    printf("votes %llu:", (unsigned long long)store.total);
    for (int color = 0; color < COLORS; color++) {
        printf("%s %s %llu", color == 0 ? "" : ",", colors[color],
               (unsigned long long)store.counts[color]);
    }
    printf("\n");
    store_close(&store);
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "vote") == 0) {
        vote(argv[2], strtoul(argv[3], NULL, 10));
    } else if (argc == 5 && strcmp(argv[1], "count") == 0) {
        count_votes(argv[2], argv[3], strtoull(argv[4], NULL, 10));
    } else if (argc == 3 && strcmp(argv[1], "report") == 0) {
        report(argv[2]);
    } else {
        fprintf(stderr, "usage: vote_counter vote ADDRESS COUNT\n"
                        "       vote_counter count ADDRESS STORE COUNT\n"
                        "       vote_counter report STORE\n");
        return 64;
    }
    return 0;
}
