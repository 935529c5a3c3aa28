/* The settings of flared: one row each in config.def, from which come the fields of struct config,
 * their defaults and bounds, the parser of all three places, --help and the reference page.
 *
 * A value comes from the first of these that has one: command line, environment, file, default. A
 * value that is out of bounds or not understood is refused (ERR_INVALID) with the place, the name
 * and the bounds, in whichever place it is, even if another place overrules it. Sizes take k, m, g,
 * t (powers of 1024), durations ms, s, m, h, d; without a unit they are bytes and milliseconds. An
 * empty environment variable counts as not set. */
#ifndef CONFIG_CONFIG_H
#define CONFIG_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "broker/base/buf.h"
#include "broker/base/err.h"
#include "broker/base/log.h"
#include "broker/base/span.h"

enum {
    CONFIG_TEXT_MAX = 1023,
    CONFIG_FILE_SIZE_MAX = 1024 * 1024,
    CONFIG_VARIABLE_SIZE = 64,
    CONFIG_BOUNDS_SIZE = 256,
    CONFIG_OUTPUT_MAX = 64 * 1024, /* enough for each of the printers below */
};

enum config_type {
    CONFIG_TEXT,
    CONFIG_U32,
    CONFIG_SIZE,
    CONFIG_SIZE32,
    CONFIG_DURATION,
    CONFIG_FLAG,
    CONFIG_LEVEL,
    CONFIG_FORMAT,
};

/* Where a value comes from; the later overrules the earlier. */
enum config_origin { CONFIG_DEFAULT, CONFIG_FILE, CONFIG_ENVIRONMENT, CONFIG_COMMAND_LINE };

/* Number of each setting: CONFIG_AT_data, CONFIG_AT_http ... */
enum config_index {
#define SETTING(type, field, default_text, min, max, name, doc) CONFIG_AT_##field,
#include "broker/config/config.def"
    CONFIG_SETTING_COUNT
};

#define CONFIG_FIELD_TEXT(field) char field[CONFIG_TEXT_MAX + 1]
#define CONFIG_FIELD_U32(field) uint32_t field
#define CONFIG_FIELD_SIZE(field) uint64_t field
#define CONFIG_FIELD_SIZE32(field) uint32_t field
#define CONFIG_FIELD_DURATION(field) uint32_t field
#define CONFIG_FIELD_FLAG(field) bool field
#define CONFIG_FIELD_LEVEL(field) enum log_level field
#define CONFIG_FIELD_FORMAT(field) enum log_format field

struct config {
#define SETTING(type, field, default_text, min, max, name, doc) CONFIG_FIELD_##type(field);
#include "broker/config/config.def"
    uint8_t origins[CONFIG_SETTING_COUNT]; /* enum config_origin of each */
};

#undef CONFIG_FIELD_TEXT
#undef CONFIG_FIELD_U32
#undef CONFIG_FIELD_SIZE
#undef CONFIG_FIELD_SIZE32
#undef CONFIG_FIELD_DURATION
#undef CONFIG_FIELD_FLAG
#undef CONFIG_FIELD_LEVEL
#undef CONFIG_FIELD_FORMAT

/* One row of config.def. */
struct config_setting {
    enum config_type type;
    const char *name;
    const char *default_text;
    uint64_t min; /* of the value; of a text, its bytes */
    uint64_t max;
    size_t offset; /* of its field in struct config */
    const char *doc;
};

/* What the command line asks for. */
enum config_request { CONFIG_RUN, CONFIG_HELP, CONFIG_VERSION };

/* The defaults. */
void config_init(struct config *config);

/* All places in their order. The file is the one named by --config or FLARE_CONFIG; there is none
 * otherwise. `environment` is as environ. After CONFIG_HELP and CONFIG_VERSION, which win over
 * anything else that is asked for or wrong, `config` holds the defaults. With `ephemeral`, `data`
 * is empty and `http` has port 0 unless told. */
err_t config_load(struct config *config, int argc, const char *const *argv,
                  const char *const *environment, enum config_request *request) MUST_CHECK;

/* The lines of a file; `place` is its name in errors: "flare.conf:3: volumes: ...". */
err_t config_parse(struct config *config, struct span text, const char *place) MUST_CHECK;

/* What no single value can tell: the RULE rows. Part of config_load. */
err_t config_check(const struct config *config) MUST_CHECK;

/* NULL past the last one. */
const struct config_setting *config_setting(size_t index);

/* The name of its environment variable: FLARE_LOG_LEVEL for log-level. */
void config_variable(size_t index, char out[CONFIG_VARIABLE_SIZE]);

/* "1k to 64k"; empty for what has no bounds worth saying. */
void config_bounds(const struct config_setting *setting, char out[CONFIG_BOUNDS_SIZE]);

/* What stands for a value in help: " NUMBER"; empty for a flag. */
const char *config_placeholder(enum config_type type);

/* One value; `place` names it in the error: "--volumes". A refused value changes nothing. */
err_t config_set(struct config *config, size_t index, struct span value,
                 const char *place) MUST_CHECK;

/* The value as config_set reads it. */
void config_print_value(struct buf *out, const struct config *config, size_t index);

/* Every setting that has a value as a file that config_parse reads back to the same values. */
void config_print(struct buf *out, const struct config *config);

/* For --help, and as a section of the reference page, in Markdown. */
void config_print_help(struct buf *out);
void config_print_reference(struct buf *out);

#endif
