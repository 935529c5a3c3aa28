/* flare-peers: the driver of tools/bench/peers, one run against one broker that is there already.
 *
 * A run is one or two stages, publishing and then consuming all of it, or both at once. Prints a
 * line of JSON for each stage and one for the whole: what was lost or doubled. With --stepped it
 * says when it is about to begin a stage, and waits for a line of its input, so that the caller can
 * take the server's CPU time between them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#include "tools/bench/driver.h"
#include "tools/flare/options.h"

enum {
    PEERS_ADAPTER,
    PEERS_PORT,
    PEERS_PUBLISHERS,
    PEERS_WINDOW,
    PEERS_SIZE,
    PEERS_COUNT,
    PEERS_SECONDS,
    PEERS_RATE,
    PEERS_CONSUMERS,
    PEERS_BATCH,
    PEERS_TOGETHER,
    PEERS_RELAXED,
    PEERS_STEPPED,
    PEERS_PATIENCE
};

enum { EXIT_MISCOUNTED = 1, HELD_WAIT_MS = 5000, HELD_PAUSE_MS = 20 };

#define NUMBER_ROW(text, most, help_text)                                                          \
    {                                                                                              \
        .name = text, .kind = OPTION_NUMBER, .max = most, .value = "N", .help = help_text          \
    }
#define FLAG_ROW(text, help_text)                                                                  \
    {                                                                                              \
        .name = text, .kind = OPTION_FLAG, .help = help_text                                       \
    }

static const struct option_row options[] = {
    [PEERS_ADAPTER] = {.name = "adapter",
                       .kind = OPTION_TEXT,
                       .value = "NAME",
                       .help = "the broker's kind; \"list\" prints those there are"},
    [PEERS_PORT] = NUMBER_ROW("port", 65535, "of the broker on 127.0.0.1"),
    [PEERS_PUBLISHERS] = NUMBER_ROW("publishers", 128, "connections; default 4"),
    [PEERS_WINDOW] = NUMBER_ROW("window", WINDOW_MAX, "outstanding messages of each; default 256"),
    [PEERS_SIZE] = NUMBER_ROW("size", BODY_SIZE_MAX, "bytes of a body; default 128"),
    [PEERS_COUNT] = NUMBER_ROW("count", 100000000, "messages at most; default 1000000"),
    [PEERS_SECONDS] = NUMBER_ROW("seconds", 3600, "publish no longer than this"),
    [PEERS_RATE] = NUMBER_ROW("rate", 10000000, "messages per second; default as fast as it goes"),
    [PEERS_CONSUMERS] = NUMBER_ROW("consumers", 128, "connections; default 4"),
    [PEERS_BATCH] = NUMBER_ROW("batch", BATCH_MAX, "messages of one pull at most; default 100"),
    [PEERS_TOGETHER] = FLAG_ROW("together", "publish and consume at the same time"),
    [PEERS_RELAXED] = FLAG_ROW("relaxed", "flushed later, where the client chooses"),
    [PEERS_STEPPED] = FLAG_ROW("stepped", "wait for a line of input before each stage"),
    [PEERS_PATIENCE] = NUMBER_ROW("patience", 3600000, "milliseconds without progress; 15000"),
    {.name = NULL},
};

static const struct cli_command program = {.name = "flare-peers", .options = options};

struct run {
    const struct adapter *adapter;
    struct peer_address address;
    struct stage stage;
    bool together;
    bool stepped;
    struct ledger ledger;
};

static void print_histogram(const char *name, const struct histogram *histogram)
{
    static const struct {
        const char *name;
        double fraction;
    } quantiles[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p999", 0.999}};
    if (histogram->count == 0) {
        return;
    }
    (void)printf(", \"%s\": {", name);
    for (size_t i = 0; i < sizeof quantiles / sizeof quantiles[0]; i++) {
        (void)printf("\"%s\": %llu, ", quantiles[i].name,
                     (unsigned long long)histogram_quantile(histogram, quantiles[i].fraction));
    }
    (void)printf("\"max\": %llu}", (unsigned long long)histogram->max);
}

static void print_stage(const char *name, const struct stage_result *result)
{
    uint64_t messages = result->received > 0 ? result->received : result->published;
    double seconds = (double)result->duration_us / 1e6;
    (void)printf("{\"stage\": \"%s\", \"messages\": %llu, \"seconds\": %.6f, \"rate\": %.1f, "
                 "\"driver_cpu_us\": %llu, \"stalled\": %s",
                 name, (unsigned long long)messages, seconds,
                 seconds > 0 ? (double)messages / seconds : 0.0, (unsigned long long)result->cpu_us,
                 result->stalled ? "true" : "false");
    print_histogram("confirm_us", &result->confirms);
    print_histogram("batch_us", &result->batches);
    print_histogram("end_to_end_us", &result->end_to_end);
    (void)printf("}\n");
    (void)fflush(stdout);
}

static err_t run_stage(struct run *run, const char *name, const struct stage *stage)
{
    struct stage_result *result = calloc(1, sizeof *result);
    char line[16];
    err_t err = NULL;
    if (result == NULL) {
        return ERR(MEMORY, "no memory for a stage");
    }
    if (run->stepped) {
        (void)printf("{\"next\": \"%s\"}\n", name);
        (void)fflush(stdout);
        if (fgets(line, sizeof line, stdin) == NULL) {
            err = ERR(UNAVAILABLE, "the caller is gone");
            goto out;
        }
    }
    TRY_OUT(driver_run(run->adapter, &run->address, stage, &run->ledger, result));
    print_stage(name, result);
out:
    free(result);
    return err;
}

static err_t run_stages(struct run *run)
{
    struct stage publish = run->stage;
    struct stage consume = run->stage;
    if (run->together) {
        return run_stage(run, "both", &run->stage);
    }
    publish.consumers = 0;
    consume.publishers = 0;
    TRY(run_stage(run, "publish", &publish));
    return consume.consumers == 0 ? NULL : run_stage(run, "consume", &consume);
}

/* A broker may learn of its consumers' end a little later than they do: time for it to count. */
static err_t count_held(struct run *run, uint64_t *held)
{
    const struct timespec pause = {.tv_nsec = HELD_PAUSE_MS * 1000000};
    uint64_t wanted = ledger_lost(&run->ledger);
    for (uint32_t waited_ms = 0;; waited_ms += HELD_PAUSE_MS) {
        TRY(run->adapter->held(&run->address, held));
        if (*held == wanted || waited_ms >= HELD_WAIT_MS) {
            return NULL;
        }
        (void)nanosleep(&pause, NULL);
    }
}

