#define _GNU_SOURCE
#include "broker/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "broker/base/clock.h"

/* A pipe in packet mode: each write(2) is one read, so what is read is one line's one write. */
static int lines[2];

static int setup(void **state)
{
    (void)state;
    return pipe2(lines, O_DIRECT | O_NONBLOCK | O_CLOEXEC);
}

static int teardown(void **state)
{
    (void)state;
    close(lines[0]);
    close(lines[1]);
    return 0;
}

/* The next write; empty when there was none. */
static const char *next_line(void)
{
    static char text[2 * LOG_LINE_MAX];
    ssize_t size = read(lines[0], text, sizeof text - 1);
    text[size < 0 ? 0 : size] = '\0';
    return text;
}

/* The line after its time, which must look like one. */
static const char *next_human(void)
{
    const char *line = next_line();
    assert_true(strlen(line) > CLOCK_ISO_SIZE);
    assert_int_equal(line[10], 'T');
    assert_int_equal(line[CLOCK_ISO_SIZE - 2], 'Z');
    return line + CLOCK_ISO_SIZE;
}

/* The line after its time and level. */
static const char *next_json(const char *level)
{
    const char *line = next_line();
    char start[64];
    (void)snprintf(start, sizeof start, "{\"time\":\"%.4s", line + 9);
    assert_memory_equal(line, start, strlen(start));
    line += strlen("{\"time\":\"") + CLOCK_ISO_SIZE - 1;
    (void)snprintf(start, sizeof start, "\",\"level\":\"%s\",", level);
    assert_memory_equal(line, start, strlen(start));
    return line + strlen(start);
}

/* For people: time, level, event and fields, quoted only where it is needed. */
static void test_human(void **state)
{
    (void)state;
    log_init(lines[1], LOG_FORMAT_HUMAN, LOG_LEVEL_INFO);
    LOG_INFO("volume opened");
    assert_string_equal(next_human(), "info volume opened\n");
    LOG_WARN("slow", LOG_TEXT("path", "/data/volume-0.mdb"), LOG_U64("bytes", UINT64_MAX),
             LOG_I64("skew", INT64_MIN), LOG_TEXT("none", ""), LOG_TEXT("null", NULL),
             LOG_SPAN("text", span_of("two words!", 9)), LOG_TEXT("pair", "a=b"));
    assert_string_equal(next_human(),
                        "warn slow path=/data/volume-0.mdb bytes=18446744073709551615 "
                        "skew=-9223372036854775808 none=\"\" null=\"\" text=\"two words\" "
                        "pair=\"a=b\"\n");
}

/* For programs: one JSON object a line. */
static void test_json(void **state)
{
    (void)state;
    log_init(lines[1], LOG_FORMAT_JSON, LOG_LEVEL_INFO);
    LOG_ERROR("volume \"a\" failed", LOG_TEXT("path", "/data x"), LOG_U64("bytes", 7),
              LOG_I64("skew", -7));
    assert_string_equal(next_json("error"), "\"event\":\"volume \\\"a\\\" failed\","
                                            "\"path\":\"/data x\",\"bytes\":7,\"skew\":-7}\n");
}

/* An error is logged with its code and its way. */
static void test_error_field(void **state)
{
    (void)state;
    log_init(lines[1], LOG_FORMAT_HUMAN, LOG_LEVEL_INFO);
    err_t err = ERR(NO_SPACE, "write volume-0.mdb");
    LOG_ERROR("commit failed", LOG_ERR(err));
    err_free(err);
    const char *line = next_human();
    static const char start[] = "error commit failed code=no_space error=\"write volume-0.mdb (";
    assert_memory_equal(line, start, sizeof start - 1);
    assert_non_null(strstr(line, "test_error_field)\"\n"));
}

