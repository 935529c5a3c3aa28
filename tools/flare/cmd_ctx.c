/* flare ctx ls|show|set|use|rm: settings kept under a name. */
#include <stdio.h>
#include <string.h>

#include "tools/flare/output.h"

enum { SET_UNSET };

static const struct option_row set_options[] = {
    [SET_UNSET] = {.name = "unset",
                   .kind = OPTION_CHOICE,
                   .value = "url|wire|transport|timeout|format",
                   .help = "forget this setting; may repeat"},
    {.name = NULL},
};

static const struct field list_fields[] = {
    {"CURRENT", "current", FIELD_TEXT},
    {"NAME", "name", FIELD_TEXT},
    {"URL", "url", FIELD_TEXT},
    {"WIRE", "wire", FIELD_TEXT},
    {"TRANSPORT", "transport", FIELD_TEXT},
    {"TIMEOUT", "timeout", FIELD_TEXT},
    {"FORMAT", "format", FIELD_TEXT},
    {.title = NULL},
};

static const struct field show_fields[] = {
    {"SETTING", "setting", FIELD_TEXT},
    {"VALUE", "value", FIELD_TEXT},
    {"FROM", "from", FIELD_TEXT},
    {"VARIABLE", "variable", FIELD_TEXT},
    {.title = NULL},
};

/* The contexts, which the rows below open themselves: a line may be there to mend them. */
static err_t open_contexts(struct cli *cli)
{
    cli->blame = EX_CONFIG;
    TRY(contexts_open(&cli->contexts));
    cli->blame = EX_OK;
    return NULL;
}

static err_t ctx_list(struct cli *cli, const struct arguments *arguments)
{
    struct output output;
    const char *name = NULL;
    json_t *fields = NULL;
    (void)arguments;
    TRY(open_contexts(cli));
    const char *current = contexts_current(&cli->contexts);
    json_t *items = json_array();
    json_object_foreach(contexts_all(&cli->contexts), name, fields)
    {
        bool used = current != NULL && strcmp(current, name) == 0;
        json_t *item = json_pack("{s:s, s:b}", "name", name, "current", (int)used);
        (void)json_object_update(item, fields);
        (void)json_array_append_new(items, item);
    }
    output_init(&output, cli, list_fields);
    output_items(&output, items);
    json_decref(items);
    return NULL;
}

static err_t ctx_show(struct cli *cli, const struct arguments *arguments)
{
    struct output output;
    struct arguments named = *arguments;
    if (arguments->operand_count == 1) {
        named.globals[GLOBAL_CONTEXT] =
            (struct option_value){.text = arguments->operands[0], .set = true};
    }
    TRY(open_contexts(cli));
    TRY(settings_resolve(&named, &cli->contexts, &cli->settings));
    json_t *items = json_array();
    for (enum setting setting = 0; setting < SETTING_COUNT; setting++) {
        const struct setting_value *value = &cli->settings.values[setting];
        char place[CONTEXTS_NAME_MAX + 16];
        (void)snprintf(place, sizeof place, "context %s",
                       cli->settings.context == NULL ? "" : cli->settings.context);
        (void)json_array_append_new(
            items,
            json_pack("{s:s, s:s?, s:s, s:s}", "setting", settings_name(setting), "value",
                      value->text, "from", value->origin == SETTING_CONTEXT ? place : value->place,
                      "variable", settings_variable(setting)));
    }
    output_init(&output, cli, show_fields);
    output_items(&output, items);
    json_decref(items);
    return NULL;
}

static err_t find_context(struct cli *cli, const char *name)
{
    TRY(open_contexts(cli));
    if (contexts_get(&cli->contexts, name) == NULL) {
        return ERR(NOT_FOUND, "there is no context %s (flare ctx ls lists them)", name);
    }
    return NULL;
}

