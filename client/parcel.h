/* Deliveries that have come from the broker, in one block of memory of their own: what a pull
 * gives, and what a stream's frame held. */
#ifndef CLIENT_PARCEL_H
#define CLIENT_PARCEL_H

#include <flare/flare.h>
#include <stdatomic.h>

#include "broker/base/list.h"
#include "broker/wire/message.h"

/* One delivery. What is beyond the first field is a stream's, see intake.h. */
struct parcel_item {
    struct flare_delivery delivery;
    struct flare_batch *batch;
    _Atomic bool is_lost; /* its lease */
    bool is_running;      /* its handler */
    bool is_extending;    /* an answer to that is under way, so it must stay */
    bool is_done;         /* settled, kept or lost: it goes once it is not being extended */
    enum flare_verdict verdict;
    uint64_t arrived_us;
    uint64_t extend_us;         /* when its lease is to be extended; UINT64_MAX: not known yet */
    struct list_link link;      /* among those that wait, or are finished */
    struct list_link held_link; /* among all whose lease is to be extended */
};

struct flare_batch {
    uint32_t count;
    uint32_t left; /* items that a stream is not done with */
    struct flare_source source;
    struct parcel_item items[];
};

/* Copies everything. ERR_INVALID: the broker's bytes are wrong; ERR_MEMORY. */
err_t parcel_create(const struct wire_list *deliveries, const struct flare_source *source,
                    struct flare_batch **out) MUST_CHECK;

/* A message's id as text. */
void parcel_put_id(char out[FLARE_ID_SIZE], struct span id);

/* What a delivery takes of a stream's byte credit: as the broker counts it. */
size_t parcel_credit(const struct flare_delivery *delivery);

#endif
