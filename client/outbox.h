/* Messages on their way to the broker: batches by topic.
 *
 * A message is encoded once, into the batch of its topic that is being filled (with the client's
 * lock held, by the thread that publishes). The client's thread seals batches, when the rules in
 * flare.h let them go, into frames: the records are not copied again, since their buffer begins
 * with room for the head of the frame. A batch is kept until it is answered, and its memory then
 * used for the next.
 *
 * Under the lock: topics, batches that are not sealed, and the counts. A sealed batch is the
 * client's thread's. */
#ifndef CLIENT_OUTBOX_H
#define CLIENT_OUTBOX_H

#include <flare/flare.h>

#include "broker/base/buf.h"
#include "broker/base/map.h"
#include "client/ask.h"

enum {
    OUTBOX_KEY_SIZE = 16,
    OUTBOX_TOPICS_IDLE_MAX = 256, /* topics remembered while they have nothing to send */
    OUTBOX_SPARE_MAX = 16,        /* batches kept for their memory */
    OUTBOX_BATCH_SIZE_MAX = 4 << 20,
};

struct outbox_entry {
    flare_published done;
    void *user;
};

struct outbox_topic;

struct outbox_batch {
    struct ask ask;
    struct list_link link;     /* in its topic, or among the spare ones */
    struct list_link all_link; /* in the order they were begun */
    struct outbox_topic *topic;
    uint64_t number; /* in that order */
    struct buf records;
    struct outbox_entry *entries; /* one for each message */
    uint32_t count;
    uint32_t entries_capacity;
    size_t size;         /* what it counts of `unconfirmed_size` */
    uint64_t begun_us;   /* when its first message came */
    uint64_t retry_us;   /* when it is sent again; 0: it is not to be */
    uint64_t refused_us; /* when it first was; 0: it was not */
    uint32_t refusals;
    enum flare_code refusal; /* the last one */
    bool is_keyed;           /* some message has a key, so that order matters */
    bool is_atomic;
};

struct outbox_topic {
    struct outbox_topic *next_of_hash;
    struct list_link link; /* among those with something to send */
    uint64_t hash;
    struct outbox_batch *filling; /* NULL: none */
    struct list ready;            /* full ones, in order */
    struct list refused;          /* to be sent again */
    uint32_t batch_count;         /* of batches that are not answered */
    uint32_t under_way;           /* batches that are sealed and not answered */
    uint32_t keyed_under_way;
    bool is_flushing; /* what is being filled is not to wait */
    char name[256];
};

struct outbox {
    struct map topics; /* by hash of their name, chained */
    uint32_t topic_count;
    struct outbox_topic *last; /* that was published to */
    struct list waiting;       /* topics that have something to send */
    struct list all;           /* batches that are not answered */
    uint64_t last_number;
    struct list spare;
    uint32_t spare_count;
    size_t unconfirmed_size;
    uint32_t batch_messages; /* bounds, also by what the broker takes */
    size_t batch_size;
    /* The thread's own. */
    uint64_t
        due_us; /* when outbox_send has to be called again; UINT64_MAX: when something happens */
    uint64_t key_prefix;
    uint64_t key_count;
    struct buf head;             /* scratch */
    struct wire_result *results; /* scratch */
    uint32_t results_capacity;
};

void outbox_init(struct outbox *outbox, const struct flare_options *options);
/* Nothing may be waiting. */
void outbox_deinit(struct outbox *outbox);

/* The broker has told its limits; with the lock held. */
void outbox_limit(struct flare_client *client);

struct outbox_put {
    const char *topic;
    const struct flare_message *messages;
    size_t count;
    bool is_whole; /* a batch of exactly these */
    bool is_atomic;
    bool is_urgent;   /* even where only full batches are sent */
    uint64_t wait_ms; /* for room, but on the client's thread; UINT64_MAX: for ever */
    flare_published done;
    void *user;
    size_t user_step; /* bytes from the `user` of one message to that of the next */
};

/* Publishes. FLARE_ERR_TIMEOUT, and on the client's thread FLARE_ERR_BUSY: there was no room. */
enum flare_code outbox_add(struct flare_client *client, const struct outbox_put *put,
                           struct flare_error *error);

/* Seals what may go and submits it. On the thread. */
void outbox_send(struct flare_client *client);
/* Fails what is not sealed. On the thread. */
void outbox_fail_all(struct flare_client *client, const struct flare_error *error);

/* Decodes an answer to a publish in its usual form up to its results, which are left for the batch
 * to walk: the decoder for all messages would walk them too, and they are most of what a publisher
 * reads. False: let that decoder have it. */
bool outbox_peek(struct span payload, struct wire_frame *out);

/* Lets go what is being filled, and says up to which batch that is; then waits for all of them. */
uint64_t outbox_flush_begin(struct flare_client *client);
bool outbox_flush_wait(struct flare_client *client, uint64_t number, uint64_t timeout_ms);

#endif
