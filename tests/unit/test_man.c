/* Manual pages: everything of the tables is there, and nothing in it is taken for roff. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above */
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "broker/config/config.h"
#include "tools/docgen/man.h"
#include "tools/flare/commands.h"
#include "tools/flare/settings.h"

/* ---- reading a page ---- */

static const char *finish(struct buf *page)
{
    buf_append_byte(page, '\0');
    assert_false(page->failed);
    return (const char *)page->data;
}

static void expect_text(const char *page, const char *text)
{
    if (strstr(page, text) == NULL) {
        fail_msg("'%s' is not in:\n%s", text, page);
    }
}

/* The escapes and requests the pages are made of: anything else came from a text. */
static void expect_sound(const char *page)
{
    static const char *const requests[] = {".TH ", ".SH ", ".TP\n", ".PP\n", ".EX\n", ".EE\n"};
    static const char *const escapes[] = {"\\-",   "\\fB",  "\\fI",  "\\fR",  "\\&.",
                                          "\\(rs", "\\(aq", "\\(ga", "\\(ha", "\\(ti"};
    assert_int_equal(strncmp(page, ".TH ", 4), 0);
    for (const char *at = page; *at != '\0'; at++) {
        bool line_begins = at == page || at[-1] == '\n';
        bool known = false;
        if (line_begins && *at == '.') {
            for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++) {
                known |= strncmp(at, requests[i], strlen(requests[i])) == 0;
            }
        } else if (*at == '\\') {
            for (size_t i = 0; i < sizeof escapes / sizeof escapes[0]; i++) {
                known |= strncmp(at, escapes[i], strlen(escapes[i])) == 0;
            }
        } else {
            known = *at != '\'' && *at != '`' && (*at == '\n' || (unsigned char)*at >= ' ');
        }
        if (!known) {
            fail_msg("roff would not show this as it is: %.40s", at);
        }
    }
}

/* A heading of the page; where its text begins. */
static const char *section(const char *page, const char *title)
{
    char heading[64];
    (void)snprintf(heading, sizeof heading, "\n.SH %s\n", title);
    const char *at = strstr(page, heading);
    if (at == NULL) {
        fail_msg("no section %s in:\n%s", title, page);
    }
    return at + strlen(heading);
}

/* The option has an entry of its own: its name, its value, and its help below. */
static void expect_option(const char *page, const struct option_row *row)
{
    struct buf text;
    buf_init(&text, MAN_PAGE_MAX);
    buf_append_text(&text, "\\fB\\-\\-");
    man_print_text(row->name, &text);
    buf_append_text(&text, "\\fR");
    if (row->value != NULL) {
        buf_append_text(&text, " \\fI");
        man_print_text(row->value, &text);
        buf_append_text(&text, "\\fR");
    }
    buf_append_byte(&text, '\n');
    man_print_text(row->help, &text);
    expect_text(page, finish(&text));
    if (row->letter != '\0') {
        char letter[32];
        (void)snprintf(letter, sizeof letter, "\\fB\\-%c\\fR, \\fB\\-\\-", row->letter);
        expect_text(page, letter);
    }
    buf_deinit(&text);
}

/* ---- the rules ---- */

/* A text is shown as it is, whatever roff would make of it; only what begins a line can be a
 * request. */
