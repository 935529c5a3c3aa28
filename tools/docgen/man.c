#include "tools/docgen/man.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "broker/base/version.h"
#include "broker/config/config.h"
#include "broker/config/units.h"
#include "tools/flare/commands.h"
#include "tools/flare/settings.h"

enum { PATH_SIZE = 4096 };

/* ---- roff ------------------------------------------------------------------------------------ */

/* What typesetting would turn into another character, and what begins an escape. */
static const char *escape_of(char character)
{
    switch (character) {
    case '\\':
        return "\\(rs";
    case '-':
        return "\\-";
    case '\'':
        return "\\(aq";
    case '`':
        return "\\(ga";
    case '^':
        return "\\(ha";
    case '~':
        return "\\(ti";
    default:
        return NULL;
    }
}

void man_print_text(const char *text, struct buf *out)
{
    bool line_begins = out->size == 0 || out->data[out->size - 1] == '\n';
    for (; *text != '\0'; text++) {
        const char *escape = escape_of(*text);
        if (line_begins && *text == '.') {
            buf_append_text(out, "\\&");
        }
        if (escape != NULL) {
            buf_append_text(out, escape);
        } else {
            buf_append_byte(out, (uint8_t)*text);
        }
        line_begins = *text == '\n';
    }
}

static void print_font(char font, const char *text, struct buf *out)
{
    buf_printf(out, "\\f%c", font);
    man_print_text(text, out);
    buf_append_text(out, "\\fR");
}

static void print_head(const char *name, unsigned section, const char *summary, struct buf *out)
{
    buf_append_text(out, ".TH \"");
    for (const char *at = name; *at != '\0'; at++) {
        char letter[2] = {(char)toupper((unsigned char)*at), '\0'};
        man_print_text(letter, out);
    }
    buf_printf(out, "\" \"%u\" \"\" \"Flare %s\" \"Flare Manual\"\n.SH NAME\n", section,
               FLARE_VERSION_NUMBER);
    man_print_text(name, out);
    buf_append_text(out, " \\- ");
    man_print_text(summary, out);
    buf_append_byte(out, '\n');
}

static void print_examples(const char *examples, struct buf *out)
{
    buf_append_text(out, ".SH EXAMPLES\n.EX\n");
    man_print_text(examples, out);
    buf_append_text(out, ".EE\n");
}

/* ---- options --------------------------------------------------------------------------------- */

static void print_bounds(const struct option_row *row, struct buf *out)
{
    char min[UNITS_TEXT_SIZE];
    char max[UNITS_TEXT_SIZE];
    const struct unit *units = row->kind == OPTION_DURATION ? units_duration
                               : row->kind == OPTION_SIZE   ? units_size
                                                            : units_none;
    if (row->max != 0) {
        units_print(units, row->min, min);
        units_print(units, row->max, max);
        buf_printf(out, " (%s to %s)", min, max);
    }
}

static void print_option(const struct option_row *row, struct buf *out)
{
    char name[64];
    buf_append_text(out, ".TP\n");
    if (row->letter != '\0') {
        (void)snprintf(name, sizeof name, "-%c", row->letter);
        print_font('B', name, out);
        buf_append_text(out, ", ");
    }
    (void)snprintf(name, sizeof name, "--%s", row->name);
    print_font('B', name, out);
    if (row->value != NULL) {
        buf_append_byte(out, ' ');
        print_font('I', row->value, out);
    }
    buf_append_byte(out, '\n');
    man_print_text(row->help, out);
    print_bounds(row, out);
    buf_append_byte(out, '\n');
}

static void print_options(const struct option_row *row, struct buf *out)
{
    for (; row != NULL && row->name != NULL; row++) {
        print_option(row, out);
    }
}

/* ---- flare ----------------------------------------------------------------------------------- */

void man_name(const struct cli_command *command, char out[MAN_NAME_MAX])
{
    (void)snprintf(out, MAN_NAME_MAX, "flare-%s", command->name);
    for (char *at = out; *at != '\0'; at++) {
        *at = *at == ' ' ? '-' : *at;
    }
}

static void print_reference(const char *name, unsigned section, struct buf *out)
{
    print_font('B', name, out);
    buf_printf(out, "(%u)", section);
}