static err_t ctx_set(struct cli *cli, const struct arguments *arguments)
{
    const char *name = arguments->operands[0];
    const char *unset = NULL;
    size_t position = 0;
    if (!contexts_name_valid(name)) {
        return USAGE(cli, "'%s' is no name: up to %d letters, digits, '.', '_' and '-'", name,
                     CONTEXTS_NAME_MAX);
    }
    TRY(open_contexts(cli));
    const json_t *before = contexts_get(&cli->contexts, name);
    json_t *fields = before == NULL ? json_object() : json_deep_copy(before);
    while ((unset = arguments_next(arguments, SET_UNSET, &position)) != NULL) {
        (void)json_object_del(fields, unset);
    }
    for (enum setting setting = 0; setting < SETTING_COUNT; setting++) {
        const char *given = settings_given(arguments, setting);
        if (given != NULL) {
            (void)json_object_set_new(fields, settings_name(setting), json_string(given));
        }
    }
    contexts_put(&cli->contexts, name, fields);
    TRY(contexts_save(&cli->contexts));
    const char *current = contexts_current(&cli->contexts);
    if (current == NULL || strcmp(current, name) != 0) {
        cli_note(cli, "context %s kept; flare ctx use %s makes it the one in use", name, name);
    }
    return NULL;
}

static err_t ctx_use(struct cli *cli, const struct arguments *arguments)
{
    const char *name = arguments->operand_count == 0 ? NULL : arguments->operands[0];
    TRY(name == NULL ? open_contexts(cli) : find_context(cli, name));
    contexts_use(&cli->contexts, name);
    TRY(contexts_save(&cli->contexts));
    cli_note(cli, name == NULL ? "no context is in use" : "context %s is in use", name);
    return NULL;
}

static err_t ctx_remove(struct cli *cli, const struct arguments *arguments)
{
    TRY(find_context(cli, arguments->operands[0]));
    contexts_remove(&cli->contexts, arguments->operands[0]);
    TRY(contexts_save(&cli->contexts));
    cli_note(cli, "context %s removed", arguments->operands[0]);
    return NULL;
}

#define PRECEDENCE                                                                                 \
    "A setting comes from the first of these that has it: command line, environment, the\n"        \
    "context in use (or that of --context or $FLARE_CONTEXT), default."

const struct cli_command ctx_commands[] = {
    {.name = "ctx ls",
     .operands = "",
     .scope = CLI_CONTEXTLESS,
     .summary = "List the contexts: settings kept under a name",
     .examples = "  flare ctx ls\n",
     .run = ctx_list},
    {.name = "ctx show",
     .operands = "[CONTEXT]",
     .operands_max = 1,
     .scope = CLI_CONTEXTLESS,
     .summary = "Show each setting in force and where it comes from",
     .details = PRECEDENCE,
     .examples = "  flare ctx show\n  flare ctx show prod\n",
     .run = ctx_show},
    {.name = "ctx set",
     .operands = "CONTEXT",
     .operands_min = 1,
     .operands_max = 1,
     .scope = CLI_CONTEXTLESS,
     .summary = "Keep the settings given on this line under a name",
     .details = "Those that the context has already and the line does not name stay.\n" PRECEDENCE,
     .examples =
         "  flare ctx set prod --url https://flare.example.com --wire flare.example.com:8089\n"
         "  flare ctx set prod --http --timeout 1m --json\n"
         "  flare ctx set prod --unset transport --unset format\n",
     .options = set_options,
     .run = ctx_set},
    {.name = "ctx use",
     .operands = "[CONTEXT]",
     .operands_max = 1,
     .scope = CLI_CONTEXTLESS,
     .summary = "Make a context the one in use; without a name, none",
     .details = PRECEDENCE,
     .examples = "  flare ctx use prod\n  flare ctx use\n",
     .run = ctx_use},
    {.name = "ctx rm",
     .operands = "CONTEXT",
     .operands_min = 1,
     .operands_max = 1,
     .scope = CLI_CONTEXTLESS,
     .summary = "Forget a context",
     .examples = "  flare ctx rm prod\n",
     .run = ctx_remove},
    {.name = NULL},
};