static void test_texts_are_shown_as_they_are(void **state)
{
    static const struct {
        const char *before;
        const char *text;
        const char *page;
    } rows[] = {
        {"", ".B", "\\&.B"},
        {"x\n", ".B", "x\n\\&.B"},
        {"x ", ".B", "x .B"},
        {"", "a\n.b\n'c", "a\n\\&.b\n\\(aqc"},
        {"", "C:\\f", "C:\\(rsf"},
        {"", "--x", "\\-\\-x"},
        {"", "`^~", "\\(ga\\(ha\\(ti"},
        {"", "", ""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct buf page;
        buf_init(&page, 1024);
        buf_append_text(&page, rows[i].before);
        man_print_text(rows[i].text, &page);
        assert_string_equal(finish(&page), rows[i].page);
        buf_deinit(&page);
    }
}

/* Every command has a page with its sections in order, its options and its examples. */
static void test_every_command_has_a_whole_page(void **state)
{
    const struct cli_command *command = NULL;
    size_t position = 0;
    (void)state;
    while ((command = commands_next(&position)) != NULL) {
        struct buf page;
        buf_init(&page, MAN_PAGE_MAX);
        man_print_command(command, &page);
        const char *text = finish(&page);
        expect_sound(text);
        assert_true(section(text, "NAME") < section(text, "SYNOPSIS"));
        assert_true(section(text, "SYNOPSIS") < section(text, "DESCRIPTION"));
        assert_true(section(text, "DESCRIPTION") < section(text, "OPTIONS"));
        assert_true(section(text, "OPTIONS") < section(text, "EXAMPLES"));
        assert_true(section(text, "EXAMPLES") < section(text, "SEE ALSO"));
        assert_int_equal(strncmp(section(text, "EXAMPLES"), ".EX\n  flare ", 12), 0);
        for (const struct option_row *row = command->options; row != NULL && row->name != NULL;
             row++) {
            expect_option(text, row);
        }
        buf_deinit(&page);
    }
    assert_true(position > 20);
}

/* A page is named after its command, with hyphens for spaces. */
static void test_pages_are_named_after_their_commands(void **state)
{
    char *const words[] = {(char[]){"topic"}, (char[]){"put"}};
    char name[MAN_NAME_MAX];
    size_t taken = 0;
    (void)state;
    const struct cli_command *command = commands_find(words, 2, &taken);
    assert_non_null(command);
    man_name(command, name);
    assert_string_equal(name, "flare-topic-put");
}

/* The page of flare lists every command that is not hidden, the options of all of them, and where
 * settings come from. */
static void test_the_overview_has_what_commands_share(void **state)
{
    struct buf page;
    const struct cli_command *command = NULL;
    (void)state;
    buf_init(&page, MAN_PAGE_MAX);
    man_print_overview(&page);
    const char *text = finish(&page);
    expect_sound(text);
    for (size_t i = 0; (command = commands_at(i)) != NULL; i++) {
        struct buf entry;
        char name[MAN_NAME_MAX];
        man_name(command, name);
        buf_init(&entry, 1024);
        buf_append_text(&entry, ".TP\n\\fB");
        man_print_text(name, &entry);
        buf_append_text(&entry, "\\fR(1)\n");
        assert_int_equal(strstr(text, finish(&entry)) == NULL, command->hidden);
        buf_deinit(&entry);
    }
    for (const struct option_row *row = options_globals(); row->name != NULL; row++) {
        expect_option(section(text, "OPTIONS"), row);
    }
    for (enum setting setting = 0; setting < SETTING_COUNT; setting++) {
        expect_text(section(text, "ENVIRONMENT"), settings_variable(setting));
    }
    assert_non_null(section(text, "EXIT STATUS"));
    buf_deinit(&page);
}

/* The page of flared has every setting with its default and its variable. */
static void test_the_broker_page_has_every_setting(void **state)
{
    struct buf page;
    const struct config_setting *setting = NULL;
    (void)state;
    buf_init(&page, MAN_PAGE_MAX);
    man_print_broker(&page);
    const char *text = finish(&page);
    expect_sound(text);
    for (size_t i = 0; (setting = config_setting(i)) != NULL; i++) {
        struct buf entry;
        char variable[CONFIG_VARIABLE_SIZE];
        buf_init(&entry, MAN_PAGE_MAX);
        buf_append_text(&entry, ".TP\n\\fB\\-\\-");
        man_print_text(setting->name, &entry);
        buf_append_text(&entry, "\\fR");
        expect_text(section(text, "OPTIONS"), finish(&entry));
        buf_reset(&entry);
        config_variable(i, variable);
        buf_append_text(&entry, "(default ");
        man_print_text(setting->default_text, &entry);
        expect_text(text, finish(&entry));
        expect_text(text, variable);
        buf_deinit(&entry);
    }
    buf_deinit(&page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts_are_shown_as_they_are),
        cmocka_unit_test(test_every_command_has_a_whole_page),
        cmocka_unit_test(test_pages_are_named_after_their_commands),
        cmocka_unit_test(test_the_overview_has_what_commands_share),
        cmocka_unit_test(test_the_broker_page_has_every_setting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
