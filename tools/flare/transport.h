/* Which way a command goes to the broker: the wire protocol, or HTTP. */
#ifndef FLARE_TRANSPORT_H
#define FLARE_TRANSPORT_H

#include "tools/flare/cli.h"

enum { TRANSPORT_ADDRESS_SIZE = 320 };

/* HOST:PORT of the wire protocol in `out`; empty when HTTP is to be used: it was chosen, --curl
 * prints it, or the broker at the URL does not speak the other. Asks that broker when nothing else
 * says where, but not at an https URL: the wire protocol has no encryption, so only an address that
 * is given is used beside it. */
err_t transport_find(struct cli *cli, char out[TRANSPORT_ADDRESS_SIZE]) MUST_CHECK;

/* Host and port of a URL; the port's default is the scheme's. ERR_INVALID. */
err_t transport_split_url(const char *url, char *host, size_t host_size, char *port,
                          size_t port_size) MUST_CHECK;
/* The same of HOST:PORT; brackets around an address with colons are taken off. */
err_t transport_split_address(const char *address, char *host, size_t host_size, char *port,
                              size_t port_size) MUST_CHECK;

/* The address of a port on the host of a URL, with brackets where they are needed. */
err_t transport_join(const char *url, const char *address,
                     char out[TRANSPORT_ADDRESS_SIZE]) MUST_CHECK;

#endif
