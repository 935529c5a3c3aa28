/* A broker that says what a test wants, for what no real one does: it is the other end of
 * flare_options.dial, and the test reads and answers each frame itself. Its welcome is on the way
 * before the client has greeted, so that one thread is enough for both sides.
 *
 *   fake_broker_init(&fake);
 *   struct flare_options options = {.dial = fake_broker_dial, .dial_user = &fake};
 *   flare_connect(&options, &client, &error);
 *   fake_broker_accept(&fake);
 *   flare_publish_async(client, ...);
 *   fake_broker_expect(&fake, WIRE_publish, &frame);
 *   fake_broker_publish(&fake, &frame, FLARE_OK);
 *
 * Everything that waits ends the test when nothing comes in time. */
#ifndef LIB_FAKE_BROKER_H
#define LIB_FAKE_BROKER_H

#include <flare/flare.h>
#include <pthread.h>

#include "broker/base/buf.h"
#include "broker/wire/message.h"

enum { FAKE_BROKER_TIMEOUT_MS = 20000, FAKE_BROKER_DIALS_MAX = 64 };

struct fake_broker {
    pthread_mutex_t lock;
    pthread_cond_t dialled;
    int sockets[FAKE_BROKER_DIALS_MAX]; /* dialled and not accepted yet */
    uint32_t dial_count;
    uint32_t accept_count;
    uint32_t refuse_count; /* dials that are to fail */
    bool is_silent;        /* no welcome is sent */
    struct wire_welcome welcome;
    struct span instead; /* bytes to send instead of the welcome; empty: none */
    int socket;          /* of the connection accepted last; -1: none */
    struct buf in;
    size_t read_size; /* of the frame read last, at the begin of `in` */
    struct buf out;
};

void fake_broker_init(struct fake_broker *fake);
void fake_broker_deinit(struct fake_broker *fake);

/* For flare_options.dial, with the fake broker as `dial_user`. */
int fake_broker_dial(void *user);
/* How often it was called, refused ones included. */
uint32_t fake_broker_dials(struct fake_broker *fake);
void fake_broker_refuse(struct fake_broker *fake, uint32_t count);

/* Waits for the next connection, reads its hello, and talks over it from now on. */
void fake_broker_accept(struct fake_broker *fake);
void fake_broker_cut(struct fake_broker *fake);

/* The next frame, which must be of this type; valid until the next one is read. */
void fake_broker_expect(struct fake_broker *fake, enum wire_type type, struct wire_frame *out);
/* The next frame, whatever it is. */
void fake_broker_expect_any(struct fake_broker *fake, struct wire_frame *out);
/* The bytes of the frame read last, with its size field. */
struct span fake_broker_bytes(const struct fake_broker *fake);
/* Whether no frame comes within a moment: what must not happen cannot be waited for. */
bool fake_broker_is_quiet(struct fake_broker *fake, uint32_t wait_ms);
/* Takes in what has come, so that the client can write on. */
void fake_broker_take(struct fake_broker *fake);
/* Forgets what has come and was not read. */
void fake_broker_drain(struct fake_broker *fake);
/* Waits for the client to close the connection. */
void fake_broker_expect_end(struct fake_broker *fake);

void fake_broker_send(struct fake_broker *fake, enum wire_type type, const void *message);
void fake_broker_send_raw(struct fake_broker *fake, struct span bytes);
/* Answers a publish: every message has this code. Sequences count from `sequence` on. */
void fake_broker_publish(struct fake_broker *fake, const struct wire_frame *publish,
                         enum flare_code code, uint64_t sequence);
void fake_broker_fail(struct fake_broker *fake, uint64_t id, enum flare_code code);
/* Sends `count` deliveries as `type`, pulled or deliver, with bodies "m0", "m1", ... from `first`
 * on. */
void fake_broker_deliver(struct fake_broker *fake, enum wire_type type, uint64_t id, uint32_t first,
                         uint32_t count);
/* Answers ack, nack or extend: every receipt has this code. */
void fake_broker_settle(struct fake_broker *fake, const struct wire_frame *settle,
                        enum flare_code code);
/* The same with the code for one receipt only: the others took effect. */
void fake_broker_settle_but(struct fake_broker *fake, const struct wire_frame *settle,
                            const char *receipt, enum flare_code code);
/* Whether the receipt of this index in ack, nack or extend has these bytes. */
bool fake_broker_has_receipt(const struct wire_frame *settle, uint32_t index, const char *text);

#endif
