#include "broker/config/config.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/lib/fault.h"
#include "tests/lib/tmpdir.h"

/* Settings of the tests that load all places. */
static struct tmpdir directory;

static int setup(void **state)
{
    (void)state;
    tmpdir_init(&directory);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    tmpdir_deinit(&directory);
    return 0;
}

static bool is_number(const struct config_setting *setting)
{
    return setting->type == CONFIG_U32 || setting->type == CONFIG_SIZE ||
           setting->type == CONFIG_SIZE32 || setting->type == CONFIG_DURATION;
}

/* The stored value of a number, whatever its width. */
static uint64_t number_at(const struct config *config, size_t index)
{
    const struct config_setting *setting = config_setting(index);
    const char *field = (const char *)config + setting->offset;
    uint32_t narrow = 0;
    uint64_t wide = 0;
    if (setting->type == CONFIG_SIZE) {
        memcpy(&wide, field, sizeof wide);
        return wide;
    }
    memcpy(&narrow, field, sizeof narrow);
    return narrow;
}

static void expect_error(err_t err, enum err_code code, const char *part)
{
    assert_int_equal(err_code(err), code);
    if (strstr(err_message(err), part) == NULL) {
        assert_string_equal(err_message(err), part);
    }
    err_free(err);
}

static err_t set(struct config *config, size_t index, const char *value)
{
    return config_set(config, index, span_text(value), config_setting(index)->name);
}

/* Every number takes its bounds and refuses what is one beyond, naming setting and bounds. */
static void test_every_bound(void **state)
{
    (void)state;
    size_t count = 0;
    struct config config;
    config_init(&config);
    const struct config_setting *setting = NULL;
    for (size_t index = 0; (setting = config_setting(index)) != NULL; index++) {
        if (!is_number(setting)) {
            continue;
        }
        count++;
        char text[32];
        const uint64_t good[] = {setting->min, setting->max};
        for (size_t i = 0; i < 2; i++) {
            (void)snprintf(text, sizeof text, "%" PRIu64, good[i]);
            assert_null(set(&config, index, text));
            assert_int_equal(number_at(&config, index), good[i]);
        }
        (void)snprintf(text, sizeof text, "%" PRIu64, setting->max + 1);
        expect_error(set(&config, index, text), ERR_INVALID, setting->name);
        assert_int_equal(number_at(&config, index), setting->max);
        if (setting->min > 0) {
            (void)snprintf(text, sizeof text, "%" PRIu64, setting->min - 1);
            expect_error(set(&config, index, text), ERR_INVALID, " from ");
            assert_int_equal(number_at(&config, index), setting->max);
        }
        expect_error(set(&config, index, "-1"), ERR_INVALID, "\"-1\"");
    }
    assert_true(count > 20);
}

/* Texts take any length within their bounds and no byte that would not survive a line of a file. */
static void test_texts(void **state)
{
    (void)state;
    struct config config;
    config_init(&config);
    char text[CONFIG_TEXT_MAX + 2];
    memset(text, 'x', sizeof text);
    for (size_t index = 0; index < CONFIG_SETTING_COUNT; index++) {
        const struct config_setting *setting = config_setting(index);
        if (setting->type != CONFIG_TEXT) {
            continue;
        }
        assert_null(config_set(&config, index, span_of(text, setting->min), "t"));
        assert_null(config_set(&config, index, span_of(text, setting->max), "t"));
        const char *field = (const char *)&config + setting->offset;
        assert_int_equal(strlen(field), setting->max);
        expect_error(config_set(&config, index, span_of(text, setting->max + 1), "t"), ERR_INVALID,
                     "t: must have from");
        expect_error(config_set(&config, index, span_of(text, setting->min - 1), "t"), ERR_INVALID,
                     "t: must have from");
    }
    static const char *const bad[] = {" x", "x ", "a\nb", "a\tb", "a\x7f", "a #b", "#b"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        expect_error(set(&config, CONFIG_AT_data, bad[i]), ERR_INVALID, "data: must be text");
    }
    expect_error(config_set(&config, CONFIG_AT_data, span_of("a\0b", 3), "t"), ERR_INVALID, "a?b");
    assert_null(set(&config, CONFIG_AT_data, "/a b/c#d/\xc3\xa9"));
}

