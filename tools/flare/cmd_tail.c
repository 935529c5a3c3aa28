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

#include "tools/flare/link.h"
#include "tools/flare/output.h"
#include "tools/flare/progress.h"
#include "tools/flare/transport.h"

enum { TAIL_ACK, TAIL_COUNT, TAIL_IDLE, TAIL_BODY, TAIL_CREDIT, TAIL_LEASE, TAIL_CONSUMER };
enum {
    CREDIT_DEFAULT = 100,
    PULL_WAIT_MS = 1000, /* over HTTP: how soon a reason to end is seen */
    KEPT_MAX = 100000,
    BODY_MAX = 64 * 1024 * 1024,
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
    [TAIL_BODY] = {.name = "body",
                   .letter = 'b',
                   .kind = OPTION_FLAG,
                   .help = "print only the bodies, each as it is and followed by a new line"},
    [TAIL_CREDIT] = {.name = "credit",
                     .kind = OPTION_NUMBER,
                     .min = 1,
                     .max = 10000,
                     .value = "N",
                     .help = "messages that may be on their way here; default 100"},
    [TAIL_LEASE] = {.name = "lease",
                    .kind = OPTION_DURATION,
                    .min = 100,
                    .max = 43200000,
                    .value = "TIME",
                    .help = "how long they are yours; default the subscription's"},
    [TAIL_CONSUMER] = {.name = "consumer",
                       .kind = OPTION_TEXT,
                       .value = "NAME",
                       .help = "who asks, for the broker's log"},
    {.name = NULL},
};

static const struct field tail_fields[] = {
    {"ID", "id", FIELD_TEXT},
    {"SHARD", "shard", FIELD_NUMBER},
    {"ATTEMPT", "attempt", FIELD_NUMBER},
    {"KEY", "key", FIELD_TEXT},
    {"BODY", "", FIELD_BODY},
    {.title = NULL},
};

struct tail {
    struct cli *cli;
    const struct arguments *arguments;
    struct output output;
    uint64_t count_max;
    uint64_t count;             /* printed; by whoever prints */
    struct flare_receipt *kept; /* of what was printed and not acknowledged */
    size_t kept_count;
    _Atomic bool ending;       /* nothing more is to be printed */
    _Atomic int broken;        /* why standard output takes no more; 0: it does */
    _Atomic uint64_t heard_us; /* when a message came last */
    pthread_mutex_t lock;      /* of `end` */
    struct flare_error end;    /* why the stream has ended by itself; code 0: it has not */
};

/* Rung by the handler, by the end of the stream and by signals. */
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

static void print_body(struct span body)
{
    (void)fwrite(body.data, 1, body.size, stdout);
    (void)putchar('\n');
}

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

/* ---- over the wire ---- */

