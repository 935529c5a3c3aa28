/* flare-sim: the core under many clients, several volumes and crashes, in one thread on simulated
 * time, judged by a plain model of what Flare promises. One seed makes one run; the same seed makes
 * the same run. */
#include <assert.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/sim/finish.h"

enum {
    VOLUMES_MAX = 3,
    RESTART_IN = 400, /* one batch in so many comes after a clean restart */
    CHECK_IN = 200,   /* one comes after a check of all that is stored */
    DEFAULT_COMMANDS = 10000,
    DEFAULT_SEEDS = 110, /* together more than a million commands */
};

struct run {
    struct trace trace;
    struct workload *workload;
    struct volume volumes[VOLUMES_MAX];
};

struct options {
    uint64_t seed;
    uint64_t seeds;
    uint64_t commands;
    bool forever;
    bool verbose;
    bool given; /* a seed or a number of them: otherwise the test */
};

/* ---- one run ---- */

static void restart(struct volume *volume)
{
    engine_restart(&volume->engine);
    trace_note(volume->model.trace, "restart");
    volume->model.now_ms = volume->engine.stored_ms;
}

/* The power has failed when a batch was written and not flushed: what of it was answered, publishes
 * to relaxed topics, is lost, and nothing else. */
static void lose_promised(struct workload *workload, struct volume *volume)
{
    struct engine_batch *batch = &workload->batch;
    const struct command stats = {.type = COMMAND_STATS};
    for (uint32_t index = 0; index < batch->count; index++) {
        const struct command *command = &batch->commands[index];
        if (command->type == COMMAND_PUBLISH && batch->replies[index].early) {
            model_promise(&volume->model, &command->publish);
        }
    }
    engine_look(&volume->engine, &stats, &batch->replies[0]);
    model_judge(&volume->model, &stats, &batch->replies[0]);
    model_lose_promised(&volume->model);
}

static void step(struct run *run, struct volume *volume)
{
    struct workload *workload = run->workload;
    struct model *model = &volume->model;
    struct engine_batch *batch = &workload->batch;
    run->trace.volume = volume->number;
    if (random_chance(&workload->random, 1, RESTART_IN)) {
        restart(volume);
    }
    if (random_chance(&workload->random, 1, CHECK_IN)) {
        engine_check(&volume->engine);
    }
    MODEL_EXPECT(
        model,
        engine_next_due_ms(&volume->engine) <= model->now_ms || !model_is_due(model, model->now_ms),
        "something is due at %llu, and the machine does not want to be called before %llu",
        (unsigned long long)model->now_ms, (unsigned long long)engine_next_due_ms(&volume->engine));
    workload_draw(workload, volume);
    if (!engine_run(&volume->engine, batch)) {
        model->now_ms = volume->engine.stored_ms;
        workload_answer(workload, false);
        if (batch->appended) {
            lose_promised(workload, volume);
        }
        return;
    }
    for (uint32_t index = 0; index < batch->count; index++) {
        model_judge(model, &batch->commands[index], &batch->replies[index]);
    }
    model_judge_effects(model, &volume->engine.effects);
    workload_answer(workload, true);
    finish_doubt(workload, volume);
}

static void add_figures(struct model_figures *sum, const struct model_figures *figures)
{
    sum->published += figures->published;
    sum->delivered += figures->delivered;
    sum->acked += figures->acked;
    sum->dead += figures->dead;
    sum->expired += figures->expired;
    sum->expired_leases += figures->expired_leases;
    sum->refused += figures->refused;
    sum->replayed += figures->replayed;
    sum->redriven += figures->redriven;
    sum->skipped += figures->skipped;
    sum->rewound += figures->rewound;
    sum->lost += figures->lost;
}

#define FIGURE(value) ((unsigned long long)(value))

static void print_run(const struct run *run)
{
    struct model_figures sum = {.published = 0};
    uint64_t losses = 0;
    uint64_t restarts = 0;
    uint64_t replayed = 0;
    for (uint32_t index = 0; index < run->workload->swarm.volume_count; index++) {
        add_figures(&sum, &run->volumes[index].model.figures);
        losses += run->volumes[index].engine.losses;
        restarts += run->volumes[index].engine.restarts;
        replayed += run->volumes[index].engine.replayed;
    }
    printf("{\"seed\":%llu,\"commands\":%llu,\"volumes\":%u,\"clients\":%u,",
           FIGURE(run->trace.seed), FIGURE(run->trace.commands), run->workload->swarm.volume_count,
           run->workload->swarm.client_count * run->workload->swarm.volume_count);
    printf("\"messages\":%llu,\"delivered\":%llu,\"acked\":%llu,\"dead\":%llu,\"expired\":%llu,",
           FIGURE(sum.published), FIGURE(sum.delivered), FIGURE(sum.acked), FIGURE(sum.dead),
           FIGURE(sum.expired));
    printf("\"expired_leases\":%llu,\"refused\":%llu,\"replayed\":%llu,\"redriven\":%llu,",
           FIGURE(sum.expired_leases), FIGURE(sum.refused), FIGURE(sum.replayed),
           FIGURE(sum.redriven));
    printf("\"promises_lost\":%llu,\"skipped\":%llu,\"rewound\":%llu,\"crashes\":%llu,",
           FIGURE(sum.lost), FIGURE(sum.skipped), FIGURE(sum.rewound), FIGURE(losses));
    printf("\"restarts\":%llu,\"applied_again\":%llu,", FIGURE(restarts), FIGURE(replayed));
    printf("\"trace\":\"%016llx\"}\n", FIGURE(run->trace.hash));
}

