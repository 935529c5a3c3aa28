/* Streams. The client's thread grants credit, takes deliveries in, extends their leases, and sends
 * the verdicts of a turn together; the stream's own threads run the handlers. Between them stand
 * two lists of deliveries, those that wait for a handler and those that are finished.
 *
 * A delivery is held from its arrival until its verdict is on its way; while it is, it counts
 * against the credit. What is to be settled is kept apart, since it may have to be sent again over
 * the next connection after the delivery's memory is gone. */
#ifndef CLIENT_INTAKE_H
#define CLIENT_INTAKE_H

#include "client/call.h"
#include "client/parcel.h"

/* The verdict on what no handler has begun: nacked without delay. */
#define INTAKE_RETURN ((enum flare_verdict)5)

struct flare_stream {
    struct flare_client *client;
    struct flare_stream_options options; /* with its defaults */
    struct flare_source source;
    struct list_link link; /* in the client's list */
    pthread_t *workers;
    uint32_t worker_count;

    pthread_mutex_t lock;
    pthread_cond_t work;    /* something waits, or is_stopping */
    pthread_cond_t changed; /* is_detached */
    struct list waiting;
    struct list finished;
    struct flare_stream_counts counts;
    struct await *opening; /* who waits for the broker's word; NULL: nobody */
    bool is_closing;
    bool is_detached; /* the client's thread is done with it */
    bool is_stopping; /* its own threads are to end */

    /* The client's thread's own. */
    struct call *consume; /* under way or answered by deliveries; NULL: the stream is not open */
    bool is_cancelling;
    bool is_over;        /* it has ended for good */
    uint32_t refusals;   /* since it was last open */
    uint64_t reopen_us;  /* not before */
    int64_t credit;      /* messages granted and not delivered */
    int64_t credit_size; /* likewise bytes */
    uint32_t here;       /* deliveries held */
    size_t here_size;
    uint32_t settling; /* requests under way that settle or extend */
    struct list held;  /* by extend_us */
    uint64_t lease_us; /* how long leases are; 0: not known yet */
    bool is_learning;  /* an extend that will tell is under way */
    char texts[];
};

/* A stream without threads that no client knows of yet. The options have been checked and have
 * their defaults; texts are copied. NULL: no memory. */
struct flare_stream *intake_create(struct flare_client *client, const struct flare_source *source,
                                   const struct flare_stream_options *options);
/* It must be detached, and its threads have ended. */
void intake_destroy(struct flare_stream *stream);

/* The streams' share of a turn. */
void intake_turn(struct flare_client *client);
uint64_t intake_due_us(const struct flare_client *client);

/* Ends every stream of the client, as flare_stream_close does. */
void intake_close_all(struct flare_client *client);

/* ---- between intake.c and intake_settle.c ---- */

/* Sends the verdicts of these items and lets them go. */
void intake_settle_all(struct flare_stream *stream, struct list *finished);
/* Extends what is due. */
void intake_extend_due(struct flare_stream *stream);
/* The stream holds it no longer. */
void intake_release(struct flare_stream *stream, struct parcel_item *item);

#endif
