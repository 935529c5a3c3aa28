/* flare tail: the messages of a subscription as they come.
 *
 * Over the wire they come on a credit stream whose one handler prints them; the main thread waits
 * for a reason to end. Over HTTP they are pulled in a loop, with the same options. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tools/flare/deliveries.h"
#include "tools/flare/link.h"
#include "tools/flare/output.h"
#include "tools/flare/progress.h"
#include "tools/flare/transport.h"

enum { TAIL_ACK, TAIL_COUNT, TAIL_IDLE, TAIL_BODY, TAIL_CREDIT, TAIL_LEASE, TAIL_CONSUMER };
enum {
    CREDIT_DEFAULT = 100,
    CREDIT_MAX = 10000,
    PULL_WAIT_MS = 1000, /* over HTTP: how soon a reason to end is seen */
    LEASE_DEFAULT_MS = 30000,
    /* A lease is extended after this part of it: it had half of itself left when its message was
     * handed over, since a stream extends at the half what waits. */
    EXTEND_PART = 3,
    SETTLE_MAX = 10000, /* receipts of one request */
    KEPT_MAX = 100000,
};

static const struct option_row tail_options[] = {
    [TAIL_ACK] = {.name = "ack",
                  .kind = OPTION_FLAG,
                  .help = "acknowledge each once it is written to standard output; otherwise they "
                          "go back at the end"},
    [TAIL_COUNT] = {.name = "count",
                    .letter = 'n',
                    .kind = OPTION_NUMBER,
                    .min = 1,
                    .max = 1000000000,
                    .value = "N",
                    .help = "end after so many messages"},
    [TAIL_IDLE] = {.name = "idle",
                   .letter = 'e',
                   .kind = OPTION_DURATION,
                   .min = 1,
                   .max = 86400000,
                   .value = "TIME",
                   .help = "end when none has come for so long"},
    [TAIL_BODY] = DELIVERIES_BODY_ROW,
    [TAIL_CREDIT] = {.name = "credit",
                     .kind = OPTION_NUMBER,
                     .min = 1,
                     .max = CREDIT_MAX,
                     .value = "N",
                     .help = "messages that may be on their way here; default 100"},
    [TAIL_LEASE] = DELIVERIES_LEASE_ROW("how long they are yours; default the subscription's, "
                                        "without --ack 30s, extended while it runs"),
    [TAIL_CONSUMER] = DELIVERIES_CONSUMER_ROW,
    {.name = NULL},
};

struct tail {
    struct cli *cli;
    const struct arguments *arguments;
    struct output output;
    uint64_t count_max;
    uint64_t count;         /* printed; by whoever prints */
    uint64_t lease_ms;      /* 0: the subscription's */
    uint64_t extend_us;     /* between two extensions of what is kept; 0: it is not kept so long */
    uint64_t extend_due_us; /* the next one */
    _Atomic bool ending;    /* nothing more is to be printed */
    _Atomic int broken;     /* why standard output takes no more; 0: it does */
    _Atomic uint64_t heard_us; /* since when it is silent: a message was printed, or it connected */
    struct flare_source source;

    /* Of the wire protocol. */
    struct flare_client *link;
    struct flare_stream *stream;
    _Atomic bool connected;
    pthread_mutex_t lock;       /* of what follows */
    struct flare_receipt *kept; /* what goes back at the end: only looked at, or not printed */
    size_t kept_count;          /* handlers add, the main thread removes */
    struct flare_error end;     /* why the stream has ended by itself; code 0: it has not */
};

/* Rung by the handler, by the connection, by the end of the stream and by signals. */
static int bell = -1;
static volatile sig_atomic_t interrupted = 0;

static void ring(void)
{
    static const uint64_t one = 1;
    ssize_t size = write(bell, &one, sizeof one);
    (void)size; /* it is rung already */
}

static void tail_on_signal(int number)
{
    int kept_errno = errno;
    (void)number;
    interrupted = 1;
    ring();
    errno = kept_errno;
}

/* Interrupts end it in order, so that what was not printed goes back; and so does a reader that
 * has seen enough. */
static err_t watch_signals(void)
{
    const struct sigaction interrupt = {.sa_handler = tail_on_signal};
    const struct sigaction ignore = {.sa_handler = SIG_IGN};
    bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (bell < 0) {
        return ERR(IO, "eventfd: %s", strerror(errno));
    }
    (void)sigaction(SIGINT, &interrupt, NULL);
    (void)sigaction(SIGTERM, &interrupt, NULL);
    (void)sigaction(SIGPIPE, &ignore, NULL);
    return NULL;
}

