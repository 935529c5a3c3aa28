/* A request that is not a publish: its frame, its ask, and what is told of its end. */
#ifndef CLIENT_CALL_H
#define CLIENT_CALL_H

#include "client/await.h"
#include "client/engine.h"

struct call {
    struct ask ask;
    struct buf frame;
    void *owner; /* for on_end */
    /* Either `answer` or `error` is NULL. An error may be returned only for an answer, and then it
     * stays unanswered. Otherwise it frees the call with call_free. */
    err_t (*on_end)(struct flare_client *client, struct call *call, const struct wire_frame *answer,
                    enum ask_failure failure, const struct flare_error *error);
};

/* `size` bytes, of a struct that begins with a call; cleared. NULL: no memory. */
void *call_create(size_t size, struct flare_error *error);
void call_free(struct call *call);
/* An on_end for what nobody waits for: only frees it. */
err_t call_forget(struct flare_client *client, struct call *call, const struct wire_frame *answer,
                  enum ask_failure failure, const struct flare_error *error);

/* Encodes `message`, whose id must be its first field, as a new request. */
enum flare_code call_encode(struct flare_client *client, struct call *call, enum wire_type type,
                            enum wire_type answer, void *message, struct flare_error *error);
/* The same with an id that stands for something else. */
enum flare_code call_encode_as(struct call *call, uint64_t id, enum wire_type type,
                               enum wire_type answer, void *message, struct flare_error *error);
/* Gives it to the client's thread. On failure it stays the caller's. */
enum flare_code call_submit(struct flare_client *client, struct call *call,
                            struct flare_error *error);

/* The whole of a blocking request: a call whose answer is put into the await's data by `take`,
 * which may be NULL.*/
struct call_blocking {
    enum wire_type type;
    enum wire_type answer;
    void *message; /* its struct */
    void (*take)(const struct wire_frame *answer, void *data);
    void *data; /* where the result goes, on FLARE_OK; NULL: nowhere */
    size_t data_size;
};
enum flare_code call_block(struct flare_client *client, const struct call_blocking *blocking,
                           struct flare_error *error);

#endif
