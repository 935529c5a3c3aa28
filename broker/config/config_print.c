#include <stdio.h>

#include "broker/config/config.h"
#include "broker/config/units.h"

enum { HELP_COLUMNS = 80, HELP_INDENT = 8, NOTE_SIZE = CONFIG_BOUNDS_SIZE };

static const char *const placeholders[] = {
    [CONFIG_TEXT] = " TEXT",   [CONFIG_U32] = " NUMBER",    [CONFIG_SIZE] = " SIZE",
    [CONFIG_SIZE32] = " SIZE", [CONFIG_DURATION] = " TIME", [CONFIG_FLAG] = "",
    [CONFIG_LEVEL] = " LEVEL", [CONFIG_FORMAT] = " FORMAT",
};

const char *config_placeholder(enum config_type type)
{
    return placeholders[type];
}

void config_bounds(const struct config_setting *setting, char out[CONFIG_BOUNDS_SIZE])
{
    const struct unit *units = units_none;
    switch (setting->type) {
    case CONFIG_TEXT:
    case CONFIG_FLAG:
    case CONFIG_LEVEL:
    case CONFIG_FORMAT:
        out[0] = '\0';
        return;
    case CONFIG_U32:
        break;
    case CONFIG_SIZE:
    case CONFIG_SIZE32:
        units = units_size;
        break;
    case CONFIG_DURATION:
        units = units_duration;
        break;
    }
    char min[UNITS_TEXT_SIZE];
    char max[UNITS_TEXT_SIZE];
    units_print(units, setting->min, min);
    units_print(units, setting->max, max);
    (void)snprintf(out, CONFIG_BOUNDS_SIZE, "%s to %s", min, max);
}

/* Words of `text` in lines of HELP_COLUMNS, the first one continued at `column`. */
static size_t print_wrapped(struct buf *out, const char *text, size_t column)
{
    while (*text != '\0') {
        size_t size = strcspn(text, " ");
        if (column > HELP_INDENT && column + 1 + size > HELP_COLUMNS) {
            buf_append_byte(out, '\n');
            column = 0;
        }
        if (column == 0) {
            buf_printf(out, "%*s", HELP_INDENT, "");
            column = HELP_INDENT;
        } else {
            buf_append_byte(out, ' ');
            column++;
        }
        buf_append(out, text, size);
        column += size;
        text += size;
        text += strspn(text, " ");
    }
    return column;
}

void config_print_help(struct buf *out)
{
    buf_append_text(out,
                    "Usage: flared [OPTION]...\n"
                    "The Flare queue broker: one program, one data directory, no other service.\n"
                    "\n"
                    "  --config FILE\n"
                    "        read settings from FILE: lines of \"name = value\", comments after #\n"
                    "  --help\n"
                    "        print this and exit\n"
                    "  --version\n"
                    "        print the version and exit\n");
    const struct config_setting *setting = NULL;
    for (size_t index = 0; (setting = config_setting(index)) != NULL; index++) {
        char bounds[NOTE_SIZE];
        char note[2 * NOTE_SIZE];
        config_bounds(setting, bounds);
        (void)snprintf(note, sizeof note, "(default %s%s%s)", setting->default_text,
                       bounds[0] == '\0' ? "" : "; ", bounds);
        buf_printf(out, "  --%s%s\n", setting->name, placeholders[setting->type]);
        size_t column = print_wrapped(out, setting->doc, 0);
        (void)print_wrapped(out, note, column);
        buf_append_byte(out, '\n');
    }
    buf_append_text(
        out, "\n"
             "Sizes take k, m, g or t; times ms, s, m, h or d. Each option is also a variable\n"
             "(FLARE_LOG_LEVEL for --log-level). The command line overrules the environment,\n"
             "the environment the file.\n"
             "\n"
             "Examples:\n"
             "  flared --data /var/lib/flare --http 127.0.0.1:8080\n"
             "  flared --ephemeral\n"
             "  FLARE_LOG_FORMAT=json flared --config /etc/flare.conf\n");
}

void config_print_reference(struct buf *out)
{
    buf_append_text(
        out,
        "Made from `broker/config/config.def`. A value comes from the first of these that has\n"
        "one: command line (`--name VALUE` or `--name=VALUE`), environment (`FLARE_NAME`), the\n"
        "file named by `--config` or `FLARE_CONFIG` (lines of `name = value`, comments after\n"
        "`#`), default. A value out of its bounds is refused at start, wherever it is. Sizes\n"
        "take `k`, `m`, `g`, `t` (powers of 1024; or `kib`, `mib`, `gib`, `tib`, and `b`), times\n"
        "`ms`, `s`, `m`, `h`, `d`, `w`, in upper or lower case, and so do the options of `flare`;\n"
        "without a unit they are bytes and milliseconds.\n"
        "\n"
        "| setting | environment | default | bounds | meaning |\n"
        "| --- | --- | --- | --- | --- |\n");
    const struct config_setting *setting = NULL;
    for (size_t index = 0; (setting = config_setting(index)) != NULL; index++) {
        char bounds[NOTE_SIZE];
        config_bounds(setting, bounds);
        char variable[CONFIG_VARIABLE_SIZE];
        config_variable(index, variable);
        buf_printf(out, "| `%s` | `%s` | `%s` | %s | %s |\n", setting->name, variable,
                   setting->default_text, bounds, setting->doc);
    }
}

void config_print(struct buf *out, const struct config *config)
{
    for (size_t index = 0; index < CONFIG_SETTING_COUNT; index++) {
        size_t start = out->size;
        buf_printf(out, "%s = ", config_setting(index)->name);
        size_t value = out->size;
        config_print_value(out, config, index);
        if (out->size == value) { /* the directory of an ephemeral broker, which is not known yet */
            out->size = start;
            continue;
        }
        buf_append_byte(out, '\n');
    }
}