/* ---- printing ---- */

/* True when it has left this process. */
static bool written(struct tail *tail)
{
    bool good = fflush(stdout) == 0 && ferror(stdout) == 0;
    if (!good) {
        atomic_store(&tail->broken, errno == 0 ? EIO : errno);
        atomic_store(&tail->ending, true);
    }
    return good;
}

static void print_document(struct tail *tail, const json_t *message)
{
    json_t *list = json_pack("[O]", message);
    output_items(&tail->output, list);
    json_decref(list);
}

/* What has been printed counts; the last one wanted ends it, and so does the last receipt that can
 * be kept. */
static void count_message(struct tail *tail)
{
    tail->count++;
    atomic_store(&tail->heard_us, progress_now_us());
    if (tail->count == tail->count_max ||
        (!tail->arguments->values[TAIL_ACK].set && tail->count == KEPT_MAX)) {
        atomic_store(&tail->ending, true);
    }
}

/* Whether what is kept is to be extended now. */
static bool is_extend_due(struct tail *tail)
{
    uint64_t now_us = progress_now_us();
    bool is_due = tail->extend_us > 0 && now_us >= tail->extend_due_us;
    if (is_due) {
        tail->extend_due_us = now_us + tail->extend_us;
    }
    return is_due;
}

/* ---- over the wire ---- */

static enum flare_verdict keep(struct tail *tail, const struct flare_receipt *receipt)
{
    (void)pthread_mutex_lock(&tail->lock);
    bool has_room = tail->kept_count < KEPT_MAX + CREDIT_MAX;
    if (has_room) {
        tail->kept[tail->kept_count] = *receipt;
        tail->kept_count++;
    }
    (void)pthread_mutex_unlock(&tail->lock);
    return has_room ? FLARE_KEEP : FLARE_NACK;
}

/* What it does not print is kept too: a nack here would delay it, and what is kept goes back
 * without. */
static enum flare_verdict tail_on_delivery(void *user, const struct flare_delivery *delivery)
{
    struct tail *tail = user;
    bool ack = tail->arguments->values[TAIL_ACK].set;
    if (atomic_load(&tail->ending)) {
        return keep(tail, &delivery->receipt);
    }
    if (tail->arguments->values[TAIL_BODY].set) {
        deliveries_print_body(span_of(delivery->body, delivery->body_size));
    } else {
        json_t *message = link_delivery(delivery);
        print_document(tail, message);
        json_decref(message);
    }
    bool good = written(tail);
    if (good) {
        count_message(tail);
    }
    if (atomic_load(&tail->ending)) {
        ring();
    }
    return good && ack ? FLARE_ACK : keep(tail, &delivery->receipt);
}

static void tail_on_end(void *user, const struct flare_error *error)
{
    struct tail *tail = user;
    (void)pthread_mutex_lock(&tail->lock);
    tail->end = *error;
    (void)pthread_mutex_unlock(&tail->lock);
    atomic_store(&tail->ending, true);
    ring();
}

/* Without a connection it is not silent: nothing can be heard. */
static void tail_on_state(void *user, enum flare_state state, const char *detail)
{
    struct tail *tail = user;
    (void)detail;
    atomic_store(&tail->heard_us, progress_now_us());
    atomic_store(&tail->connected, state == FLARE_STATE_CONNECTED);
    ring();
}

/* A lease that has ended is given up: its message comes again. What else goes wrong is tried again
 * the next time. */
static void extend_kept(struct tail *tail)
{
    enum flare_code codes[SETTLE_MAX];
    struct flare_error error;
    size_t left = 0;
    (void)pthread_mutex_lock(&tail->lock);
    size_t count = tail->kept_count;
    (void)pthread_mutex_unlock(&tail->lock);
    for (size_t at = 0; at < count; at += SETTLE_MAX) {
        const struct flare_settle settle = {.kind = FLARE_SETTLE_EXTEND,
                                            .lease_ms = tail->lease_ms,
                                            .receipts = tail->kept + at,
                                            .count =
                                                count - at < SETTLE_MAX ? count - at : SETTLE_MAX};
        enum flare_code code = flare_settle(tail->link, &tail->source, &settle, codes, &error);
        for (size_t i = 0; i < settle.count; i++) {
            if (code != FLARE_ERR_LEASE_LOST || codes[i] != FLARE_ERR_LEASE_LOST) {
                tail->kept[left++] = tail->kept[at + i];
            }
        }
    }
    (void)pthread_mutex_lock(&tail->lock);
    memmove(tail->kept + left, tail->kept + count, (tail->kept_count - count) * sizeof *tail->kept);
    tail->kept_count -= count - left;
    (void)pthread_mutex_unlock(&tail->lock);
}

