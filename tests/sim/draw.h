/* One command of each kind, drawn for a volume as its model knows it: mostly sensible, now and then
 * for something that is gone or never was. */
#ifndef SIM_DRAW_H
#define SIM_DRAW_H

#include "tests/sim/workload.h"

enum {
    DRAW_PUBLISH,
    DRAW_PULL,
    DRAW_ACK,
    DRAW_NACK,
    DRAW_EXTEND,
    DRAW_TOPIC_PUT,
    DRAW_SUB_PUT,
    DRAW_TOPIC_DROP,
    DRAW_SUB_DROP,
    DRAW_PEEK,
    DRAW_REDRIVE,
    DRAW_PURGE,
    DRAW_SEEK,
    DRAW_STATS,
};

/* Kinds that a run cannot do without have at least their weight; the others are left out by one
 * seed in three. */
extern const struct draw_kind {
    void (*draw)(struct workload *workload, struct volume *volume, struct command *command,
                 struct slot *slot);
    uint32_t weight;
    bool needed;
} draw_kinds[WORKLOAD_KINDS];

#endif
