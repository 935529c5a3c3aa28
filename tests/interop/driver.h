/* A program that lets the scenario suite drive libflare: it reads commands as lines of JSON and
 * answers each by a line (tests/interop/scene.py has them all). It uses the library's functions
 * that block, or the asynchronous ones, as its first argument says, and opens a broker in its own
 * process when it is told to.
 *
 * What can fail ends in a result, an object with `code`; a broken command ends the program. */
#ifndef INTEROP_DRIVER_H
#define INTEROP_DRIVER_H

#include <jansson.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <flare/flare.h>

/* ---- results and fields (driver_json.c) ----------------------------------------------------- */

/* {"code": ..., "detail": ...}; ok without a detail. `error` may be NULL where code is FLARE_OK. */
json_t *result_make(enum flare_code code, const struct flare_error *error);
json_t *result_delivery(const struct flare_delivery *delivery);
json_t *result_pulled(const struct flare_batch *batch);
json_t *result_published(const struct flare_result *results, size_t count);
/* `codes` of `count` receipts. */
json_t *result_settled(const enum flare_code *codes, size_t count);

/* A field of a command, or what stands for it when it is absent. */
const char *field_text(const json_t *command, const char *name, const char *absent);
uint64_t field_number(const json_t *command, const char *name, uint64_t absent);
bool field_true(const json_t *command, const char *name);

/* Bytes from hexadecimal text; the caller frees them. */
uint8_t *hex_decode(const char *text, size_t *size);
json_t *hex_encode(const void *bytes, size_t size);

/* The messages of a publish, with all they point to. */
struct message_list {
    struct flare_message *items;
    size_t count;
};
void message_list_init(struct message_list *list, const json_t *command);
void message_list_deinit(struct message_list *list);

struct flare_source source_decode(const json_t *command);
struct flare_pull pull_decode(const json_t *command);
/* Its receipts are the caller's to free. */
struct flare_settle settle_decode(const json_t *command);

/* ---- replies: a result that comes later, from any thread (driver_reply.c) ---------------------
 */

struct reply {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    json_t *result; /* NULL: not yet */
};
struct reply *reply_create(void);
/* Takes the result. */
void reply_complete(struct reply *reply, json_t *result);
/* Waits for the result, which is the caller's, and destroys the reply. */
json_t *reply_wait(struct reply *reply);

/* ---- ways of asking (driver_blocking.c, driver_async.c) ---------------------------------------
 */

/* Begins a publish, pull or settle. The command is borrowed until the reply is complete. */
struct reply *blocking_begin(struct flare_client *client, json_t *command);
struct reply *async_begin(struct flare_client *client, json_t *command);

/* ---- a broker of its own (driver_embedded.c) --------------------------------------------------
 */

struct flare_broker;
json_t *embedded_open(const json_t *command, struct flare_broker **broker);
void embedded_shut(struct flare_broker *broker);

/* ---- streams (driver_stream.c) ----------------------------------------------------------------
 */

struct stream;
/* Opens a stream whose handlers wait for their verdicts; NULL and a result that tells why not. */
struct stream *stream_open(struct flare_client *client, const json_t *command, json_t **result);
/* The deliveries of the next `count` handlers. */
json_t *stream_take(struct stream *stream, size_t count);
json_t *stream_verdict(struct stream *stream, const char *receipt, const char *verdict);
/* Waits until it has ended by itself. */
json_t *stream_end(struct stream *stream);
void stream_close(struct stream *stream);

#endif