static enum flare_verdict tail_on_delivery(void *user, const struct flare_delivery *delivery)
{
    struct tail *tail = user;
    bool ack = tail->arguments->values[TAIL_ACK].set;
    if (atomic_load(&tail->ending)) {
        return FLARE_NACK;
    }
    if (tail->arguments->values[TAIL_BODY].set) {
        print_body(span_of(delivery->body, delivery->body_size));
    } else {
        json_t *message = link_delivery(delivery);
        print_document(tail, message);
        json_decref(message);
    }
    if (!written(tail)) {
        ring();
        return FLARE_NACK;
    }
    count_message(tail);
    if (!ack) {
        tail->kept[tail->kept_count] = delivery->receipt;
        tail->kept_count++;
    }
    if (atomic_load(&tail->ending)) {
        ring();
    }
    return ack ? FLARE_ACK : FLARE_KEEP;
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

/* Until the handler, the stream, a signal or silence ends it. */
static void wait_for_end(struct tail *tail)
{
    uint64_t idle_us = tail->arguments->values[TAIL_IDLE].number * 1000;
    while (!atomic_load(&tail->ending) && interrupted == 0) {
        struct pollfd rung = {.fd = bell, .events = POLLIN};
        uint64_t silent_us = progress_now_us() - atomic_load(&tail->heard_us);
        if (idle_us > 0 && silent_us >= idle_us) {
            break;
        }
        int timeout_ms = idle_us == 0 ? -1 : (int)((idle_us - silent_us + 999) / 1000);
        (void)poll(&rung, 1, timeout_ms);
    }
    atomic_store(&tail->ending, true);
}

/* Gives back what was only looked at; leases that have ended meanwhile are no matter. */
static err_t give_back(struct tail *tail, struct flare_client *link,
                       const struct flare_source *source)
{
    enum { AT_ONCE = 10000 };
    const struct flare_nack nack = {.has_delay = true};
    for (size_t at = 0; at < tail->kept_count; at += AT_ONCE) {
        struct flare_error error;
        size_t left = tail->kept_count - at;
        enum flare_code code = flare_nack(link, source, &nack, tail->kept + at,
                                          left < AT_ONCE ? left : AT_ONCE, &error);
        if (code != FLARE_ERR_LEASE_LOST) {
            TRY(link_error(tail->cli, code, &error));
        }
    }
    return NULL;
}

static err_t tail_wire(struct tail *tail, const char *address)
{
    struct flare_client *link = NULL;
    struct flare_stream *stream = NULL;
    struct flare_error error;
    err_t err = NULL;
    const struct option_value *values = tail->arguments->values;
    const struct flare_source source = {tail->arguments->operands[0], tail->arguments->operands[1]};
    uint64_t credit = arguments_number(tail->arguments, TAIL_CREDIT, CREDIT_DEFAULT);
    credit = credit < tail->count_max ? credit : tail->count_max;
    const struct flare_stream_options options = {.handler = tail_on_delivery,
                                                 .user = tail,
                                                 .concurrency = 1,
                                                 .prefetch = (uint32_t)credit - 1,
                                                 .lease_ms = values[TAIL_LEASE].number,
                                                 .consumer = values[TAIL_CONSUMER].text,
                                                 .on_end = tail_on_end};
    TRY(link_open(tail->cli, address, 0, &link));
    TRY_OUT(
        link_error(tail->cli, flare_stream_open(link, &source, &options, &stream, &error), &error));
    wait_for_end(tail);
    flare_stream_close(stream);
    TRY_OUT(give_back(tail, link, &source));
    TRY_OUT(link_error(tail->cli, tail->end.code, &tail->end));
out:
    flare_close(link);
    return err;
}

/* ---- over HTTP ---- */

#define SUB_PATH "/v1/topics/{}/subscriptions/{}"

static err_t pull_some(struct tail *tail, json_t **out)
{
    struct request request;
    const struct arguments *arguments = tail->arguments;
    uint64_t max = arguments_number(arguments, TAIL_CREDIT, CREDIT_DEFAULT);
    max = max < tail->count_max - tail->count ? max : tail->count_max - tail->count;
    json_t *document =
        json_pack("{s:I, s:I}", "max", (json_int_t)max, "wait", (json_int_t)PULL_WAIT_MS);
    cli_set_number(document, "lease", arguments, TAIL_LEASE);
    if (arguments->values[TAIL_CONSUMER].set) {
        (void)json_object_set_new(document, "consumer",
                                  json_string(arguments->values[TAIL_CONSUMER].text));
    }
    request_init(&request, "POST", SUB_PATH "/pull", arguments->operands[0],
                 arguments->operands[1]);
    request_json(&request, document);
    request.wait_ms = PULL_WAIT_MS;
    return client_call(tail->cli->client, &request, out);
}

static err_t settle_http(struct tail *tail, const char *verb, json_t *receipts)
{
    struct request request;
    json_t *document = json_pack("{s:o}", "receipts", receipts);
    if (strcmp(verb, "nack") == 0) {
        (void)json_object_set_new(document, "delay", json_integer(0));
    }
    request_init(&request, "POST", SUB_PATH "/{}", tail->arguments->operands[0],
                 tail->arguments->operands[1], verb);
    request_json(&request, document);
    err_t err = client_call(tail->cli->client, &request, NULL);
    if (err_code(err) == ERR_LEASE_LOST) {
        err_free(err);
        return NULL;
    }
    return err;
}

/* Prints what one pull has brought; the receipts of what was printed go to `printed`, of what was
 * not to `left`. */
static err_t print_pulled(struct tail *tail, const json_t *messages, json_t *printed, json_t *left)
{
    struct buf body;
    err_t err = NULL;
    buf_init(&body, BODY_MAX);
    for (size_t i = 0; i < json_array_size(messages); i++) {
        const json_t *message = json_array_get(messages, i);
        json_t *receipt = json_object_get(message, "receipt");
        if (!atomic_load(&tail->ending) && tail->arguments->values[TAIL_BODY].set) {
            buf_reset(&body);
            TRY_OUT(output_body(message, &body));
            print_body(buf_span(&body));
        } else if (!atomic_load(&tail->ending)) {
            print_document(tail, message);
        }
        bool good = !atomic_load(&tail->ending) && written(tail);
        (void)json_array_append(good ? printed : left, receipt);
        if (good) {
            count_message(tail);
        }
    }
out:
    buf_deinit(&body);
    return err;
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
        TRY_OUT(settle_http(tail, "ack", json_incref(printed)));
    }
    if (json_array_size(left) > 0) {
        TRY_OUT(settle_http(tail, "nack", json_incref(left)));
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
        uint64_t silent_us = progress_now_us() - atomic_load(&tail->heard_us);
        if (idle_us > 0 && silent_us >= idle_us) {
            break;
        }
    }
    while (json_array_size(kept) > 0) {
        json_t *some = json_array();
        for (size_t i = json_array_size(kept); i > 0 && json_array_size(some) < 10000; i--) {
            (void)json_array_append(some, json_array_get(kept, i - 1));
            (void)json_array_remove(kept, i - 1);
        }
        TRY_OUT(settle_http(tail, "nack", some));
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
    struct tail tail = {.cli = cli,
                        .arguments = arguments,
                        .count_max = arguments_number(arguments, TAIL_COUNT, UINT64_MAX)};
    TRY(transport_find(cli, address));
    TRY(watch_signals());
    output_init(&tail.output, cli, tail_fields);
    atomic_store(&tail.heard_us, progress_now_us());
    (void)pthread_mutex_init(&tail.lock, NULL);
    tail.kept = calloc(KEPT_MAX, sizeof *tail.kept);
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
     .details = "Goes on until it is interrupted, or as --count and --idle say. Without --ack the\n"
                "messages are leased while it runs and given back at its end, which counts as an\n"
                "attempt of each: to look without touching, use flare peek.",
     .examples = "  flare tail orders billing --ack\n"
                 "  flare tail orders billing --ack --json | jq -r .body\n"
                 "  flare tail orders billing --ack --body --idle 5s > orders.txt\n"
                 "  flare tail orders billing -n 3\n",
     .options = tail_options,
     .run = tail_run},
    {.name = NULL},
};