static bool give_up(struct tail *tail)
{
    (void)pthread_mutex_lock(&tail->lock);
    tail->end = (struct flare_error){.code = FLARE_ERR_UNAVAILABLE};
    (void)snprintf(tail->end.message, sizeof tail->end.message,
                   "the connection was lost and has not come back");
    (void)pthread_mutex_unlock(&tail->lock);
    return true;
}

/* Whether silence has lasted as long as --idle says. A message that is here is no silence, and a
 * lost connection is none until it is given up. */
static bool is_idle(struct tail *tail)
{
    struct flare_stream_counts counts;
    uint64_t idle_us = tail->arguments->values[TAIL_IDLE].number * 1000;
    uint64_t silent_us = progress_now_us() - atomic_load(&tail->heard_us);
    if (idle_us == 0 || silent_us < idle_us) {
        return false;
    }
    if (!atomic_load(&tail->connected)) {
        return silent_us >= tail->cli->timeout_ms * 1000 && give_up(tail);
    }
    flare_stream_get_counts(tail->stream, &counts);
    if (counts.running > 0 || counts.waiting > 0) {
        atomic_store(&tail->heard_us, progress_now_us());
        return false;
    }
    return true;
}

/* How long nothing can become due. */
static int wait_time_ms(const struct tail *tail)
{
    uint64_t now_us = progress_now_us();
    uint64_t idle_us = tail->arguments->values[TAIL_IDLE].number * 1000;
    uint64_t due_us = UINT64_MAX;
    if (idle_us > 0) {
        uint64_t silent_us = atomic_load(&tail->connected) ? idle_us : tail->cli->timeout_ms * 1000;
        due_us = atomic_load(&tail->heard_us) + (silent_us > idle_us ? silent_us : idle_us);
    }
    if (tail->extend_us > 0 && tail->extend_due_us < due_us) {
        due_us = tail->extend_due_us;
    }
    return due_us == UINT64_MAX ? -1 : due_us <= now_us ? 0 : (int)((due_us - now_us + 999) / 1000);
}

/* Until the handler, the stream, a signal or silence ends it. */
static void wait_for_end(struct tail *tail)
{
    while (!atomic_load(&tail->ending) && interrupted == 0 && !is_idle(tail)) {
        struct pollfd rung = {.fd = bell, .events = POLLIN};
        eventfd_t ignored;
        (void)poll(&rung, 1, wait_time_ms(tail));
        (void)eventfd_read(bell, &ignored);
        if (is_extend_due(tail)) {
            extend_kept(tail);
        }
    }
    atomic_store(&tail->ending, true);
}

/* Leases that have ended meanwhile are no matter. */
static err_t give_back(struct tail *tail)
{
    const struct flare_nack nack = {.has_delay = true};
    for (size_t at = 0; at < tail->kept_count; at += SETTLE_MAX) {
        struct flare_error error;
        size_t left = tail->kept_count - at;
        enum flare_code code = flare_nack(tail->link, &tail->source, &nack, tail->kept + at,
                                          left < SETTLE_MAX ? left : SETTLE_MAX, &error);
        if (code != FLARE_ERR_LEASE_LOST) {
            TRY(link_error(tail->cli, code, &error));
        }
    }
    return NULL;
}

static err_t tail_wire(struct tail *tail, const char *address)
{
    struct flare_error error;
    err_t err = NULL;
    const struct option_value *values = tail->arguments->values;
    uint64_t credit = arguments_number(tail->arguments, TAIL_CREDIT, CREDIT_DEFAULT);
    credit = credit < tail->count_max ? credit : tail->count_max;
    const struct flare_stream_options options = {.handler = tail_on_delivery,
                                                 .user = tail,
                                                 .concurrency = 1,
                                                 .prefetch = (uint32_t)credit - 1,
                                                 .lease_ms = tail->lease_ms,
                                                 .consumer = values[TAIL_CONSUMER].text,
                                                 .on_end = tail_on_end};
    const struct link_options link_options = {.on_state = tail_on_state, .user = tail};
    TRY(link_open(tail->cli, address, &link_options, &tail->link));
    TRY_OUT(link_error(
        tail->cli, flare_stream_open(tail->link, &tail->source, &options, &tail->stream, &error),
        &error));
    atomic_store(&tail->heard_us, progress_now_us());
    wait_for_end(tail);
    flare_stream_close(tail->stream);
    TRY_OUT(link_error(tail->cli, tail->end.code, &tail->end));
    TRY_OUT(give_back(tail));
out:
    flare_close(tail->link);
    return err;
}

