/* The configuration file: whatever its bytes, parsing ends with values within their bounds or an
 * error, and an accepted file, printed, reads back to the same values. */
#include <string.h>

#include "broker/config/config.h"
#include "tests/fuzz/fuzz.h"

static void print(struct buf *out, const struct config *config)
{
    buf_init(out, CONFIG_OUTPUT_MAX);
    config_print(out, config);
    FUZZ_REQUIRE(!out->failed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config config;
    config_init(&config);
    err_t err = config_parse(&config, span_of(data, size), "input");
    if (err != NULL) {
        FUZZ_REQUIRE(err_code(err) == ERR_INVALID);
        FUZZ_REQUIRE(strncmp(err_message(err), "input:", 6) == 0);
        err_free(err);
        return 0;
    }
    struct buf first;
    print(&first, &config);
    struct config again;
    config_init(&again);
    err = config_parse(&again, buf_span(&first), "printed");
    FUZZ_REQUIRE(err == NULL);
    struct buf second;
    print(&second, &again);
    FUZZ_REQUIRE(span_equal(buf_span(&first), buf_span(&second)));
    buf_deinit(&first);
    buf_deinit(&second);
    return 0;
}
