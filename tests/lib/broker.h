/* The real flared, run by a test: on a temporary directory of its own or on a given one, on a free
 * port of loopback. Ready when broker_start returns. Its log goes to a file, which is shown when it
 * does not come up as expected. */
#ifndef LIB_BROKER_H
#define LIB_BROKER_H

#include "tests/lib/http_client.h"
#include "tests/lib/process.h"
#include "tests/lib/tmpdir.h"

enum { BROKER_TIMEOUT_MS = 30000, BROKER_ARGUMENTS_MAX = 16 };

struct broker {
    struct process process;
    uint16_t port;      /* of HTTP */
    uint16_t wire_port; /* of the wire protocol; 0: it is off */
    uint64_t start_us;
    uint64_t ready_us; /* from the start to the line that says it is ready */
    char data[TMPDIR_PATH_SIZE];
    struct tmpdir tmpdir; /* of the log, and of the data of an ephemeral one */
    char log_path[TMPDIR_PATH_SIZE];
};

struct broker_options {
    const char *data;               /* NULL: ephemeral */
    const char *const *arguments;   /* further ones, ended by NULL; may be NULL */
    const char *const *environment; /* "NAME=VALUE", ended by NULL; may be NULL */
};

/* Ends the test when it does not come up. */
void broker_start(struct broker *broker, const struct broker_options *options);
/* The two halves of that; in between it may be killed. */
void broker_launch(struct broker *broker, const struct broker_options *options);
void broker_await(struct broker *broker);
/* Starts it where it must refuse: its exit status, and in `log` (terminated, cut to fit) what it
 * said. */
int broker_refused(const struct broker_options *options, char *log, size_t size);

/* SIGTERM; the exit status, and in `took_us` (may be NULL) how long it took. */
int broker_terminate(struct broker *broker, uint64_t *took_us);
/* SIGKILL, and its end is waited for. */
void broker_kill(struct broker *broker);
/* Kills it when it runs and removes what is temporary. May be called twice. */
void broker_stop(struct broker *broker);

/* What it has logged so far, the caller's to free. */
char *broker_log(const struct broker *broker);

uint64_t broker_now_us(void);

#endif
