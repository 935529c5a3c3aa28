/* The insides of struct flare_broker, shared by the files of libflare-broker: flare_broker.c opens,
 * closes and moves the clock, flare_broker_ask.c changes and looks. */
#ifndef BROKER_EMBEDDED_H
#define BROKER_EMBEDDED_H

#include <flare/broker.h>

#include "broker/base/clock.h"
#include "broker/base/log.h"
#include "broker/caller.h"
#include "broker/node.h"

struct flare_broker {
    struct config config;
    struct clock clock;
    bool simulated;
    struct log_sink sink;
    char *name;
    void (*log)(void *user, const char *line, size_t size);
    void *log_user;
    uv_loop_t loop;
    struct caller caller;
    pthread_t thread;
    /* Of the loop's thread, while it runs. */
    struct node *node;
    uv_prepare_t look;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t changed;
    bool started; /* or failed to */
    err_t start_err;
    uint32_t waiting; /* pulls that wait */
};

/* Fills `error` (may be NULL) and gives the code back. */
enum flare_code embedded_fail(struct flare_error *error, enum err_code code, const char *message);
/* The same; takes `err`, which may be NULL: FLARE_OK. */
enum flare_code embedded_result(struct flare_error *error, err_t err);

#endif
