/* Contexts: settings kept under a name, so that a user of several brokers names one instead of its
 * addresses.
 *
 * They live in one JSON file, $XDG_CONFIG_HOME/flare/contexts.json or
 * ~/.config/flare/contexts.json, that only its owner may read:
 * {"current": "prod", "contexts": {"prod": {"url": "...", "wire": "..."}}}. The fields of a context
 * are the rows of settings.c. A file with anything else in it is refused as a whole, because the
 * broker that was meant could not be known. */
#ifndef FLARE_CONTEXTS_H
#define FLARE_CONTEXTS_H

#include <jansson.h>
#include <stdbool.h>

#include "broker/base/err.h"

enum { CONTEXTS_PATH_MAX = 4096, CONTEXTS_NAME_MAX = 64 };

struct contexts {
    json_t *document;
    char path[CONTEXTS_PATH_MAX]; /* empty: neither XDG_CONFIG_HOME nor HOME is set */
};

/* A file that does not exist holds no contexts. ERR_FORMAT for one that is not as above. */
err_t contexts_open(struct contexts *out) MUST_CHECK;
void contexts_close(struct contexts *contexts);

/* Replaces the file at once; its directory is made when it is missing. */
err_t contexts_save(const struct contexts *contexts) MUST_CHECK;

/* Letters, digits, ".", "_" and "-", 64 at most, and no "-" in front. */
bool contexts_name_valid(const char *name);

/* NULL when there is none of that name. */
json_t *contexts_get(const struct contexts *contexts, const char *name);
/* The one in use; NULL: none. */
const char *contexts_current(const struct contexts *contexts);
/* NULL: none. */
void contexts_use(struct contexts *contexts, const char *name);
/* Takes `fields`; a context of that name is replaced. */
void contexts_put(struct contexts *contexts, const char *name, json_t *fields);
void contexts_remove(struct contexts *contexts, const char *name);

/* "name" to fields, in the order they were put. */
json_t *contexts_all(const struct contexts *contexts);

#endif
