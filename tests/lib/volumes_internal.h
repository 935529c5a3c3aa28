/* What the files of the volumes of a test share: see volumes.h. */
#ifndef LIB_VOLUMES_INTERNAL_H
#define LIB_VOLUMES_INTERNAL_H

#include "tests/lib/volumes.h"

/* Makes the stage of a volume, with a store in memory. */
void volumes_stage_open(struct volumes *volumes, struct volumes_stage *stage);
/* Ends the faults it was told of; its volume does not run. */
void volumes_stage_mend(struct volumes_stage *stage);
void volumes_stage_close(struct volumes_stage *stage);

#endif