void man_print_command(const struct cli_command *command, struct buf *out)
{
    char text[MAN_NAME_MAX];
    man_name(command, text);
    print_head(text, 1, command->summary, out);
    buf_append_text(out, ".SH SYNOPSIS\n");
    (void)snprintf(text, sizeof text, "flare %s", command->name);
    print_font('B', text, out);
    buf_append_byte(out, ' ');
    if (command->operands[0] != '\0') {
        print_font('I', command->operands, out);
        buf_append_byte(out, ' ');
    }
    buf_append_text(out, "[\\fIoptions\\fR]\n.SH DESCRIPTION\n");
    man_print_text(command->summary, out);
    buf_append_text(out, ".\n");
    if (command->details != NULL) {
        man_print_text(command->details, out);
        buf_append_byte(out, '\n');
    }
    buf_append_text(out, ".SH OPTIONS\n");
    if (command->options != NULL) {
        print_options(command->options, out);
        buf_append_text(out, ".PP\n");
    }
    buf_append_text(out, "The options of every command, the environment, the files and the exit "
                         "status\nare in\n");
    print_reference("flare", 1, out);
    buf_append_text(out, ".\n");
    print_examples(command->examples, out);
    buf_append_text(out, ".SH SEE ALSO\n");
    print_reference("flare", 1, out);
    buf_append_text(out, ",\n");
    print_reference("flared", 8, out);
    buf_append_byte(out, '\n');
}

static void print_entry(const char *name, const char *text, struct buf *out)
{
    buf_append_text(out, ".TP\n");
    print_font('B', name, out);
    buf_append_byte(out, '\n');
    man_print_text(text, out);
    buf_append_byte(out, '\n');
}

struct entry {
    const char *name;
    const char *text;
};

static void print_entries(const struct entry *entries, struct buf *out)
{
    for (; entries->name != NULL; entries++) {
        print_entry(entries->name, entries->text, out);
    }
}

static const struct entry variables[] = {
    {"FLARE_CONTEXT", "The context in use, instead of the one that flare ctx use chose."},
    {"FLARE_DATA", "The data directory of flare backup, inspect and verify."},
    {"NO_COLOR", "No colour, whatever its value."},
    {"XDG_CONFIG_HOME", "Where the contexts are, instead of ~/.config."},
    {NULL, NULL},
};

static const struct entry exit_codes[] = {
    {"0", "Done."},
    {"64", "The command line is wrong."},
    {"65", "The request was refused, or data is damaged."},
    {"66", "Something is not there."},
    {"69", "No broker answers."},
    {"70", "An error of the broker or of the tool."},
    {"74", "Reading or writing failed."},
    {"75", "Not now; it may succeed when tried again."},
    {"76", "The answer is not a broker's."},
    {"77", "Not allowed."},
    {"78", "The environment or a context is wrong."},
    {NULL, NULL},
};

static void print_commands(struct buf *out)
{
    char name[MAN_NAME_MAX];
    size_t position = 0;
    const struct cli_command *command = NULL;
    buf_append_text(out, ".SH COMMANDS\n");
    while ((command = commands_next(&position)) != NULL) {
        man_name(command, name);
        buf_append_text(out, ".TP\n");
        print_reference(name, 1, out);
        buf_append_byte(out, '\n');
        man_print_text(command->summary, out);
        buf_append_text(out, ".\n");
    }
}

static void print_environment(struct buf *out)
{
    buf_append_text(out, ".SH ENVIRONMENT\nAn option overrules a variable, a variable the context, "
                         "the context a default.\n");
    for (enum setting setting = 0; setting < SETTING_COUNT; setting++) {
        char text[256];
        (void)snprintf(text, sizeof text, "The setting %s of flare ctx show; default %s.",
                       settings_name(setting), settings_default(setting));
        print_entry(settings_variable(setting), text, out);
    }
    print_entries(variables, out);
}

void man_print_overview(struct buf *out)
{
    print_head("flare", 1, "the command-line tool of the Flare queue broker", out);
    buf_append_text(out, ".SH SYNOPSIS\n\\fBflare\\fR \\fICOMMAND\\fR [\\fIoptions\\fR]\n"
                         ".SH DESCRIPTION\n"
                         "Data goes to standard output, everything else to standard error.\n"
                         "Each command has a page of its own, and prints it in short with "
                         "\\fB\\-\\-help\\fR.\n");
    print_commands(out);
    buf_append_text(out, ".SH OPTIONS\nThese may stand anywhere on the line of any command.\n");
    print_options(options_globals(), out);
    print_environment(out);
    buf_append_text(out, ".SH FILES\n");
    print_entry("~/.config/flare/contexts.json", "The contexts; see flare ctx.", out);
    buf_append_text(out, ".SH EXIT STATUS\n");
    print_entries(exit_codes, out);
    print_examples("  flare topic put orders --shards 8\n"
                   "  flare sub put orders billing\n"
                   "  flare pub orders 'hello' --key customer-7\n"
                   "  flare pull orders billing --max 10 --ack\n",
                   out);
    buf_append_text(out, ".SH SEE ALSO\n");
    print_reference("flared", 8, out);
    buf_append_byte(out, '\n');
}

