/* Pulls of one subscription through the router: topic "t", subscription "s", volumes of a test. */
#ifndef LIB_PULLS_H
#define LIB_PULLS_H

#include "tests/lib/volumes.h"

enum { PULLS_WAIT_MS = 60000 };

extern const struct sub_settings pulls_usual;

void pulls_open_with(struct volumes *volumes, struct volumes_options options, uint32_t shards);

/* `count` volumes, and a topic with two shards on each. */
void pulls_open(struct volumes *volumes, uint32_t count);

void pulls_start(struct volumes *volumes, struct volumes_pull *pull, uint64_t wait_ms);

/* Starts a pull that finds nothing and waits. */
void pulls_start_waiting(struct volumes *volumes, struct volumes_pull *pull);

/* The pull must end with one message; its receipt. */
struct receipt pulls_expect_one(struct volumes *volumes, struct volumes_pull *pull);

/* Each pull must end with one message, no two with the same, and none may be left. */
void pulls_expect_each_one(struct volumes *volumes, struct volumes_pull *pulls, uint32_t count);

void pulls_expect_code(struct volumes *volumes, struct volumes_pull *pull, enum err_code code);

void pulls_publish(struct volumes *volumes);

/* Publishes a message to a shard of this volume. */
void pulls_publish_on(struct volumes *volumes, uint32_t volume);

/* Starts a pull of ten that stops at this volume, which is held. */
void pulls_start_held_of(struct volumes *volumes, struct volumes_pull *pull, uint32_t volume,
                         const char *sub);

void pulls_start_held(struct volumes *volumes, struct volumes_pull *pull, uint32_t volume);

#endif