static err_t run_all(struct run *run, bool *even)
{
    const struct ledger *ledger = &run->ledger;
    uint64_t held = 0;
    TRY(run->adapter->prepare(&run->address));
    TRY(run_stages(run));
    TRY(count_held(run, &held));
    *even = ledger_is_even(ledger, held, run->stage.consumers > 0);
    (void)printf("{\"stage\": \"count\", \"sent\": %llu, \"confirmed\": %llu, \"received\": %llu, "
                 "\"acked\": %llu, \"lost\": %llu, \"doubled\": %llu, \"foreign\": %llu, "
                 "\"confirmed_twice\": %llu, \"held\": %llu, \"even\": %s}\n",
                 (unsigned long long)ledger->sent, (unsigned long long)ledger->confirmed,
                 (unsigned long long)ledger->received, (unsigned long long)ledger->acked,
                 (unsigned long long)ledger_lost(ledger), (unsigned long long)ledger->doubled,
                 (unsigned long long)ledger->foreign, (unsigned long long)ledger->confirmed_twice,
                 (unsigned long long)held, *even ? "true" : "false");
    return NULL;
}

static err_t read_run(struct run *run, const struct arguments *arguments)
{
    const char *name = arguments->values[PEERS_ADAPTER].text;
    run->adapter = name == NULL ? NULL : adapter_find(name);
    if (run->adapter == NULL) {
        return ERR(INVALID, "--adapter is one of: %s", adapter_names());
    }
    run->address =
        (struct peer_address){.host = "127.0.0.1",
                              .port = (uint16_t)arguments_number(arguments, PEERS_PORT, 0),
                              .relaxed = arguments->values[PEERS_RELAXED].set};
    run->stage = (struct stage){
        .publishers = (uint32_t)arguments_number(arguments, PEERS_PUBLISHERS, 4),
        .window = (uint32_t)arguments_number(arguments, PEERS_WINDOW, 256),
        .size = (uint32_t)arguments_number(arguments, PEERS_SIZE, 128),
        .count_max = arguments_number(arguments, PEERS_COUNT, 1000000),
        .seconds = arguments_number(arguments, PEERS_SECONDS, 0),
        .rate = arguments_number(arguments, PEERS_RATE, 0),
        .consumers = (uint32_t)arguments_number(arguments, PEERS_CONSUMERS, 4),
        .batch = (uint32_t)arguments_number(arguments, PEERS_BATCH, 100),
        .patience_ms = arguments_number(arguments, PEERS_PATIENCE, 15000),
    };
    run->together = arguments->values[PEERS_TOGETHER].set;
    run->stepped = arguments->values[PEERS_STEPPED].set;
    if (run->stage.publishers == 0 || run->stage.window == 0 || run->stage.batch == 0 ||
        run->stage.size < LEDGER_BODY_MIN) {
        return ERR(INVALID, "there must be a publisher, a window, a batch, and %d bytes of body",
                   LEDGER_BODY_MIN);
    }
    return NULL;
}

static void print_help(void)
{
    (void)printf("Usage: flare-peers --adapter NAME --port N [options]\n\n"
                 "The driver of tools/bench/peers. Adapters: %s.\n\n",
                 adapter_names());
    for (const struct option_row *row = options; row->name != NULL; row++) {
        (void)printf("  --%s%s%s\n        %s\n", row->name, row->value == NULL ? "" : " ",
                     row->value == NULL ? "" : row->value, row->help);
    }
}

int main(int argc, char **argv)
{
    struct arguments arguments;
    struct run run = {0};
    bool even = false;
    err_t err = NULL;
    int code = EX_SOFTWARE;
    TRY_OUT(arguments_init(&arguments, argc - 1, argv + 1));
    TRY_OUT(options_parse_command(&arguments, &program));
    if (arguments.globals[GLOBAL_HELP].set) {
        print_help();
        code = EX_OK;
        goto out;
    }
    if (arguments.values[PEERS_ADAPTER].set &&
        strcmp(arguments.values[PEERS_ADAPTER].text, "list") == 0) {
        (void)printf("%s\n", adapter_names());
        code = EX_OK;
        goto out;
    }
    TRY_OUT(read_run(&run, &arguments));
    TRY_OUT(ledger_init(&run.ledger, run.stage.count_max));
    TRY_OUT(run_all(&run, &even));
    code = even ? EX_OK : EXIT_MISCOUNTED;
out:
    if (err != NULL) {
        (void)fprintf(stderr, "flare-peers: %s\n", err_describe(err));
        code = err_code(err) == ERR_INVALID ? EX_USAGE : EX_SOFTWARE;
        err_free(err);
    }
    ledger_deinit(&run.ledger);
    arguments_deinit(&arguments);
    return code;
}
