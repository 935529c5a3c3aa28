/* docgen: pages are cut at their markers and nowhere else, and every row of a table is on its
 * section. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above */
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "broker/config/config.h"
#include "broker/http/routes.h"
#include "tools/docgen/documents.h"
#include "tools/docgen/page.h"
#include "tools/docgen/sections.h"

enum { PAGE_MAX = 1 << 20 };

#define BEGIN(name) "<!-- docgen " name " begin -->\n"
#define END(name) "<!-- docgen " name " end -->\n"

/* "[name]" for every section but "unknown". */
static bool print_name(const struct page *page, struct span name, struct buf *out)
{
    assert_true(page_has(page, name));
    buf_printf(out, "[%.*s]\n", (int)name.size, (const char *)name.data);
    return !span_is(name, "unknown");
}

/* `text` rendered, terminated, and which of its sections were stale. */
static const char *render(const char *text, page_print_t *print, struct buf *out, uint64_t *stale)
{
    static struct page page;
    buf_init(out, PAGE_MAX);
    assert_null(page_read(&page, span_text(text)));
    assert_null(page_render(&page, print, out, stale));
    buf_append_byte(out, '\0');
    return (const char *)out->data;
}

static void expect_code(err_t err, enum err_code code, const char *words)
{
    assert_non_null(err);
    assert_int_equal(err_code(err), code);
    if (strstr(err_message(err), words) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", err_message(err), words);
    }
    err_free(err);
}

/* ---- pages ----------------------------------------------------------------------------------- */

/* What stands between markers is replaced; what stands outside is kept to the byte, whether or not
 * the last line ends. */
static void only_sections_change(void **state)
{
    (void)state;
    static const struct {
        const char *before;
        const char *after;
        uint64_t stale;
    } cases[] = {
        {"", "", 0},
        {"no section", "no section", 0},
        {BEGIN("a") END("a"), BEGIN("a") "\n[a]\n\n" END("a"), 1},
        {"x\n" BEGIN("a") "old\n" END("a") "\ny\n" BEGIN("b") "\n[b]\n\n" END("b") "z",
         "x\n" BEGIN("a") "\n[a]\n\n" END("a") "\ny\n" BEGIN("b") "\n[b]\n\n" END("b") "z", 1},
        {BEGIN("a") "\n[a]\n\n" END("a") BEGIN("b c") "old\n<!-- docgen b c end -->",
         BEGIN("a") "\n[a]\n\n" END("a") BEGIN("b c") "\n[b c]\n\n<!-- docgen b c end -->", 2},
        {" <!-- docgen a begin -->\n", " <!-- docgen a begin -->\n", 0},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        struct buf out;
        uint64_t stale;
        assert_string_equal(render(cases[index].before, print_name, &out, &stale),
                            cases[index].after);
        assert_int_equal(stale, cases[index].stale);
        buf_deinit(&out);
        /* A page that was just written is not stale. */
        (void)render(cases[index].after, print_name, &out, &stale);
        assert_string_equal((const char *)out.data, cases[index].after);
        assert_int_equal(stale, 0);
        buf_deinit(&out);
    }
}

/* A page whose markers do not pair up is refused with the line, before anything is written. */
static void torn_pages_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *words;
    } cases[] = {
        {"\n" BEGIN("a") "text\n", "section \"a\" does not end"},
        {"\n" END("a"), "line 2: \"a\" ends and has not begun"},
        {BEGIN("a") BEGIN("b") END("b") END("a"), "line 2: \"b\" begins inside"},
        {BEGIN("a") END("b"), "line 2: \"b\" ends inside"},
        {BEGIN("a") END("a") END("a"), "line 3: \"a\" ends and has not begun"},
        {BEGIN("a") END("a") BEGIN("a") END("a"), "line 3: section \"a\" is there twice"},
        {"<!-- docgen a -->\n", "line 1: a marker is"},
        {"<!-- docgen a begin --> \n", "line 1: a marker is"},
        {"<!-- docgen  begin -->\n", "line 1: a marker is"},
    };
    static struct page page;
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        expect_code(page_read(&page, span_text(cases[index].text)), ERR_INVALID,
                    cases[index].words);
    }
}

