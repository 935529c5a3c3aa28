#include "tools/flare/deliveries.h"

#include <stdio.h>

enum { BODY_MAX = 64 * 1024 * 1024 };

const struct field deliveries_fields[] = {
    {"ID", "id", FIELD_TEXT},
    {"SHARD", "shard", FIELD_NUMBER},
    {"ATTEMPT", "attempt", FIELD_NUMBER},
    {"KEY", "key", FIELD_TEXT},
    {"BODY", "", FIELD_BODY},
    {.title = NULL},
};

void deliveries_print_body(struct span body)
{
    (void)fwrite(body.data, 1, body.size, stdout);
    (void)putchar('\n');
}

err_t deliveries_print_document(const json_t *message)
{
    struct buf body;
    buf_init(&body, BODY_MAX);
    err_t err = output_body(message, &body);
    if (err == NULL) {
        deliveries_print_body(buf_span(&body));
    }
    buf_deinit(&body);
    return err;
}

static void set_number(json_t *document, const char *name, uint64_t number)
{
    if (number > 0) {
        (void)json_object_set_new(document, name, json_integer((json_int_t)number));
    }
}

err_t deliveries_pull(struct client *client, const struct flare_source *source,
                      const struct flare_pull *pull, json_t **out)
{
    struct request request;
    json_t *document = json_object();
    set_number(document, "max", pull->max);
    set_number(document, "wait", pull->wait_ms);
    set_number(document, "lease", pull->lease_ms);
    set_number(document, "max_bytes", pull->max_bytes);
    if (pull->consumer != NULL) {
        (void)json_object_set_new(document, "consumer", json_string(pull->consumer));
    }
    request_init(&request, "POST", CLIENT_SUB_PATH "/pull", source->topic, source->subscription);
    request_json(&request, document);
    request.wait_ms = pull->wait_ms;
    return client_call(client, &request, out);
}

err_t deliveries_settle(struct client *client, const struct flare_source *source, const char *verb,
                        json_t *document, json_t **out)
{
    struct request request;
    request_init(&request, "POST", CLIENT_SUB_PATH "/{}", source->topic, source->subscription,
                 verb);
    request_json(&request, document);
    return client_call(client, &request, out);
}
