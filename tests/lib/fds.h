/* The open files of this process, for tests of what leaves none behind. */
#ifndef LIB_FDS_H
#define LIB_FDS_H

#include <stddef.h>

/* How many there are; the same number when nothing was opened or closed in between. */
size_t fds_count(void);

#endif