/* A page has at most PAGE_SECTIONS_MAX sections, the last of which is still told to be stale. */
static void sections_have_a_limit(void **state)
{
    (void)state;
    struct buf text;
    struct buf out;
    buf_init(&text, PAGE_MAX);
    for (int number = 1; number <= PAGE_SECTIONS_MAX; number++) {
        buf_printf(&text, BEGIN("%d") "%s" END("%d"), number,
                   number < PAGE_SECTIONS_MAX ? "" : "old\n", number);
    }
    buf_append_byte(&text, '\0');
    uint64_t stale;
    (void)render((const char *)text.data, print_name, &out, &stale);
    assert_int_equal(stale, UINT64_MAX);
    buf_deinit(&out);
    text.size--;
    buf_append_text(&text, BEGIN("more") END("more"));
    static struct page page;
    expect_code(page_read(&page, buf_span(&text)), ERR_INVALID, "more than 64 sections");
    buf_deinit(&text);
}

/* A section that nobody can print, and a page that outgrows its buffer, are errors. */
static void what_cannot_be_printed_is_an_error(void **state)
{
    (void)state;
    static struct page page;
    struct buf out;
    uint64_t stale;
    buf_init(&out, PAGE_MAX);
    assert_null(page_read(&page, span_text(BEGIN("unknown") END("unknown"))));
    expect_code(page_render(&page, print_name, &out, &stale), ERR_NOT_FOUND, "\"unknown\"");
    buf_deinit(&out);
    assert_null(page_read(&page, span_text(BEGIN("a") END("a") "tail")));
    const size_t whole = strlen(BEGIN("a") "\n[a]\n\n" END("a") "tail");
    for (size_t size = 0; size <= whole; size++) {
        buf_init(&out, size);
        err_t err = page_render(&page, print_name, &out, &stale);
        if (size == whole) {
            assert_null(err);
        } else {
            expect_code(err, ERR_TOO_LARGE, "does not fit");
        }
        buf_deinit(&out);
    }
}

/* A cell holds whatever its text says: nothing ends it early or passes for a tag. */
static void cells_are_escaped(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"", ""},
        {"plain", "plain"},
        {"a | b", "a \\| b"},
        {"<code>", "&lt;code>"},
        {"`<a>|` <b>", "`<a>\\|` &lt;b>"},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        struct buf out;
        buf_init(&out, PAGE_MAX);
        page_cell(&out, cases[index][0]);
        assert_true(span_is(buf_span(&out), cases[index][1]));
        buf_deinit(&out);
    }
}

/* ---- sections -------------------------------------------------------------------------------- */

static const struct page no_page;

static const char *section(const char *name, const struct page *page, struct buf *out)
{
    buf_init(out, PAGE_MAX);
    assert_true(section_print(page, span_text(name), out));
    buf_append_byte(out, '\0');
    assert_false(out->failed);
    return (const char *)out->data;
}

static void expect_line(const char *text, const char *line)
{
    const char *at = strstr(text, line);
    if (at == NULL || (at != text && at[-1] != '\n')) {
        fail_msg("no line begins with \"%s\"", line);
    }
}

/* The lines before the first row of a table tell Markdown that it is one. Every line has as many
 * cells, so that no text has broken out of its own. */
static void expect_table(const char *text)
{
    size_t cells = 0;
    size_t lines = 0;
    for (const char *line = strstr(text, "| "); line != NULL && *line != '\0'; lines++) {
        size_t size = strcspn(line, "\n");
        size_t found = 0;
        for (size_t at = 0; at < size; at++) {
            found += line[at] == '|' && (at == 0 || line[at - 1] != '\\');
        }
        cells = lines == 0 ? found : cells;
        assert_int_equal(found, cells);
        assert_int_equal(line[size - 1], '|');
        line += size;
        assert_int_equal(*line, '\n');
        line++;
    }
    assert_true(cells > 2);
    assert_true(lines > 2);
}

