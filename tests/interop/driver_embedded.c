/* The broker in the driver's own process. */
#include <flare/broker.h>

#include "tests/interop/driver.h"

json_t *embedded_open(const json_t *command, struct flare_broker **broker)
{
    struct flare_error error = {.code = FLARE_OK};
    const struct flare_broker_options options = {.data = field_text(command, "data", NULL),
                                                 .http = "127.0.0.1:0",
                                                 .wire = "127.0.0.1:0",
                                                 .settings = field_text(command, "settings", "")};
    enum flare_code code = flare_broker_open(&options, broker, &error);
    if (code != FLARE_OK) {
        return result_make(code, &error);
    }
    return json_pack("{s:s, s:s, s:s}", "code", "ok", "http", flare_broker_http_address(*broker),
                     "wire", flare_broker_wire_address(*broker));
}

void embedded_shut(struct flare_broker *broker)
{
    flare_broker_close(broker);
}
