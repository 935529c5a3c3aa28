/* One frame on its way to the broker, and what waits for its answer.
 *
 * Its owner embeds it, fills in everything but the link, and hands it to engine_submit; from then
 * on it belongs to the client's thread until `on_answer` or `on_failed` is called, which then may
 * free it. Exactly one of them is, once; for a frame without answer `on_failed` never is, and
 * `on_answer` once it is sent. */
#ifndef CLIENT_ASK_H
#define CLIENT_ASK_H

#include <flare/error.h>

#include "broker/base/list.h"
#include "broker/wire/message.h"

struct flare_client;

/* What becomes of one that may have reached a broker whose connection then broke. */
enum ask_fate {
    ASK_AGAIN = 1,  /* sent again, the same bytes */
    ASK_UNKNOWN = 2 /* FLARE_ERR_UNKNOWN */
};

/* Why it has failed. */
enum ask_failure {
    ASK_REFUSED = 1, /* the broker says so */
    ASK_LOST = 2,    /* see ask_fate */
    ASK_OVER = 3     /* nobody waits any longer: the client is closed, or has given up */
};

struct ask {
    struct list_link link;
    enum wire_type type;
    enum wire_type answer; /* ASK_NO_ANSWER: it has none */
    enum ask_fate fate;
    uint64_t id;
    struct span frame; /* the owner's */
    bool is_sent;      /* at least some of it, over some connection */
    bool is_doubtful;  /* all of it, over one that broke: the broker may have acted on it */
    void (*on_sent)(struct flare_client *client, struct ask *ask); /* all of it; may be NULL */
    /* An error is the broker's fault: the ask stays as it was, and the connection is given up. */
    err_t (*on_answer)(struct flare_client *client, struct ask *ask,
                       const struct wire_frame *answer);
    void (*on_failed)(struct flare_client *client, struct ask *ask, enum ask_failure failure,
                      const struct flare_error *error);
};

#define ASK_NO_ANSWER ((enum wire_type)0)

/* Whether the broker keeps it until there is something to say: it takes room in its window. */
static inline bool ask_waits(const struct ask *ask)
{
    return ask->type == WIRE_pull || ask->type == WIRE_consume;
}

#endif
