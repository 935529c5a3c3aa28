#include "broker/config/config.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "broker/config/units.h"

/* Values are stored by type below; a bound that the type cannot hold would be cut silently. */
#define BOUND_OF_TEXT CONFIG_TEXT_MAX
#define BOUND_OF_U32 UINT32_MAX
#define BOUND_OF_SIZE INT64_MAX
#define BOUND_OF_SIZE32 UINT32_MAX
#define BOUND_OF_DURATION UINT32_MAX
#define BOUND_OF_FLAG 1
#define BOUND_OF_LEVEL 0
#define BOUND_OF_FORMAT 0
#define SETTING(type, field, default_text, min, max, name, doc)                                    \
    _Static_assert((int64_t)(min) <= (int64_t)(max), "bounds of " #field);                         \
    _Static_assert((max) <= BOUND_OF_##type, "type of " #field);
#include "broker/config/config.def"

static const struct config_setting settings[CONFIG_SETTING_COUNT] = {
#define SETTING(type, field, default_text, min, max, name, doc)                                    \
    {CONFIG_##type, name, default_text, min, max, offsetof(struct config, field), doc},
#include "broker/config/config.def"
};

static const struct unit *const type_units[] = {
    [CONFIG_TEXT] = units_none,         [CONFIG_U32] = units_none,    [CONFIG_SIZE] = units_size,
    [CONFIG_SIZE32] = units_size,       [CONFIG_FLAG] = units_none,   [CONFIG_LEVEL] = units_none,
    [CONFIG_DURATION] = units_duration, [CONFIG_FORMAT] = units_none,
};

static const char *const format_texts[] = {
    [LOG_FORMAT_HUMAN] = "human",
    [LOG_FORMAT_JSON] = "json",
};

const struct config_setting *config_setting(size_t index)
{
    return index < CONFIG_SETTING_COUNT ? &settings[index] : NULL;
}

static void *field_of(struct config *config, size_t index)
{
    return (char *)config + settings[index].offset;
}

static const void *field_of_const(const struct config *config, size_t index)
{
    return (const char *)config + settings[index].offset;
}

/* ---- one value --------------------------------------------------------------------------------
 */

enum { QUOTE_SIZE = 64 };

/* A refused value for a message: its start, without what could steer a terminal. */
static const char *quote(struct span value, char out[QUOTE_SIZE])
{
    size_t size = value.size < QUOTE_SIZE - 1 ? value.size : QUOTE_SIZE - 1;
    for (size_t i = 0; i < size; i++) {
        uint8_t byte = value.data[i];
        out[i] = byte < 0x20 || byte >= 0x7f ? '?' : (char)byte;
    }
    out[size] = '\0';
    return out;
}

static err_t set_number(const struct config_setting *setting, struct span value, const char *place,
                        uint64_t *out)
{
    static const char *const kinds[] = {
        [CONFIG_U32] = "a number",
        [CONFIG_SIZE] = "a size like 64k",
        [CONFIG_SIZE32] = "a size like 64k",
        [CONFIG_DURATION] = "a time like 30s",
    };
    char text[QUOTE_SIZE];
    char min[UNITS_TEXT_SIZE];
    char max[UNITS_TEXT_SIZE];
    uint64_t number = 0;
    const struct unit *units = type_units[setting->type];
    bool understood = units_parse(units, value, &number);
    if (!understood || number < setting->min || number > setting->max) {
        units_print(units, setting->min, min);
        units_print(units, setting->max, max);
        return ERR(INVALID, "%s: must be %s from %s to %s, not \"%s\"", place, kinds[setting->type],
                   min, max, quote(value, text));
    }
    *out = number;
    return NULL;
}

/* A text must come back the same from a line of a file. */
static bool is_line_text(struct span value)
{
    for (size_t i = 0; i < value.size; i++) {
        uint8_t byte = value.data[i];
        bool comment = byte == '#' && (i == 0 || value.data[i - 1] == ' ');
        bool outer_space = byte == ' ' && (i == 0 || i + 1 == value.size);
        if (byte < 0x20 || byte == 0x7f || comment || outer_space) {
            return false;
        }
    }
    return true;
}

static err_t set_text(const struct config_setting *setting, struct span value, const char *place,
                      char *field)
{
    char text[QUOTE_SIZE];
    if (value.size < setting->min || value.size > setting->max) {
        return ERR(INVALID, "%s: must have from %u to %u bytes, not %zu", place,
                   (unsigned)setting->min, (unsigned)setting->max, value.size);
    }
    if (!is_line_text(value)) {
        return ERR(INVALID,
                   "%s: must be text without control characters, outer spaces and \" #\", not "
                   "\"%s\"",
                   place, quote(value, text));
    }
    memcpy(field, value.data, value.size);
    field[value.size] = '\0';
    return NULL;
}

static err_t set_flag(struct span value, const char *place, bool *field)
{
    char text[QUOTE_SIZE];
    bool yes = span_is(value, "true") || span_is(value, "1");
    if (!yes && !span_is(value, "false") && !span_is(value, "0")) {
        return ERR(INVALID, "%s: must be true or false, not \"%s\"", place, quote(value, text));
    }
    *field = yes;
    return NULL;
}

static err_t set_level(struct span value, const char *place, enum log_level *field)
{
    char text[QUOTE_SIZE];
    if (!log_parse_level(value, field)) {
        return ERR(INVALID, "%s: must be error, warn, info or debug, not \"%s\"", place,
                   quote(value, text));
    }
    return NULL;
}

static err_t set_format(struct span value, const char *place, enum log_format *field)
{
    char text[QUOTE_SIZE];
    bool json = span_is(value, format_texts[LOG_FORMAT_JSON]);
    if (!json && !span_is(value, format_texts[LOG_FORMAT_HUMAN])) {
        return ERR(INVALID, "%s: must be human or json, not \"%s\"", place, quote(value, text));
    }
    *field = json ? LOG_FORMAT_JSON : LOG_FORMAT_HUMAN;
    return NULL;
}

err_t config_set(struct config *config, size_t index, struct span value, const char *place)
{
    assert(index < CONFIG_SETTING_COUNT);
    const struct config_setting *setting = &settings[index];
    void *field = field_of(config, index);
    uint64_t number = 0;
    switch (setting->type) {
    case CONFIG_TEXT:
        TRY(set_text(setting, value, place, field));
        break;
    case CONFIG_U32:
    case CONFIG_SIZE32:
    case CONFIG_DURATION:
        TRY(set_number(setting, value, place, &number));
        *(uint32_t *)field = (uint32_t)number;
        break;
    case CONFIG_SIZE:
        TRY(set_number(setting, value, place, &number));
        *(uint64_t *)field = number;
        break;
    case CONFIG_FLAG:
        TRY(set_flag(value, place, field));
        break;
    case CONFIG_LEVEL:
        TRY(set_level(value, place, field));
        break;
    case CONFIG_FORMAT:
        TRY(set_format(value, place, field));
        break;
    }
    return NULL;
}

void config_print_value(struct buf *out, const struct config *config, size_t index)
{
    assert(index < CONFIG_SETTING_COUNT);
    const void *field = field_of_const(config, index);
    enum config_type type = settings[index].type;
    char text[UNITS_TEXT_SIZE];
    switch (type) {
    case CONFIG_TEXT:
        buf_append_text(out, field);
        break;
    case CONFIG_U32:
    case CONFIG_SIZE32:
    case CONFIG_DURATION:
        units_print(type_units[type], *(const uint32_t *)field, text);
        buf_append_text(out, text);
        break;
    case CONFIG_SIZE:
        units_print(type_units[type], *(const uint64_t *)field, text);
        buf_append_text(out, text);
        break;
    case CONFIG_FLAG:
        buf_append_text(out, *(const bool *)field ? "true" : "false");
        break;
    case CONFIG_LEVEL:
        buf_append_text(out, log_level_text(*(const enum log_level *)field));
        break;
    case CONFIG_FORMAT:
        buf_append_text(out, format_texts[*(const enum log_format *)field]);
        break;
    }
}

void config_init(struct config *config)
{
    memset(config, 0, sizeof *config);
    for (size_t index = 0; index < CONFIG_SETTING_COUNT; index++) {
        err_t err = config_set(config, index, span_text(settings[index].default_text),
                               settings[index].name);
        assert(err == NULL);
    }
}

static size_t find_setting(struct span name)
{
    size_t index = 0;
    while (index < CONFIG_SETTING_COUNT && !span_is(name, settings[index].name)) {
        index++;
    }
    return index;
}

/* ---- the file ---------------------------------------------------------------------------------
 */

static struct span trim(struct span text)
{
    while (text.size > 0 && strchr(" \t\r", text.data[0]) != NULL && text.data[0] != '\0') {
        text = span_of(text.data + 1, text.size - 1);
    }
    while (text.size > 0 && strchr(" \t\r", text.data[text.size - 1]) != NULL &&
           text.data[text.size - 1] != '\0') {
        text.size--;
    }
    return text;
}

/* A comment starts with '#' at the start of a line or after a blank. */
static struct span without_comment(struct span line)
{
    for (size_t i = 0; i < line.size; i++) {
        if (line.data[i] == '#' &&
            (i == 0 || line.data[i - 1] == ' ' || line.data[i - 1] == '\t')) {
            return span_of(line.data, i);
        }
    }
    return line;
}

static err_t parse_line(struct config *config, struct span line, const char *place, bool *seen)
{
    char text[QUOTE_SIZE];
    const uint8_t *equals = memchr(line.data, '=', line.size);
    if (equals == NULL) {
        return ERR(INVALID, "%s: must be \"name = value\", not \"%s\"", place, quote(line, text));
    }
    size_t name_size = (size_t)(equals - line.data);
    struct span name = trim(span_of(line.data, name_size));
    struct span value = trim(span_of(equals + 1, line.size - name_size - 1));
    size_t index = find_setting(name);
    if (index == CONFIG_SETTING_COUNT) {
        return ERR(INVALID, "%s: there is no setting \"%s\"", place, quote(name, text));
    }
    if (seen[index]) {
        return ERR(INVALID, "%s: %s is set twice", place, settings[index].name);
    }
    seen[index] = true;
    char named[1024];
    (void)snprintf(named, sizeof named, "%s: %s", place, settings[index].name);
    TRY(config_set(config, index, value, named));
    config->origins[index] = CONFIG_FILE;
    return NULL;
}

err_t config_parse(struct config *config, struct span text, const char *place)
{
    bool seen[CONFIG_SETTING_COUNT] = {false};
    size_t number = 1;
    for (size_t start = 0; start < text.size; number++) {
        const uint8_t *end = memchr(text.data + start, '\n', text.size - start);
        size_t size = end == NULL ? text.size - start : (size_t)(end - text.data) - start;
        struct span line = trim(without_comment(span_of(text.data + start, size)));
        start += size + 1;
        if (line.size == 0) {
            continue;
        }
        char numbered[640];
        (void)snprintf(numbered, sizeof numbered, "%.512s:%zu", place, number);
        TRY(parse_line(config, line, numbered, seen));
    }
    return NULL;
}

enum { READ_SIZE = 4096 };

static err_t read_file(const char *path, struct buf *out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return ERR(IO, "open %s: %s", path, strerror(errno));
    }
    err_t err = NULL;
    for (;;) {
        if (out->size > CONFIG_FILE_SIZE_MAX) {
            err = ERR(TOO_LARGE, "%s: has more than %d bytes", path, CONFIG_FILE_SIZE_MAX);
            break;
        }
        if (!buf_reserve(out, READ_SIZE)) {
            err = ERR(MEMORY, "no memory to read %s", path);
            break;
        }
        ssize_t size = read(fd, out->data + out->size, READ_SIZE);
        if (size < 0 && errno == EINTR) {
            continue;
        }
        if (size < 0) {
            err = ERR(IO, "read %s: %s", path, strerror(errno));
        }
        if (size <= 0) {
            break;
        }
        out->size += (size_t)size;
    }
    (void)close(fd);
    return err;
}

static err_t load_file(struct config *config, const char *path)
{
    struct buf text;
    buf_init(&text, CONFIG_FILE_SIZE_MAX + READ_SIZE);
    err_t err = NULL;
    TRY_OUT(read_file(path, &text));
    TRY_OUT(config_parse(config, buf_span(&text), path));
out:
    buf_deinit(&text);
    return err;
}

/* ---- environment and command line -------------------------------------------------------------
 */

void config_variable(size_t index, char out[CONFIG_VARIABLE_SIZE])
{
    assert(index < CONFIG_SETTING_COUNT);
    int size = snprintf(out, CONFIG_VARIABLE_SIZE, "FLARE_%s", settings[index].name);
    assert(size > 0);
    assert(size < CONFIG_VARIABLE_SIZE);
    for (char *at = out; *at != '\0'; at++) {
        bool lower = *at >= 'a' && *at <= 'z';
        *at = *at == '-' ? '_' : lower ? (char)(*at - 'a' + 'A') : *at;
    }
}

/* Its value; NULL when it is not set or empty. */
static const char *find_variable(const char *const *environment, const char *variable)
{
    size_t size = strlen(variable);
    for (; environment != NULL && *environment != NULL; environment++) {
        if (strncmp(*environment, variable, size) == 0 && (*environment)[size] == '=') {
            const char *value = *environment + size + 1;
            return value[0] == '\0' ? NULL : value;
        }
    }
    return NULL;
}

static err_t load_environment(struct config *config, const char *const *environment)
{
    for (size_t index = 0; index < CONFIG_SETTING_COUNT; index++) {
        char variable[CONFIG_VARIABLE_SIZE];
        config_variable(index, variable);
        const char *value = find_variable(environment, variable);
        if (value != NULL) {
            TRY(config_set(config, index, span_text(value), variable));
            config->origins[index] = CONFIG_ENVIRONMENT;
        }
    }
    return NULL;
}

/* One option of the command line. */
struct option {
    struct span name; /* without the dashes */
    struct span value;
    size_t index; /* of its setting; CONFIG_SETTING_COUNT: --config */
};

/* Reads the option at argv[*at] and moves past it and its value. */
static err_t next_option(const char *const *argv, int argc, int *at, struct option *out)
{
    char text[QUOTE_SIZE];
    const char *argument = argv[*at];
    if (strncmp(argument, "--", 2) != 0) {
        return ERR(INVALID, "%s: is not an option; see --help", quote(span_text(argument), text));
    }
    const char *equals = strchr(argument, '=');
    size_t size = equals == NULL ? strlen(argument) : (size_t)(equals - argument);
    struct option option = {.name = span_of(argument + 2, size - 2)};
    option.index = find_setting(option.name);
    if (option.index == CONFIG_SETTING_COUNT && !span_is(option.name, "config")) {
        return ERR(INVALID, "%s: there is no such option; see --help",
                   quote(span_of(argument, size), text));
    }
    bool flag = option.index < CONFIG_SETTING_COUNT && settings[option.index].type == CONFIG_FLAG;
    if (equals != NULL) {
        option.value = span_text(equals + 1);
    } else if (flag) {
        option.value = span_text("true");
    } else if (*at + 1 < argc) {
        *at += 1;
        option.value = span_text(argv[*at]);
    } else {
        return ERR(INVALID, "%s: needs a value", argument);
    }
    *at += 1;
    *out = option;
    return NULL;
}

static err_t load_command_line(struct config *config, int argc, const char *const *argv)
{
    for (int at = 1; at < argc;) {
        struct option option = {0};
        TRY(next_option(argv, argc, &at, &option));
        if (option.index == CONFIG_SETTING_COUNT) {
            continue; /* --config, which was read before */
        }
        char place[CONFIG_VARIABLE_SIZE];
        (void)snprintf(place, sizeof place, "--%s", settings[option.index].name);
        TRY(config_set(config, option.index, option.value, place));
        config->origins[option.index] = CONFIG_COMMAND_LINE;
    }
    return NULL;
}

/* The file to read, NULL without one. Values of spans from argv are terminated. */
static err_t find_file(int argc, const char *const *argv, const char *const *environment,
                       const char **out)
{
    const char *path = find_variable(environment, "FLARE_CONFIG");
    for (int at = 1; at < argc;) {
        struct option option = {0};
        TRY(next_option(argv, argc, &at, &option));
        if (option.index == CONFIG_SETTING_COUNT) {
            path = (const char *)option.value.data;
        }
    }
    *out = path;
    return NULL;
}

static enum config_request find_request(int argc, const char *const *argv)
{
    for (int at = 1; at < argc; at++) {
        if (strcmp(argv[at], "--help") == 0 || strcmp(argv[at], "-h") == 0) {
            return CONFIG_HELP;
        }
        if (strcmp(argv[at], "--version") == 0) {
            return CONFIG_VERSION;
        }
    }
    return CONFIG_RUN;
}

static err_t apply_ephemeral(struct config *config)
{
    if (config->origins[CONFIG_AT_data] != CONFIG_DEFAULT) {
        return ERR(INVALID, "--ephemeral: must not be used with --data, which is kept");
    }
    config->data[0] = '\0';
    if (config->origins[CONFIG_AT_http] == CONFIG_DEFAULT) {
        TRY(config_set(config, CONFIG_AT_http, span_text("127.0.0.1:0"), "--http"));
    }
    if (config->origins[CONFIG_AT_wire] == CONFIG_DEFAULT) {
        TRY(config_set(config, CONFIG_AT_wire, span_text("127.0.0.1:0"), "--wire"));
    }
    return NULL;
}

err_t config_load(struct config *config, int argc, const char *const *argv,
                  const char *const *environment, enum config_request *request)
{
    config_init(config);
    *request = find_request(argc, argv);
    if (*request != CONFIG_RUN) {
        return NULL;
    }
    struct config loaded = *config;
    const char *path = NULL;
    TRY(find_file(argc, argv, environment, &path));
    if (path != NULL) {
        TRY(load_file(&loaded, path));
    }
    TRY(load_environment(&loaded, environment));
    TRY(load_command_line(&loaded, argc, argv));
    if (loaded.ephemeral) {
        TRY(apply_ephemeral(&loaded));
    }
    TRY(config_check(&loaded));
    *config = loaded;
    return NULL;
}

/* ---- rules between settings -------------------------------------------------------------------
 */

static err_t check_rule(const struct config *config, size_t lower, size_t upper)
{
    struct buf text;
    buf_init(&text, CONFIG_OUTPUT_MAX);
    buf_append_text(&text, settings[lower].name);
    buf_append_text(&text, ": ");
    config_print_value(&text, config, lower);
    buf_printf(&text, " must not exceed %s, which is ", settings[upper].name);
    config_print_value(&text, config, upper);
    err_t err = ERR(INVALID, "%.*s", (int)text.size, (const char *)text.data);
    buf_deinit(&text);
    return err;
}

err_t config_check(const struct config *config)
{
#define RULE(lower, upper)                                                                         \
    if (config->lower > config->upper) {                                                           \
        return err_passed(check_rule(config, CONFIG_AT_##lower, CONFIG_AT_##upper), __func__);     \
    }
#include "broker/config/config.def"
    return NULL;
}