/* Units multiply; what only looks like a number is refused. */
static void test_units(void **state)
{
    (void)state;
    static const struct {
        size_t index;
        const char *text;
        uint64_t value;
    } good[] = {
        {CONFIG_AT_quota, "0", 0},
        {CONFIG_AT_quota, "64k", 65536},
        {CONFIG_AT_quota, "64K", 65536},
        {CONFIG_AT_quota, "3m", 3 << 20},
        {CONFIG_AT_quota, "2g", (uint64_t)2 << 30},
        {CONFIG_AT_quota, "64t", (uint64_t)64 << 40},
        {CONFIG_AT_quota, "007", 7},
        {CONFIG_AT_quota, "7B", 7},
        {CONFIG_AT_quota, "5KiB", 5 << 10},
        {CONFIG_AT_quota, "5mib", 5 << 20},
        {CONFIG_AT_quota, "5GIB", (uint64_t)5 << 30},
        {CONFIG_AT_quota, "5TiB", (uint64_t)5 << 40},
        {CONFIG_AT_http_idle_timeout_ms, "250", 250},
        {CONFIG_AT_http_idle_timeout_ms, "250ms", 250},
        {CONFIG_AT_http_idle_timeout_ms, "2s", 2000},
        {CONFIG_AT_http_idle_timeout_ms, "2m", 120000},
        {CONFIG_AT_http_idle_timeout_ms, "2h", 7200000},
        {CONFIG_AT_http_idle_timeout_ms, "1d", 86400000},
    };
    struct config config;
    config_init(&config);
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_null(set(&config, good[i].index, good[i].text));
        assert_int_equal(number_at(&config, good[i].index), good[i].value);
    }
    static const struct {
        size_t index;
        const char *text;
    } bad[] = {
        {CONFIG_AT_quota, ""},
        {CONFIG_AT_quota, "k"},
        {CONFIG_AT_quota, "1x"},
        {CONFIG_AT_quota, "1kk"},
        {CONFIG_AT_quota, "1 k"},
        {CONFIG_AT_quota, "+1"},
        {CONFIG_AT_quota, "0x10"},
        {CONFIG_AT_quota, "1.5k"},
        {CONFIG_AT_quota, "1s"},
        {CONFIG_AT_volumes, "1k"},
        {CONFIG_AT_quota, "16777217t"},
        {CONFIG_AT_volumes, "1e1"},
        {CONFIG_AT_volumes, " 2"},
        {CONFIG_AT_wait_max_ms, "1k"},
        {CONFIG_AT_wait_max_ms, "s"},
        {CONFIG_AT_quota, "18446744073709551616"},
        {CONFIG_AT_quota, "18446744073709551617"},
        {CONFIG_AT_quota, "99999999999999999999999999999999999999999999999999999999999999999"},
        {CONFIG_AT_http_requests_max, "4294967296"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        expect_error(set(&config, bad[i].index, bad[i].text), ERR_INVALID, ": must be a ");
    }
}

/* Flags, levels and formats take their words and nothing else. */
static void test_words(void **state)
{
    (void)state;
    static const struct {
        size_t index;
        const char *text;
        const char *stored;
    } good[] = {
        {CONFIG_AT_ephemeral, "true", "true"},   {CONFIG_AT_ephemeral, "false", "false"},
        {CONFIG_AT_ephemeral, "1", "true"},      {CONFIG_AT_ephemeral, "0", "false"},
        {CONFIG_AT_log_level, "error", "error"}, {CONFIG_AT_log_level, "warn", "warn"},
        {CONFIG_AT_log_level, "info", "info"},   {CONFIG_AT_log_level, "debug", "debug"},
        {CONFIG_AT_log_format, "json", "json"},  {CONFIG_AT_log_format, "human", "human"},
    };
    struct config config;
    config_init(&config);
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct buf out;
        buf_init(&out, CONFIG_OUTPUT_MAX);
        assert_null(set(&config, good[i].index, good[i].text));
        config_print_value(&out, &config, good[i].index);
        assert_true(span_is(buf_span(&out), good[i].stored));
        buf_deinit(&out);
    }
    static const size_t words[] = {CONFIG_AT_ephemeral, CONFIG_AT_log_level, CONFIG_AT_log_format};
    static const char *const bad[] = {"", "yes", "TRUE", "JSON", "2", "info "};
    for (size_t w = 0; w < 3; w++) {
        for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
            expect_error(set(&config, words[w], bad[i]), ERR_INVALID, ": must be ");
        }
    }
}