/* Every section is a table, and an unknown name is none. */
static void sections_are_tables(void **state)
{
    (void)state;
    static const char *const names[] = {
        "states",  "moves",  "routes",   "problems",      "documents",          "settings",
        "metrics", "tables", "commands", "document pull", "document log_level",
    };
    struct buf out;
    for (size_t index = 0; index < sizeof names / sizeof names[0]; index++) {
        expect_table(section(names[index], &no_page, &out));
        buf_deinit(&out);
    }
    static const char *const unknown[] = {
        "", "state", "document ", "document none", "document pull_max", "document max"};
    buf_init(&out, PAGE_MAX);
    for (size_t index = 0; index < sizeof unknown / sizeof unknown[0]; index++) {
        assert_false(section_print(&no_page, span_text(unknown[index]), &out));
    }
    buf_deinit(&out);
}

/* Every row of every table is on the section made from it. */
static void every_row_is_there(void **state)
{
    (void)state;
    struct buf out;
    const char *text = section("metrics", &no_page, &out);
#define METRIC(kind, name, help) expect_line(text, "| `flare_" #name "` | ");
#define SERIES(kind, name, label, texts, help)                                                     \
    METRIC(kind, name, help)                                                                       \
    assert_non_null(strstr(text, " | `" #label "` | " help " |\n"));
#define FAMILY(kind, name, labels, help) METRIC(kind, name, help)
#include "broker/metrics/metrics.def"
    expect_line(text, "| `flare_volume_state` | gauge | `volume`, `state` | 1 for the state");
    expect_line(text, "| `flare_commit_duration_seconds` | histogram |  | Time");
    buf_deinit(&out);

    text = section("problems", &no_page, &out);
#define ERROR(name, number, status, retryable, title)                                              \
    assert_int_equal((status) != 200, strstr(text, " | " title " |\n") != NULL);
#include "broker/base/err.def"
    expect_line(text, "| `lease_lost` | 409 |  | The receipt");
    expect_line(text, "| `busy` | 429 | yes | ");
    buf_deinit(&out);

    text = section("tables", &no_page, &out);
#define TABLE(name, number, doc) expect_line(text, "| " #name " | " #number " | " doc " |\n");
#include "storage/tables.def"
    buf_deinit(&out);

    text = section("commands", &no_page, &out);
#define COMMAND(name, number, doc) expect_line(text, "| " #name " | " #number " | " doc " |\n");
#include "broker/core/commands.def"
    buf_deinit(&out);
}

/* States and moves are written in the words that the API uses. */
static void the_life_of_a_message_is_there(void **state)
{
    (void)state;
    struct buf out;
    const char *text = section("states", &no_page, &out);
#define STATE(name, number, text_, doc)                                                            \
    assert_non_null(strstr(text, " | " #number " | `" text_ "` | " doc " |\n"));
#include "broker/core/lifecycle.def"
    expect_line(text, "| ready | 3 | `scheduled` | ");
    buf_deinit(&out);
    text = section("moves", &no_page, &out);
#define MOVE(from, event, to, doc) assert_non_null(strstr(text, " | " doc " |\n"));
#include "broker/core/lifecycle.def"
    expect_line(text, "| leased | done | ack |\n");
    buf_deinit(&out);
}

/* Every route is there with its role, its parameters and its documents; every setting with its
 * default. */
static void routes_and_settings_are_there(void **state)
{
    (void)state;
    struct buf out;
    const char *text = section("routes", &no_page, &out);
    for (uint32_t index = 0; index < route_count; index++) {
        char line[256];
        (void)snprintf(line, sizeof line, "| `%s %s` | %s | %s | ",
                       route_method_text(routes[index].method), routes[index].pattern,
                       routes[index].summary, route_role_text(routes[index].role));
        expect_line(text, line);
    }
    assert_non_null(strstr(text, " | view | `limit`, `cursor` |  | `topic_list` |\n"));
    assert_non_null(strstr(text, " | publish |  | the message body | `published` |\n"));
    assert_non_null(strstr(text, " | operate |  |  | `sub_answer` |\n"));
    buf_deinit(&out);
    text = section("settings", &no_page, &out);
    const struct config_setting *setting;
    for (size_t index = 0; (setting = config_setting(index)) != NULL; index++) {
        char line[128];
        (void)snprintf(line, sizeof line, "| `%s` | `FLARE_", setting->name);
        expect_line(text, line);
    }
    buf_deinit(&out);
}

/* A request's field shows its default and bounds with their unit; one without either shows none. */
static void fields_show_defaults_and_bounds(void **state)
{
    (void)state;
    static const struct {
        const char *document;
        const char *line;
    } cases[] = {
        {"document pull", "| `max` | integer | 1 | 1 to 10000 | "},
        {"document pull", "| `lease` | duration |  | 100ms to 12h | "},
        {"document subscription", "| `lease` | duration | 30s | 100ms to 12h | "},
        {"document message", "| `body` | bytes |  |  | "},
        {"document message", "| `idempotency_key` | text |  | 1 to 255 bytes | "},
        {"document nack", "| `receipts` | array | required |  | "},
        {"document nack", "| `reject` | boolean | false |  | "},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        struct buf out;
        expect_line(section(cases[index].document, &no_page, &out), cases[index].line);
        buf_deinit(&out);
    }
}

/* "documents" has those, and only those, that have no section of their own. */
static void no_document_is_left_out(void **state)
{
    (void)state;
    static struct page page;
    assert_null(page_read(&page, span_text(BEGIN("document pull") END("document pull"))));
    struct buf out;
    const char *text = section("documents", &page, &out);
    assert_null(strstr(text, "| `pull` | "));
    for (uint32_t row = 0; row < IN_ROWS; row++) {
        const struct in_field *field = &api_in_fields[row];
        bool has_fields = row + 1 < IN_ROWS && field[1].kind != IN_KIND_NONE;
        if (field->kind == IN_KIND_NONE && row != IN_pull && has_fields) {
            char line[128];
            (void)snprintf(line, sizeof line, "| `%s` | | | | %s", field->name, field->text);
            expect_line(text, line);
        }
    }
    assert_null(strstr(text, "| `nothing` | "));
    buf_deinit(&out);
}

/* ---- completeness ---------------------------------------------------------------------------- */

/* The sections of the real page, one missing: each of them is, by name. */
static void a_missing_section_is_named(void **state)
{
    (void)state;
    static const char *const needed[] = {
        "states",
        "moves",
        "routes",
        "problems",
        "documents",
        "settings",
        "metrics",
        "tables",
        "commands",
        "codes",
        "wire",
        "document topic",
        "document batch",
        "document subscription",
        "document pull",
        "document ack",
        "document nack",
        "document extend",
        "document redrive",
        "document purge",
        "document seek",
        "document log_level",
    };
    enum { COUNT = sizeof needed / sizeof needed[0] };
    for (size_t missing = 0; missing <= COUNT; missing++) {
        static struct page page;
        struct buf text;
        buf_init(&text, PAGE_MAX);
        for (size_t index = 0; index < COUNT; index++) {
            if (index != missing) {
                buf_printf(&text, BEGIN("%s") END("%s"), needed[index], needed[index]);
            }
        }
        assert_null(page_read(&page, buf_span(&text)));
        if (missing == COUNT) {
            assert_null(section_check(&page));
        } else {
            expect_code(section_check(&page), ERR_NOT_FOUND, needed[missing]);
        }
        buf_deinit(&text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_sections_change),
        cmocka_unit_test(torn_pages_are_refused),
        cmocka_unit_test(sections_have_a_limit),
        cmocka_unit_test(what_cannot_be_printed_is_an_error),
        cmocka_unit_test(cells_are_escaped),
        cmocka_unit_test(sections_are_tables),
        cmocka_unit_test(every_row_is_there),
        cmocka_unit_test(the_life_of_a_message_is_there),
        cmocka_unit_test(routes_and_settings_are_there),
        cmocka_unit_test(fields_show_defaults_and_bounds),
        cmocka_unit_test(no_document_is_left_out),
        cmocka_unit_test(a_missing_section_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
