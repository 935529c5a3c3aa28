/* The settings a command runs with. Each comes from the first of these that has it: command line,
 * environment, context, default.
 *
 * The table is in settings.c: its rows are also the fields of a context and the lines of
 * `flare ctx show`. */
#ifndef FLARE_SETTINGS_H
#define FLARE_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

#include "broker/base/err.h"
#include "tools/flare/contexts.h"
#include "tools/flare/options.h"

enum setting {
    SETTING_URL,
    SETTING_WIRE,
    SETTING_TRANSPORT,
    SETTING_TIMEOUT,
    SETTING_FORMAT,
    SETTING_COUNT
};

/* A value of SETTING_WIRE: the broker does not speak it. */
#define SETTINGS_WIRE_OFF "off"

/* The later overrules the earlier. */
enum setting_origin { SETTING_DEFAULT, SETTING_CONTEXT, SETTING_ENVIRONMENT, SETTING_OPTION };

struct setting_value {
    const char *text; /* NULL only of SETTING_WIRE: the broker at the URL must be asked for it */
    uint64_t number;  /* of a duration */
    enum setting_origin origin;
    const char *place; /* where it comes from, in words: "--url", "FLARE_URL", "the context" */
};

struct settings {
    const char *context; /* NULL: none */
    struct setting_value values[SETTING_COUNT];
};

/* The name of a setting, in contexts and lists; its environment variable; its default. */
const char *settings_name(enum setting setting);
const char *settings_variable(enum setting setting);
const char *settings_default(enum setting setting);

/* What the command line says of a setting; NULL when nothing. */
const char *settings_given(const struct arguments *arguments, enum setting setting);

/* Whether `text` is a value of the setting: ERR_INVALID, which names `place`. */
err_t settings_check(enum setting setting, const char *place, const char *text) MUST_CHECK;

/* The same for all that the command line says. */
err_t settings_check_given(const struct arguments *arguments) MUST_CHECK;

/* Texts point into the arguments, the environment and `contexts`; with NULL no context counts.
 * ERR_INVALID for a value out of its bounds, NOT_FOUND for a context that does not exist. */
err_t settings_resolve(const struct arguments *arguments, const struct contexts *contexts,
                       struct settings *out) MUST_CHECK;

#endif