/* What the runs of one process add up to. */
struct total {
    uint64_t commands;
    uint64_t runs;
};

static uint64_t run_seed(uint64_t seed, const struct options *options, struct total *total)
{
    struct run *run = calloc(1, sizeof *run);
    assert(run != NULL);
    run->trace = (struct trace){
        .seed = seed, .commands_max = options->commands, .verbose = options->verbose};
    trace_begin(&run->trace);
    run->workload = workload_create(seed, options->commands);
    uint32_t volume_count = run->workload->swarm.volume_count;
    for (uint32_t index = 0; index < volume_count; index++) {
        run->volumes[index].number = index;
        workload_volume_open(run->workload, &run->volumes[index], &run->trace);
    }
    while (run->trace.commands < options->commands) {
        step(run, &run->volumes[random_below(&run->workload->random, volume_count)]);
    }
    for (uint32_t index = 0; index < volume_count; index++) {
        run->trace.volume = index;
        finish_volume(run->workload, &run->volumes[index]);
    }
    print_run(run);
    for (uint32_t index = 0; index < volume_count; index++) {
        workload_volume_close(&run->volumes[index]);
    }
    workload_destroy(run->workload);
    uint64_t hash = run->trace.hash;
    total->commands += run->trace.commands;
    total->runs++;
    free(run);
    return hash;
}

/* ---- the program ---- */

static const char usage[] =
    "Usage: flare-sim [--seed S | --seeds N | --forever] [--commands N] [--trace]\n"
    "\n"
    "Simulates clients, volumes and crashes and checks every reply against a model of what is\n"
    "promised. Prints a line of JSON for each run; ends at the first broken promise and says\n"
    "how to repeat it.\n"
    "\n"
    "  --seed S      one run (with --seeds or --forever: the first one)\n"
    "  --seeds N     so many runs, of seed 1 and on\n"
    "  --forever     until interrupted, from a fresh seed on\n"
    "  --commands N  of each run (10000)\n"
    "  --trace       tells each command\n"
    "\n"
    "Without options it is the test: a million commands over fixed seeds, one of them twice.\n";

static uint64_t parse_number(const char *text)
{
    char *end = NULL;
    unsigned long long value = strtoull(text, &end, 10);
    if (*text == '\0' || *end != '\0') {
        fprintf(stderr, "flare-sim: \"%s\" is not a number\n%s", text, usage);
        exit(64);
    }
    return value;
}

static struct options parse_options(int argc, char **argv)
{
    static const struct option names[] = {
        {"seed", required_argument, NULL, 's'},
        {"seeds", required_argument, NULL, 'n'},
        {"commands", required_argument, NULL, 'c'},
        {"forever", no_argument, NULL, 'f'},
        {"trace", no_argument, NULL, 't'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    struct options options = {.seed = 1, .seeds = 1, .commands = DEFAULT_COMMANDS};
    bool has_seed = false;
    int letter;
    while ((letter = getopt_long(argc, argv, "", names, NULL)) != -1) {
        if (letter == 's') {
            options.seed = parse_number(optarg);
            has_seed = true;
        } else if (letter == 'n') {
            options.seeds = parse_number(optarg);
        } else if (letter == 'c') {
            options.commands = parse_number(optarg);
        } else if (letter == 'f') {
            options.forever = true;
        } else if (letter == 't') {
            options.verbose = true;
        } else {
            fputs(usage, letter == 'h' ? stdout : stderr);
            exit(letter == 'h' ? 0 : 64);
        }
    }
    options.given = argc > 1;
    if (options.forever && !has_seed) {
        options.seed = random_seed() % 1000000000;
    }
    return options;
}

/* The same seed makes the same run: everything a run shows goes into its hash. */
static void check_repeatable(const struct options *options, struct total *total)
{
    uint64_t first = run_seed(options->seed, options, total);
    uint64_t second = run_seed(options->seed, options, total);
    if (first != second) {
        fprintf(
            stderr,
            "flare-sim: seed %llu makes two different runs: the core or the simulation depends on "
            "something that is not in its commands\n",
            FIGURE(options->seed));
        exit(1);
    }
}

int main(int argc, char **argv)
{
    struct options options = parse_options(argc, argv);
    struct total total = {0};
    struct timespec begin;
    struct timespec end;
    (void)clock_gettime(CLOCK_MONOTONIC, &begin);
    if (!options.given) {
        options.seeds = DEFAULT_SEEDS;
        check_repeatable(&options, &total);
    }
    fprintf(stderr, "flare-sim: from seed %llu\n", FIGURE(options.seed));
    for (uint64_t count = 0; options.forever || count < options.seeds; count++) {
        run_seed(options.seed + count, &options, &total);
        fflush(stdout);
    }
    (void)clock_gettime(CLOCK_MONOTONIC, &end);
    double seconds =
        (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9;
    fprintf(stderr, "flare-sim: %llu commands in %llu runs, %.1f s, every promise kept\n",
            FIGURE(total.commands), FIGURE(total.runs), seconds);
    return 0;
}