/* ---- over HTTP ---- */

/* A pull waits no longer than what is kept may. */
static uint64_t pull_wait_ms(const struct tail *tail)
{
    uint64_t extend_ms = tail->extend_us / 1000;
    return extend_ms == 0 || extend_ms > PULL_WAIT_MS ? PULL_WAIT_MS : extend_ms;
}

static err_t pull_some(struct tail *tail, json_t **out)
{
    uint64_t max = arguments_number(tail->arguments, TAIL_CREDIT, CREDIT_DEFAULT);
    uint64_t left = tail->count_max - tail->count;
    const struct flare_pull pull = {.max = (uint32_t)(max < left ? max : left),
                                    .wait_ms = pull_wait_ms(tail),
                                    .lease_ms = tail->lease_ms,
                                    .consumer = tail->arguments->values[TAIL_CONSUMER].text};
    return deliveries_pull(tail->cli->client, &tail->source, &pull, out);
}

/* Takes `receipts`; with `held` (may be NULL), those whose lease has not been lost are added to it.
 */
static err_t settle_http(struct tail *tail, const char *verb, json_t *receipts, json_t *held)
{
    json_t *document = json_pack("{s:O}", "receipts", receipts);
    if (strcmp(verb, "nack") == 0) {
        (void)json_object_set_new(document, "delay", json_integer(0));
    } else if (strcmp(verb, "extend") == 0) {
        (void)json_object_set_new(document, "lease", json_integer((json_int_t)tail->lease_ms));
    }
    err_t err = deliveries_settle(tail->cli->client, &tail->source, verb, document, NULL);
    const json_t *results = err_code(err) == ERR_LEASE_LOST
                                ? json_object_get(client_problem(tail->cli->client), "results")
                                : NULL;
    for (size_t i = 0; held != NULL && i < json_array_size(receipts); i++) {
        const char *code = json_string_value(json_object_get(json_array_get(results, i), "code"));
        if (code == NULL || strcmp(code, "ok") == 0) {
            (void)json_array_append(held, json_array_get(receipts, i));
        }
    }
    json_decref(receipts);
    if (err_code(err) == ERR_LEASE_LOST) {
        err_free(err);
        return NULL;
    }
    return err;
}

/* The receipts of `kept` from `at` on that fit into one request. */
static json_t *slice(const json_t *kept, size_t at)
{
    json_t *some = json_array();
    for (; at < json_array_size(kept) && json_array_size(some) < SETTLE_MAX; at++) {
        (void)json_array_append(some, json_array_get(kept, at));
    }
    return some;
}

static err_t extend_http(struct tail *tail, json_t *kept)
{
    json_t *held = json_array();
    err_t err = NULL;
    for (size_t at = 0; at < json_array_size(kept); at += SETTLE_MAX) {
        TRY_OUT(settle_http(tail, "extend", slice(kept, at), held));
    }
    (void)json_array_clear(kept);
    (void)json_array_extend(kept, held);
out:
    json_decref(held);
    return err;
}

/* Prints what one pull has brought; the receipts of what was printed go to `printed`, of what was
 * not to `left`. */
static err_t print_pulled(struct tail *tail, const json_t *messages, json_t *printed, json_t *left)
{
    for (size_t i = 0; i < json_array_size(messages); i++) {
        const json_t *message = json_array_get(messages, i);
        json_t *receipt = json_object_get(message, "receipt");
        if (!atomic_load(&tail->ending) && tail->arguments->values[TAIL_BODY].set) {
            TRY(deliveries_print_document(message));
        } else if (!atomic_load(&tail->ending)) {
            print_document(tail, message);
        }
        bool good = !atomic_load(&tail->ending) && written(tail);
        (void)json_array_append(good ? printed : left, receipt);
        if (good) {
            count_message(tail);
        }
    }
    return NULL;
}

