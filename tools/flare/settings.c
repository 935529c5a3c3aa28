#include "tools/flare/settings.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct setting_row {
    const char *variable;
    const char *fallback;
    struct option_row value; /* kind and bounds; its name is the setting's */
};

static const struct setting_row rows[SETTING_COUNT] = {
    [SETTING_URL] = {.variable = "FLARE_URL",
                     .fallback = "http://127.0.0.1:8080",
                     .value = {.name = "url", .kind = OPTION_TEXT}},
    [SETTING_WIRE] = {.variable = "FLARE_WIRE",
                      .fallback = "127.0.0.1:8089",
                      .value = {.name = "wire", .kind = OPTION_TEXT}},
    [SETTING_TRANSPORT] = {.variable = "FLARE_TRANSPORT",
                           .fallback = "wire",
                           .value = {.name = "transport",
                                     .kind = OPTION_CHOICE,
                                     .value = "wire|http"}},
    [SETTING_TIMEOUT] =
        {.variable = "FLARE_TIMEOUT",
         .fallback = "30s",
         .value = {.name = "timeout", .kind = OPTION_DURATION, .min = 1, .max = 86400000}},
    [SETTING_FORMAT] = {.variable = "FLARE_FORMAT",
                        .fallback = "table",
                        .value = {.name = "format",
                                  .kind = OPTION_CHOICE,
                                  .value = "table|plain|json"}},
};

/* What an option says of a setting: its own value, or a flag's. The first that is given counts. */
struct setting_option {
    enum setting setting;
    enum global_option option;
    const char *place;
    const char *implied; /* NULL: the option's value */
};

static const struct setting_option options[] = {
    {SETTING_URL, GLOBAL_URL, "--url", NULL},
    {SETTING_WIRE, GLOBAL_WIRE, "--wire", NULL},
    {SETTING_TRANSPORT, GLOBAL_HTTP, "--http", "http"},
    {SETTING_TRANSPORT, GLOBAL_WIRE, "--wire", "wire"},
    {SETTING_TIMEOUT, GLOBAL_TIMEOUT, "--timeout", NULL},
    {SETTING_FORMAT, GLOBAL_JSON, "--json", "json"},
    {SETTING_FORMAT, GLOBAL_PLAIN, "--plain", "plain"},
    {SETTING_FORMAT, GLOBAL_TABLE, "--table", "table"},
};

#define CONTEXT_VARIABLE "FLARE_CONTEXT"

const char *settings_name(enum setting setting)
{
    return rows[setting].value.name;
}

const char *settings_variable(enum setting setting)
{
    return rows[setting].variable;
}

const char *settings_default(enum setting setting)
{
    return rows[setting].fallback;
}

static const struct setting_option *find_option(const struct arguments *arguments,
                                                enum setting setting)
{
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        if (options[i].setting == setting && arguments->globals[options[i].option].set) {
            return &options[i];
        }
    }
    return NULL;
}

static const char *option_text(const struct arguments *arguments,
                               const struct setting_option *option)
{
    return option->implied != NULL ? option->implied : arguments->globals[option->option].text;
}

const char *settings_given(const struct arguments *arguments, enum setting setting)
{
    const struct setting_option *option = find_option(arguments, setting);
    return option == NULL ? NULL : option_text(arguments, option);
}

/* A name or an address, brackets around one with colons, and a port; or "off", as flared takes it
 * from the same variable. */
static bool is_address(const char *text)
{
    if (strcmp(text, SETTINGS_WIRE_OFF) == 0) {
        return true;
    }
    const char *colon = strrchr(text, ':');
    if (colon == NULL || colon == text) {
        return false;
    }
    size_t digits = strspn(colon + 1, "0123456789");
    long port = strtol(colon + 1, NULL, 10);
    bool bracketed = text[0] == '[' && colon[-1] == ']';
    bool plain = memchr(text, ':', (size_t)(colon - text)) == NULL && strchr(text, '/') == NULL;
    return (bracketed || plain) && digits > 0 && digits <= 5 && colon[1 + digits] == '\0' &&
           port > 0 && port <= UINT16_MAX;
}

