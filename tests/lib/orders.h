/* Brokers in this process with a topic "orders" of one shard and a subscription "mail" to it. What
 * fails ends the test. */
#ifndef LIB_ORDERS_H
#define LIB_ORDERS_H

#include <flare/broker.h>

#include "tests/lib/http_client.h"

enum {
    ORDERS_START_MS = 1000000,
    ORDERS_LEASE_MS = 30000,
    ORDERS_RETRY_MS = 5000,
    ORDERS_PULLS_MAX_MS = 30000 /* for pulls to wait, which takes no time */
};
#define ORDERS_SUB "/v1/topics/orders/subscriptions/mail"

extern const struct flare_source orders_source;
/* For what may fail, and what orders_must prints. */
extern struct flare_error orders_error;

void orders_must(enum flare_code code);

struct flare_broker *orders_open_broker(const struct flare_broker_options *options);
/* Makes topic and subscription. */
void orders_put(struct flare_broker *broker);
/* Both, in memory, on a simulated clock that begins at ORDERS_START_MS, with HTTP. */
struct flare_broker *orders_open(void);

/* The connection is closed after its broker, or nothing is opened between the two: TSan does not
 * see libuv close files, and takes a new one of the same number for the old. */
void orders_connect(const struct flare_broker *broker, struct http_client *client);
void orders_publish(struct http_client *client, const char *body);
/* Up to ten messages; how many have come. */
size_t orders_pull(struct http_client *client);

void orders_check_depths(struct flare_broker *broker, struct flare_depths expected);

#endif