/* What was only looked at is kept in `kept`, to go back at the end. */
static err_t tail_once(struct tail *tail, json_t *kept)
{
    json_t *reply = NULL;
    json_t *printed = json_array();
    json_t *left = json_array();
    err_t err = NULL;
    TRY_OUT(pull_some(tail, &reply));
    TRY_OUT(print_pulled(tail, json_object_get(reply, "messages"), printed, left));
    if (!tail->arguments->values[TAIL_ACK].set) {
        (void)json_array_extend(kept, printed);
    } else if (json_array_size(printed) > 0) {
        TRY_OUT(settle_http(tail, "ack", json_incref(printed), NULL));
    }
    if (json_array_size(left) > 0) {
        TRY_OUT(settle_http(tail, "nack", json_incref(left), NULL));
    }
out:
    json_decref(reply);
    json_decref(printed);
    json_decref(left);
    return err;
}

static err_t tail_http(struct tail *tail)
{
    uint64_t idle_us = tail->arguments->values[TAIL_IDLE].number * 1000;
    json_t *kept = json_array();
    err_t err = NULL;
    while (!atomic_load(&tail->ending) && interrupted == 0) {
        TRY_OUT(tail_once(tail, kept));
        if (is_extend_due(tail)) {
            TRY_OUT(extend_http(tail, kept));
        }
        uint64_t silent_us = progress_now_us() - atomic_load(&tail->heard_us);
        if (idle_us > 0 && silent_us >= idle_us) {
            break;
        }
    }
    for (size_t at = 0; at < json_array_size(kept); at += SETTLE_MAX) {
        TRY_OUT(settle_http(tail, "nack", slice(kept, at), NULL));
    }
out:
    json_decref(kept);
    return err;
}

/* ---- the command ---- */

/* A reader that went away, as head does, is an end like any other. */
static err_t finish_output(const struct tail *tail)
{
    int reason = atomic_load(&tail->broken);
    if (reason == 0) {
        return NULL;
    }
    if (reason != EPIPE) {
        return ERR(IO, "writing to standard output failed: %s", strerror(reason));
    }
    return freopen("/dev/null", "w", stdout) == NULL
               ? ERR(IO, "open /dev/null: %s", strerror(errno))
               : NULL;
}

static err_t tail_run(struct cli *cli, const struct arguments *arguments)
{
    char address[TRANSPORT_ADDRESS_SIZE];
    struct tail tail = {
        .cli = cli,
        .arguments = arguments,
        .source = {arguments->operands[0], arguments->operands[1]},
        .count_max = arguments_number(arguments, TAIL_COUNT, UINT64_MAX),
        .lease_ms = arguments_number(arguments, TAIL_LEASE,
                                     arguments->values[TAIL_ACK].set ? 0 : LEASE_DEFAULT_MS)};
    tail.extend_us = arguments->values[TAIL_ACK].set ? 0 : tail.lease_ms * 1000 / EXTEND_PART;
    TRY(transport_find(cli, address));
    TRY(watch_signals());
    output_init(&tail.output, cli, deliveries_fields);
    atomic_store(&tail.heard_us, progress_now_us());
    tail.extend_due_us = atomic_load(&tail.heard_us) + tail.extend_us;
    (void)pthread_mutex_init(&tail.lock, NULL);
    tail.kept = calloc(KEPT_MAX + CREDIT_MAX, sizeof *tail.kept);
    err_t err = tail.kept == NULL    ? ERR(MEMORY, "no memory for receipts")
                : address[0] != '\0' ? tail_wire(&tail, address)
                                     : tail_http(&tail);
    if (err == NULL) {
        err = finish_output(&tail);
    }
    free(tail.kept);
    (void)pthread_mutex_destroy(&tail.lock);
    (void)close(bell);
    return err;
}

const struct cli_command tail_commands[] = {
    {.name = "tail",
     .operands = "TOPIC SUBSCRIPTION",
     .operands_min = 2,
     .operands_max = 2,
     .summary = "Print the messages of a subscription as they come",
     .details =
         "Goes on until it is interrupted, or as --count and --idle say. Without --ack the\n"
         "messages are leased while it runs, however long, and given back at its end, which\n"
         "counts as an attempt of each: to look without touching, use flare peek.",
     .examples = "  flare tail orders billing --ack\n"
                 "  flare tail orders billing --ack --json | jq -r .body\n"
                 "  flare tail orders billing --ack --body --idle 5s > orders.txt\n"
                 "  flare tail orders billing -n 3\n",
     .options = tail_options,
     .run = tail_run},
    {.name = NULL},
};