/* Reads one value of whatever place. */
static err_t read_value(enum setting setting, const char *place, const char *text,
                        struct setting_value *out)
{
    struct option_value value = {0};
    if (setting == SETTING_URL && strncasecmp(text, "http://", 7) != 0 &&
        strncasecmp(text, "https://", 8) != 0) {
        return ERR(INVALID, "%s: '%s' is not a URL such as http://127.0.0.1:8080", place, text);
    }
    if (setting == SETTING_WIRE && !is_address(text)) {
        return ERR(INVALID, "%s: '%s' is not an address such as 127.0.0.1:8089", place, text);
    }
    TRY(options_read(&rows[setting].value, place, text, &value));
    out->text = text;
    out->number = value.number;
    return NULL;
}

err_t settings_check(enum setting setting, const char *place, const char *text)
{
    struct setting_value value;
    return read_value(setting, place, text, &value);
}

err_t settings_check_given(const struct arguments *arguments)
{
    for (enum setting setting = 0; setting < SETTING_COUNT; setting++) {
        const struct setting_option *option = find_option(arguments, setting);
        if (option != NULL) {
            TRY(settings_check(setting, option->place, option_text(arguments, option)));
        }
    }
    return NULL;
}

/* An empty variable counts as not set. */
static const char *environment_text(const char *name)
{
    const char *text = getenv(name);
    return text == NULL || text[0] == '\0' ? NULL : text;
}

static err_t resolve_one(const struct arguments *arguments, const json_t *context,
                         enum setting setting, struct setting_value *out)
{
    const struct setting_option *option = find_option(arguments, setting);
    const char *environment = environment_text(rows[setting].variable);
    const char *kept = json_string_value(json_object_get(context, rows[setting].value.name));
    const char *text = rows[setting].fallback;
    *out = (struct setting_value){.origin = SETTING_DEFAULT, .place = "the default"};
    if (option != NULL) {
        *out = (struct setting_value){.origin = SETTING_OPTION, .place = option->place};
        text = option_text(arguments, option);
    } else if (environment != NULL) {
        *out =
            (struct setting_value){.origin = SETTING_ENVIRONMENT, .place = rows[setting].variable};
        text = environment;
    } else if (kept != NULL) {
        *out = (struct setting_value){.origin = SETTING_CONTEXT, .place = "the context"};
        text = kept;
    }
    return read_value(setting, out->place, text, out);
}

/* The context in force: --context, FLARE_CONTEXT, the one in use; an empty --context is none. */
static err_t choose_context(const struct arguments *arguments, const struct contexts *contexts,
                            const char **name, const json_t **out)
{
    const struct option_value *given = &arguments->globals[GLOBAL_CONTEXT];
    const char *environment = environment_text(CONTEXT_VARIABLE);
    *out = NULL;
    *name = NULL;
    if (contexts == NULL || (given->set && given->text[0] == '\0')) {
        return NULL;
    }
    *name = given->set            ? given->text
            : environment != NULL ? environment
                                  : contexts_current(contexts);
    if (*name == NULL) {
        return NULL;
    }
    *out = contexts_get(contexts, *name);
    if (*out == NULL) {
        return ERR(NOT_FOUND, "there is no context %s (flare ctx ls lists them)", *name);
    }
    return NULL;
}

err_t settings_resolve(const struct arguments *arguments, const struct contexts *contexts,
                       struct settings *out)
{
    const json_t *context = NULL;
    TRY(choose_context(arguments, contexts, &out->context, &context));
    for (enum setting setting = 0; setting < SETTING_COUNT; setting++) {
        TRY(resolve_one(arguments, context, setting, &out->values[setting]));
    }
    /* An address that a weaker place gives belongs to another URL, and so to another broker. */
    if (out->values[SETTING_WIRE].origin < out->values[SETTING_URL].origin) {
        out->values[SETTING_WIRE] =
            (struct setting_value){.origin = SETTING_DEFAULT, .place = "the broker"};
    }
    return NULL;
}