/* The defaults lie within their bounds and rules, and are the ones promised. */
static void test_defaults(void **state)
{
    (void)state;
    struct config config;
    config_init(&config);
    assert_null(config_check(&config));
    assert_string_equal(config.data, "./flare-data");
    assert_string_equal(config.http, "127.0.0.1:8080");
    assert_int_equal(config.volumes, 2);
    assert_int_equal(config.quota, 0);
    assert_false(config.ephemeral);
    assert_int_equal(config.log_level, LOG_LEVEL_INFO);
    assert_int_equal(config.log_format, LOG_FORMAT_HUMAN);
    assert_int_equal(config.disk_reserve, 16 << 20);
    assert_int_equal(config.wait_max_ms, 20000);
    assert_int_equal(config.message_size_max, 1 << 20);
    assert_int_equal(config.commit_commands_max, 4096);
    assert_int_equal(config.commit_size_max, 16 << 20);
    assert_int_equal(config.mailbox_commands_max, 65536);
    assert_int_equal(config.http_connections_max, 10000);
    assert_int_equal(config.http_header_size_max, 16384);
    assert_int_equal(config.http_header_count_max, 64);
    assert_int_equal(config.http_body_size_max, 16 << 20);
    assert_int_equal(config.http_header_timeout_ms, 5000);
    assert_int_equal(config.http_body_rate_min, 1024);
    assert_int_equal(config.http_idle_timeout_ms, 60000);
    assert_int_equal(config.http_write_timeout_ms, 30000);
    for (size_t index = 0; index < CONFIG_SETTING_COUNT; index++) {
        assert_int_equal(config.origins[index], CONFIG_DEFAULT);
    }
}

/* Names are unique, and so are the variables made of them. */
static void test_names_are_unique(void **state)
{
    (void)state;
    for (size_t i = 0; i < CONFIG_SETTING_COUNT; i++) {
        for (size_t j = 0; j < i; j++) {
            assert_string_not_equal(config_setting(i)->name, config_setting(j)->name);
        }
    }
    char variable[CONFIG_VARIABLE_SIZE];
    config_variable(CONFIG_AT_log_level, variable);
    assert_string_equal(variable, "FLARE_LOG_LEVEL");
    assert_null(config_setting(CONFIG_SETTING_COUNT));
}

/* Loads with a file of that text (NULL: none), one variable (NULL: none) and up to three arguments.
 */
static err_t load(struct config *config, const char *file, const char *variable,
                  const char *const arguments[3])
{
    char path[TMPDIR_PATH_SIZE];
    char file_variable[TMPDIR_PATH_SIZE + 32] = "FLARE_NOTHING=";
    if (file != NULL) {
        tmpdir_write(&directory, "flare.conf", file, strlen(file));
        (void)snprintf(file_variable, sizeof file_variable, "FLARE_CONFIG=%s",
                       tmpdir_file(&directory, "flare.conf", path));
    }
    const char *const environment[] = {"PATH=/bin", file_variable,
                                       variable == NULL ? "X=" : variable, NULL};
    const char *argv[4] = {"flared"};
    int argc = 1;
    for (int i = 0; arguments != NULL && i < 3 && arguments[i] != NULL; i++) {
        argv[argc++] = arguments[i];
    }
    enum config_request request = CONFIG_HELP;
    err_t err = config_load(config, argc, argv, environment, &request);
    assert_int_equal(request, CONFIG_RUN);
    return err;
}

#define ARGUMENTS(...) ((const char *const[3]){__VA_ARGS__})

