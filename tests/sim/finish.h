/* The end of a run: accidents stop, everything must drain, and what nobody needs must be gone from
 * the store. */
#ifndef SIM_FINISH_H
#define SIM_FINISH_H

#include "tests/sim/workload.h"

void finish_volume(struct workload *workload, struct volume *volume);
/* Sees which messages a TICK within a budget has moved. */
void finish_doubt(struct workload *workload, struct volume *volume);

#endif
