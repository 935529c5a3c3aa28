/* The address of a broker as text: "flare://HOST:PORT" or "HOST:PORT", with a name, an IPv4 address
 * or an IPv6 address in brackets, and nothing else. Whether the host exists is not asked here. */
#ifndef CLIENT_ADDRESS_H
#define CLIENT_ADDRESS_H

#include "broker/base/err.h"

enum { ADDRESS_HOST_MAX = 253 };

struct address {
    char host[ADDRESS_HOST_MAX + 1]; /* without brackets */
    char port[6];
};

/* ERR_INVALID says what is wrong with it. */
err_t address_parse(const char *text, struct address *out) MUST_CHECK;

#endif