/* No value can forge a line, steer a terminal or break JSON, whatever its bytes. */
static void test_escapes(void **state)
{
    (void)state;
    static const struct {
        const char *value;
        const char *human;
        const char *json;
    } cases[] = {
        {"a\nb", "\"a\\u000ab\"", "\"a\\u000ab\""},
        {"\x1b[31m", "\"\\u001b[31m\"", "\"\\u001b[31m\""},
        {"say \"x\\\"", "\"say \\\"x\\\\\\\"\"", "\"say \\\"x\\\\\\\"\""},
        {"caf\xc3\xa9", "\"caf\xc3\xa9\"", "\"caf\xc3\xa9\""},
        {"\xf0\x9f\x94\xa5", "\"\xf0\x9f\x94\xa5\"", "\"\xf0\x9f\x94\xa5\""},
        {"\x7f", "\"\\u007f\"", "\"\\u007f\""},
        {"\xc2\x9b", "\"\\u009b\"", "\"\\u009b\""},           /* C1: starts sequences */
        {"\xe2\x80\xae", "\"\\u202e\"", "\"\\u202e\""},       /* turns the text around */
        {"\xe2\x80\xa8", "\"\\u2028\"", "\"\\u2028\""},       /* line separator */
        {"a\xff", "\"a\\xff\"", "\"a\\ufffd\""},              /* no such byte */
        {"\xc3", "\"\\xc3\"", "\"\\ufffd\""},                 /* ends too early */
        {"\xc0\xaf", "\"\\xc0\\xaf\"", "\"\\ufffd\\ufffd\""}, /* overlong */
        {"\xe0\x80\xaf", "\"\\xe0\\x80\\xaf\"", "\"\\ufffd\\ufffd\\ufffd\""},
        {"\xed\xa0\x80", "\"\\xed\\xa0\\x80\"", "\"\\ufffd\\ufffd\\ufffd\""}, /* surrogate */
        {"\xf4\x90\x80\x80", "\"\\xf4\\x90\\x80\\x80\"", "\"\\ufffd\\ufffd\\ufffd\\ufffd\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char expected[128];
        log_init(lines[1], LOG_FORMAT_HUMAN, LOG_LEVEL_INFO);
        LOG_INFO("e", LOG_TEXT("v", cases[i].value));
        (void)snprintf(expected, sizeof expected, "info e v=%s\n", cases[i].human);
        assert_string_equal(next_human(), expected);
        log_init(lines[1], LOG_FORMAT_JSON, LOG_LEVEL_INFO);
        LOG_INFO("e", LOG_TEXT("v", cases[i].value));
        (void)snprintf(expected, sizeof expected, "\"event\":\"e\",\"v\":%s}\n", cases[i].json);
        assert_string_equal(next_json("info"), expected);
    }
}

static bool ends_with(const char *line, const char *end)
{
    size_t size = strlen(line);
    return size >= strlen(end) && strcmp(line + size - strlen(end), end) == 0;
}

/* A line of any length is at most LOG_LINE_MAX bytes, ends well, and says when it was cut. */
static void test_long_lines_are_cut(void **state)
{
    (void)state;
    static const char *const units[] = {"x", "\n", "\xf0\x9f\x94\xa5"};
    for (size_t unit = 0; unit < 3; unit++) {
        char value[LOG_LINE_MAX + 64] = "";
        size_t size = 0;
        while (size + 8 < sizeof value) {
            for (const char *at = units[unit]; *at != '\0'; at++) {
                value[size++] = *at;
            }
            for (int format = LOG_FORMAT_HUMAN; format <= LOG_FORMAT_JSON; format++) {
                log_init(lines[1], (enum log_format)format, LOG_LEVEL_INFO);
                LOG_INFO("event", LOG_SPAN("value", span_of(value, size)), LOG_U64("after", 77));
                const char *line = next_line();
                bool json = format == LOG_FORMAT_JSON;
                bool cut = ends_with(line, json ? ",\"cut\":true}\n" : " cut=true\n");
                bool whole = ends_with(line, json ? ",\"after\":77}\n" : " after=77\n");
                assert_true(strlen(line) <= LOG_LINE_MAX);
                assert_true(cut != whole);
                assert_true(!json || strchr(line, '\n') == line + strlen(line) - 1);
                assert_true(whole || strlen(line) > LOG_LINE_MAX - 64);
            }
        }
    }
}

/* Below the level nothing is written nor evaluated; the level can change at any time. */
static void test_level(void **state)
{
    (void)state;
    int evaluated = 0;
    log_init(lines[1], LOG_FORMAT_HUMAN, LOG_LEVEL_WARN);
    LOG_INFO("quiet", LOG_U64("evaluated", (uint64_t)++evaluated));
    assert_string_equal(next_line(), "");
    assert_int_equal(evaluated, 0);
    LOG_WARN("loud");
    assert_string_equal(next_human(), "warn loud\n");
    log_set_level(LOG_LEVEL_DEBUG);
    assert_int_equal(log_level(), LOG_LEVEL_DEBUG);
    LOG_DEBUG("louder", LOG_U64("evaluated", (uint64_t)++evaluated));
    assert_string_equal(next_human(), "debug louder evaluated=1\n");
}

/* The names of the levels are read as they are written, and nothing else is. */
static void test_level_names(void **state)
{
    (void)state;
    enum log_level level = LOG_LEVEL_ERROR;
    for (int i = LOG_LEVEL_ERROR; i <= LOG_LEVEL_DEBUG; i++) {
        assert_true(log_parse_level(span_text(log_level_text((enum log_level)i)), &level));
        assert_int_equal(level, i);
    }
    static const char *const wrong[] = {"", "Info", "info ", "inf", "trace"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_false(log_parse_level(span_text(wrong[i]), &level));
    }
}

/* A log that cannot be written is no failure of the program, and errno stays the caller's. */
static void test_unwritable(void **state)
{
    (void)state;
    log_init(-1, LOG_FORMAT_HUMAN, LOG_LEVEL_INFO);
    errno = EDOM;
    LOG_INFO("lost");
    assert_int_equal(errno, EDOM);
}

static void keep_line(void *context, const char *text, size_t size)
{
    char *kept = context;
    assert_true(size < LOG_LINE_MAX);
    memcpy(kept, text, size);
    kept[size] = '\0';
}

/* What a thread of one broker does while another's lines go elsewhere. */
static void *log_elsewhere(void *sink)
{
    assert_null(log_bound()); /* a new thread is bound to nothing */
    log_bind(sink);
    LOG_WARN("theirs");
    log_set_level(LOG_LEVEL_DEBUG);
    return NULL;
}

/* Two brokers of one process: a thread's lines, and its changes of the level, concern its own. */
static void test_sinks_do_not_mix(void **state)
{
    (void)state;
    static char ours[LOG_LINE_MAX];
    static char theirs[LOG_LINE_MAX];
    static struct log_sink our_sink = {
        .write = keep_line, .context = ours, .name = "one", .level = LOG_LEVEL_INFO};
    static struct log_sink their_sink = {.write = keep_line,
                                         .context = theirs,
                                         .name = "the \"other\"",
                                         .format = LOG_FORMAT_JSON,
                                         .level = LOG_LEVEL_WARN};
    pthread_t thread;
    log_init(lines[1], LOG_FORMAT_HUMAN, LOG_LEVEL_ERROR);
    log_bind(&our_sink);
    assert_ptr_equal(log_bound(), &our_sink);
    LOG_INFO("ours", LOG_U64("count", 1));
    assert_int_equal(pthread_create(&thread, NULL, log_elsewhere, &their_sink), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(ends_with(ours, "info ours broker=one count=1\n"));
    assert_true(ends_with(theirs, "\"level\":\"warn\",\"event\":\"theirs\","
                                  "\"broker\":\"the \\\"other\\\"\"}\n"));
    assert_int_equal(log_level(), LOG_LEVEL_INFO);
    assert_int_equal(their_sink.level, LOG_LEVEL_DEBUG);
    log_bind(NULL);
    assert_int_equal(log_level(), LOG_LEVEL_ERROR);
    LOG_ERROR("process");
    assert_string_equal(next_human(), "error process\n");
}

int main(void)
{
#define CASE(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(test_human),       CASE(test_json),       CASE(test_error_field),
        CASE(test_escapes),     CASE(test_level),      CASE(test_long_lines_are_cut),
        CASE(test_level_names), CASE(test_unwritable), CASE(test_sinks_do_not_mix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