/* The command line overrules the environment, the environment the file, the file the default. */
static void test_precedence(void **state)
{
    (void)state;
    static const char file[] = "volumes = 3\n";
    static const struct {
        bool file;
        const char *variable;
        const char *argument;
        uint32_t volumes;
        enum config_origin origin;
    } cases[] = {
        {false, NULL, NULL, 2, CONFIG_DEFAULT},
        {true, NULL, NULL, 3, CONFIG_FILE},
        {false, "FLARE_VOLUMES=4", NULL, 4, CONFIG_ENVIRONMENT},
        {true, "FLARE_VOLUMES=4", NULL, 4, CONFIG_ENVIRONMENT},
        {true, "FLARE_VOLUMES=", NULL, 3, CONFIG_FILE},
        {true, "FLARE_VOLUMES_X=4", NULL, 3, CONFIG_FILE},
        {true, "FLARE_VOLUMES=4", "--volumes=5", 5, CONFIG_COMMAND_LINE},
        {true, NULL, "--volumes=5", 5, CONFIG_COMMAND_LINE},
        {false, NULL, "--volumes=5", 5, CONFIG_COMMAND_LINE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct config config;
        assert_null(load(&config, cases[i].file ? file : NULL, cases[i].variable,
                         ARGUMENTS(cases[i].argument)));
        assert_int_equal(config.volumes, cases[i].volumes);
        assert_int_equal(config.origins[CONFIG_AT_volumes], cases[i].origin);
    }
}

/* A value may follow its option or an equals sign; of a repeated option the last counts. */
static void test_command_line(void **state)
{
    (void)state;
    struct config config;
    assert_null(load(&config, NULL, NULL, ARGUMENTS("--volumes", "7")));
    assert_int_equal(config.volumes, 7);
    assert_null(load(&config, NULL, NULL, ARGUMENTS("--volumes=7", "--volumes=8")));
    assert_int_equal(config.volumes, 8);
    assert_null(load(&config, NULL, NULL, ARGUMENTS("--data=/a=b")));
    assert_string_equal(config.data, "/a=b");
    expect_error(load(&config, NULL, NULL, ARGUMENTS("--volumes")), ERR_INVALID,
                 "--volumes: needs a value");
    expect_error(load(&config, NULL, NULL, ARGUMENTS("--volume=1")), ERR_INVALID, "no such option");
    expect_error(load(&config, NULL, NULL, ARGUMENTS("--=1")), ERR_INVALID, "no such option");
    expect_error(load(&config, NULL, NULL, ARGUMENTS("volumes=1")), ERR_INVALID, "not an option");
    expect_error(load(&config, NULL, NULL, ARGUMENTS("-v")), ERR_INVALID, "not an option");
    expect_error(load(&config, NULL, NULL, ARGUMENTS("--volumes=65")), ERR_INVALID,
                 "--volumes: must be a number from 1 to 64, not \"65\"");
    expect_error(load(&config, NULL, "FLARE_QUOTA=1x", NULL), ERR_INVALID,
                 "FLARE_QUOTA: must be a size");
}

/* A refused place is refused even where another overrules it, and nothing of it is kept. */
static void test_refused_whole(void **state)
{
    (void)state;
    struct config config;
    expect_error(load(&config, "quota = 1g\nvolumes = 0\n", NULL, ARGUMENTS("--volumes=5")),
                 ERR_INVALID, "flare.conf:2: volumes: must be a number from 1 to 64, not \"0\"");
    assert_int_equal(config.volumes, 2);
    assert_int_equal(config.quota, 0);
}

/* Help and version win over everything, mistakes too. */
static void test_requests(void **state)
{
    (void)state;
    static const struct {
        const char *argument;
        enum config_request request;
    } cases[] = {{"--help", CONFIG_HELP}, {"-h", CONFIG_HELP}, {"--version", CONFIG_VERSION}};
    for (size_t i = 0; i < 3; i++) {
        struct config config;
        enum config_request request = CONFIG_RUN;
        const char *const argv[] = {"flared", "--nonsense", cases[i].argument};
        const char *const environment[] = {"FLARE_VOLUMES=x", NULL};
        assert_null(config_load(&config, 3, argv, environment, &request));
        assert_int_equal(request, cases[i].request);
    }
}

/* An ephemeral broker has no directory and takes a free port unless told; a directory contradicts
 * it. */
static void test_ephemeral(void **state)
{
    (void)state;
    struct config config;
    assert_null(load(&config, NULL, NULL, ARGUMENTS("--ephemeral")));
    assert_true(config.ephemeral);
    assert_string_equal(config.data, "");
    assert_string_equal(config.http, "127.0.0.1:0");
    assert_null(load(&config, NULL, NULL, ARGUMENTS("--ephemeral", "--http=127.0.0.1:8080")));
    assert_string_equal(config.http, "127.0.0.1:8080");
    expect_error(load(&config, NULL, NULL, ARGUMENTS("--ephemeral", "--data=x")), ERR_INVALID,
                 "--data");
    assert_null(load(&config, NULL, NULL, ARGUMENTS("--ephemeral=false", "--data=x")));
    assert_false(config.ephemeral);
}

/* Blank lines, comments, blanks and both ends of lines are understood; a name counts once. */
static void test_file(void **state)
{
    (void)state;
    struct config config;
    config_init(&config);
    static const char text[] = "# a comment\r\n"
                               "\n"
                               "  volumes=4# still the value?\n";
    expect_error(config_parse(&config, span_text(text), "f"), ERR_INVALID,
                 "f:3: volumes: must be a number from 1 to 64, not \"4# still the value?\"");
    static const char good[] = "  volumes\t=  4\t # four\r\n"
                               "data = /a b/c#d\n"
                               "   # http = x\n"
                               "ephemeral = true";
    assert_null(config_parse(&config, span_text(good), "f"));
    assert_int_equal(config.volumes, 4);
    assert_string_equal(config.data, "/a b/c#d");
    assert_true(config.ephemeral);
    static const struct {
        const char *text;
        const char *message;
    } bad[] = {
        {"volumes", "f:1: must be \"name = value\""},
        {"\n\nvolumes =\n", "f:3: volumes: must be a number"},
        {"= 4", "f:1: there is no setting \"\""},
        {"Volumes = 4", "f:1: there is no setting \"Volumes\""},
        {"volumes = 4\nquota = 1\nvolumes = 4", "f:3: volumes is set twice"},
        {"config = x", "f:1: there is no setting \"config\""},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        expect_error(config_parse(&config, span_text(bad[i].text), "f"), ERR_INVALID,
                     bad[i].message);
    }
    assert_null(config_parse(&config, span_of(NULL, 0), "f"));
}

/* A file that cannot be read or has no end is refused by name, and --config wins over its variable.
 */
static void test_file_access(void **state)
{
    (void)state;
    struct config config;
    char path[TMPDIR_PATH_SIZE];
    (void)tmpdir_file(&directory, "missing", path);
    expect_error(load(&config, "volumes = 0", NULL, ARGUMENTS("--config", path)), ERR_IO, path);
    expect_error(load(&config, NULL, NULL, ARGUMENTS("--config", "/dev/zero")), ERR_TOO_LARGE,
                 "/dev/zero");
    expect_error(load(&config, NULL, NULL, ARGUMENTS("--config", directory.path)), ERR_IO,
                 directory.path);
    tmpdir_write(&directory, "other", "volumes = 9", 11);
    char option[TMPDIR_PATH_SIZE + 16];
    (void)snprintf(option, sizeof option, "--config=%s", tmpdir_file(&directory, "other", path));
    assert_null(load(&config, "volumes = 0", NULL, ARGUMENTS(option)));
    assert_int_equal(config.volumes, 9);
}

/* Each RULE holds at equality and is broken one above it, naming both settings. */
static void test_rules(void **state)
{
    (void)state;
    struct config config;
    config_init(&config);
    size_t count = 0;
    /* A setting may stand below several others, so the upper one is brought to it. */
#define RULE(lower, upper)                                                                         \
    config_init(&config);                                                                          \
    config.lower = 5;                                                                              \
    config.upper = 5;                                                                              \
    assert_null(config_check(&config));                                                            \
    config.upper = 4;                                                                              \
    expect_error(config_check(&config), ERR_INVALID, config_setting(CONFIG_AT_##upper)->name);     \
    expect_error(config_check(&config), ERR_INVALID, config_setting(CONFIG_AT_##lower)->name);     \
    count++;
#include "broker/config/config.def"
    assert_true(count >= 2);
    expect_error(
        load(&config, NULL, NULL, ARGUMENTS("--message-size-max=2m", "--http-body-size-max=1m")),
        ERR_INVALID, "message-size-max: 2m must not exceed http-body-size-max, which is 1m");
}

/* What is printed reads back to the same values, at the defaults and at every bound. */
static void test_print_reads_back(void **state)
{
    (void)state;
    for (int round = 0; round < 3; round++) {
        struct config config;
        struct config again;
        config_init(&config);
        config_init(&again);
        for (size_t index = 0; round > 0 && index < CONFIG_SETTING_COUNT; index++) {
            const struct config_setting *setting = config_setting(index);
            char text[32];
            (void)snprintf(text, sizeof text, "%" PRIu64, round == 1 ? setting->min : setting->max);
            if (is_number(setting)) {
                assert_null(set(&config, index, text));
            }
        }
        struct buf first;
        struct buf second;
        buf_init(&first, CONFIG_OUTPUT_MAX);
        buf_init(&second, CONFIG_OUTPUT_MAX);
        config_print(&first, &config);
        assert_null(config_parse(&again, buf_span(&first), "printed"));
        config_print(&second, &again);
        assert_true(span_equal(buf_span(&first), buf_span(&second)));
        for (size_t index = 0; index < CONFIG_SETTING_COUNT; index++) {
            assert_true(!is_number(config_setting(index)) ||
                        number_at(&config, index) == number_at(&again, index));
        }
        buf_deinit(&first);
        buf_deinit(&second);
    }
}

/* Help and reference name every setting with its default and its words, in lines that fit a
 * terminal. */
static void test_help(void **state)
{
    (void)state;
    struct buf help;
    struct buf page;
    buf_init(&help, CONFIG_OUTPUT_MAX);
    buf_init(&page, CONFIG_OUTPUT_MAX);
    config_print_help(&help);
    config_print_reference(&page);
    buf_append_byte(&help, '\0');
    buf_append_byte(&page, '\0');
    assert_false(help.failed);
    assert_false(page.failed);
    for (size_t index = 0; index < CONFIG_SETTING_COUNT; index++) {
        const struct config_setting *setting = config_setting(index);
        char text[256];
        (void)snprintf(text, sizeof text, "\n  --%s", setting->name);
        assert_non_null(strstr((const char *)help.data, text));
        char variable[CONFIG_VARIABLE_SIZE];
        config_variable(index, variable);
        (void)snprintf(text, sizeof text, "\n| `%s` | `%s` | `%s` |", setting->name, variable,
                       setting->default_text);
        const char *row = strstr((const char *)page.data, text);
        assert_non_null(row);
        assert_non_null(strstr(row, setting->doc));
    }
    for (const char *line = (const char *)help.data; *line != '\0';) {
        size_t size = strcspn(line, "\n");
        assert_true(size <= 80);
        line += size + 1;
    }
    buf_deinit(&help);
    buf_deinit(&page);
}

/* Whichever allocation fails, loading ends with an error and leaves the defaults. */
static void test_without_memory(void **state)
{
    (void)state;
    char path[TMPDIR_PATH_SIZE];
    tmpdir_write(&directory, "flare.conf", "volumes = 4\n", 12);
    const char *const argv[] = {"flared", "--config", tmpdir_file(&directory, "flare.conf", path)};
    const char *const environment[] = {NULL};
    uint64_t nth = 1;
    for (;; nth++) {
        struct config config;
        enum config_request request = CONFIG_RUN;
        fault_alloc_nth(nth);
        err_t err = config_load(&config, 3, argv, environment, &request);
        bool failed = fault_alloc_stop();
        assert_int_equal(err != NULL, failed);
        assert_int_equal(config.volumes, failed ? 2 : 4);
        err_free(err);
        if (!failed) {
            break;
        }
    }
    assert_true(nth > 1);
}

int main(void)
{
#define CASE(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_bound),
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_units),
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_names_are_unique),
        CASE(test_precedence),
        CASE(test_command_line),
        CASE(test_refused_whole),
        cmocka_unit_test(test_requests),
        CASE(test_ephemeral),
        cmocka_unit_test(test_file),
        CASE(test_file_access),
        CASE(test_rules),
        cmocka_unit_test(test_print_reads_back),
        cmocka_unit_test(test_help),
        CASE(test_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