/* ---- flared ---------------------------------------------------------------------------------- */

static void print_setting(size_t index, struct buf *out)
{
    const struct config_setting *setting = config_setting(index);
    char option[CONFIG_VARIABLE_SIZE + 4];
    char variable[CONFIG_VARIABLE_SIZE];
    char bounds[CONFIG_BOUNDS_SIZE];
    config_bounds(setting, bounds);
    config_variable(index, variable);
    (void)snprintf(option, sizeof option, "--%s", setting->name);
    buf_append_text(out, ".TP\n");
    print_font('B', option, out);
    const char *placeholder = config_placeholder(setting->type);
    if (placeholder[0] != '\0') {
        print_font('I', placeholder, out);
    }
    buf_append_byte(out, '\n');
    man_print_text(setting->doc, out);
    buf_append_text(out, "\n(default ");
    man_print_text(setting->default_text, out);
    if (bounds[0] != '\0') {
        buf_append_text(out, "; ");
        man_print_text(bounds, out);
    }
    buf_append_text(out, "; environment ");
    print_font('B', variable, out);
    buf_append_text(out, ")\n");
}

void man_print_broker(struct buf *out)
{
    print_head("flared", 8, "the Flare queue broker", out);
    buf_append_text(out,
                    ".SH SYNOPSIS\n\\fBflared\\fR [\\fIoptions\\fR]\n"
                    ".SH DESCRIPTION\n"
                    "One program, one data directory, no other service. On SIGTERM it answers what "
                    "has been\n"
                    "committed and ends with status 0.\n"
                    ".PP\n"
                    "A setting comes from the first of these that has it: command line, "
                    "environment, the file of\n"
                    "\\fB\\-\\-config\\fR, default. Sizes take k, m, g or t; times ms, s, m, h or "
                    "d.\n"
                    ".SH OPTIONS\n");
    print_entry("--config FILE",
                "Read settings from FILE: lines of \"name = value\", comments after #. Also "
                "FLARE_CONFIG.",
                out);
    print_entry("--help", "Print the settings and exit.", out);
    print_entry("--version", "Print the version and exit.", out);
    for (size_t index = 0; config_setting(index) != NULL; index++) {
        print_setting(index, out);
    }
    print_examples("  flared --data /var/lib/flare --http 127.0.0.1:8080\n"
                   "  flared --ephemeral\n"
                   "  FLARE_LOG_FORMAT=json flared --config /etc/flare.conf\n",
                   out);
    buf_append_text(out, ".SH SEE ALSO\n");
    print_reference("flare", 1, out);
    buf_append_byte(out, '\n');
}

/* ---- files ----------------------------------------------------------------------------------- */

/* Writes `page` and empties it for the next one. */
static err_t write_page(const char *directory, const char *name, unsigned section, struct buf *page)
{
    char path[PATH_SIZE];
    if (page->failed) {
        return ERR(TOO_LARGE, "the page of %s is larger than %d bytes", name, MAN_PAGE_MAX);
    }
    if ((size_t)snprintf(path, sizeof path, "%s/%s.%u", directory, name, section) >= sizeof path) {
        return ERR(INVALID, "the path of the pages is too long");
    }
    FILE *file = fopen(path, "wb");
    if (file == NULL) {
        return ERR(IO, "open %s: %s", path, strerror(errno));
    }
    bool written = fwrite(page->data, 1, page->size, file) == page->size;
    if (fclose(file) != 0 || !written) {
        return ERR(IO, "write %s: %s", path, strerror(errno));
    }
    buf_reset(page);
    return NULL;
}

err_t man_write(const char *directory)
{
    struct buf page;
    size_t position = 0;
    const struct cli_command *command = NULL;
    err_t err = NULL;
    if (mkdir(directory, 0777) != 0 && errno != EEXIST) {
        return ERR(IO, "make %s: %s", directory, strerror(errno));
    }
    buf_init(&page, MAN_PAGE_MAX);
    man_print_overview(&page);
    TRY_OUT(write_page(directory, "flare", 1, &page));
    man_print_broker(&page);
    TRY_OUT(write_page(directory, "flared", 8, &page));
    while ((command = commands_next(&position)) != NULL) {
        char name[MAN_NAME_MAX];
        man_name(command, name);
        man_print_command(command, &page);
        TRY_OUT(write_page(directory, name, 1, &page));
    }
out:
    buf_deinit(&page);
    return err;
}
