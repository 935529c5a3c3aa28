/* The mixture of one seed: sizes, times and chances, each from a few choices of which some are
 * extreme. */
#ifndef SIM_SWARM_H
#define SIM_SWARM_H

#include "tests/sim/workload.h"

void swarm_draw(struct random *random, struct swarm *swarm);

#endif
