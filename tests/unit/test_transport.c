/* Addresses of the two ways to a broker, taken apart and put together. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above */
#include <cmocka.h>
#include <string.h>

#include "tools/flare/transport.h"

enum { HOST_SIZE = 32, PORT_SIZE = 8 };

struct split_case {
    const char *text;
    const char *host; /* NULL: it is refused */
    const char *port;
};

static void expect_split(err_t (*split)(const char *text, char *host, size_t host_size, char *port,
                                        size_t port_size),
                         const struct split_case *row)
{
    char host[HOST_SIZE] = "";
    char port[PORT_SIZE] = "";
    err_t err = split(row->text, host, sizeof host, port, sizeof port);
    if (row->host == NULL) {
        assert_int_equal(err_code(err), ERR_INVALID);
        assert_non_null(strstr(err_message(err), row->text));
    } else {
        assert_null(err);
        assert_string_equal(host, row->host);
        assert_string_equal(port, row->port);
    }
    err_free(err);
}

/* A URL has the port of its scheme unless it says another; brackets are no part of a host. */
static void test_urls_are_split(void **state)
{
    static const struct split_case rows[] = {
        {"http://h:8080", "h", "8080"},
        {"http://h", "h", "80"},
        {"https://h/prefix/", "h", "443"},
        {"http://[::1]:9", "::1", "9"},
        {"http://127.0.0.1:65535/", "127.0.0.1", "65535"},
        {"http://:80", NULL, NULL},
        {"http://", NULL, NULL},
        {"http://h:x", NULL, NULL},
        {"http://a-name-that-is-longer-than-there-is-room.example", NULL, NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        expect_split(transport_split_url, &rows[i]);
    }
}

static void test_addresses_are_split(void **state)
{
    static const struct split_case rows[] = {
        {"127.0.0.1:8089", "127.0.0.1", "8089"},
        {"[::]:8089", "::", "8089"},
        {"name:1", "name", "1"},
        {"name", NULL, NULL},
        {"a-name-that-is-longer-than-there-is-room:1", NULL, NULL},
        {"h:123456789", NULL, NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        expect_split(transport_split_address, &rows[i]);
    }
}

/* A broker may listen on every address of its machine: the host is that of the URL by which it was
 * asked. */
static void test_a_broker_is_reached_where_it_was_asked(void **state)
{
    static const char *const rows[][3] = {
        {"http://h:8080", "0.0.0.0:8089", "h:8089"},
        {"http://h:8080", "127.0.0.1:1", "h:1"},
        {"https://h/flare", "[::]:8089", "h:8089"},
        {"http://[::1]:8080", "0.0.0.0:8089", "[::1]:8089"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char address[TRANSPORT_ADDRESS_SIZE];
        assert_null(transport_join(rows[i][0], rows[i][1], address));
        assert_string_equal(address, rows[i][2]);
    }
    char address[TRANSPORT_ADDRESS_SIZE];
    err_t err = transport_join("http://h", "nothing", address);
    assert_int_equal(err_code(err), ERR_INVALID);
    err_free(err);
}

/* Whoever asks for encryption gets it: an https URL is not left for a protocol that has none,
 * unless its address is given. */
static void test_an_https_url_is_not_left_for_plain_text(void **state)
{
    static const struct {
        const char *url;
        const char *wire; /* NULL: none is given */
        const char *address;
    } rows[] = {
        {"https://h", NULL, ""},           {"HTTPS://h:8080/flare", NULL, ""},
        {"https://h", "h:8089", "h:8089"}, {"http://h", "h:8089", "h:8089"},
        {"http://h", "off", ""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char address[TRANSPORT_ADDRESS_SIZE];
        struct cli cli = {.url = rows[i].url}; /* without a client: nobody can be asked */
        cli.settings.values[SETTING_WIRE].text = rows[i].wire;
        cli.settings.values[SETTING_TRANSPORT].text = "wire";
        assert_null(transport_find(&cli, address));
        assert_string_equal(address, rows[i].address);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_urls_are_split),
        cmocka_unit_test(test_addresses_are_split),
        cmocka_unit_test(test_a_broker_is_reached_where_it_was_asked),
        cmocka_unit_test(test_an_https_url_is_not_left_for_plain_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
