#include "client/address.h"

#include <stdbool.h>
#include <string.h>

#define SCHEME "flare://"

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_hex(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static bool is_name(const char *text, size_t size)
{
    for (size_t at = 0; at < size; at++) {
        char c = text[at];
        bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!is_letter && !is_digit(c) && c != '-' && c != '.' && c != '_') {
            return false;
        }
    }
    return size > 0;
}

/* An IPv6 address, with or without a zone: "fe80::1%eth0". Only its characters are looked at, since
 * whoever resolves it knows better. */
static bool is_ipv6(const char *text, size_t size)
{
    const char *zone = memchr(text, '%', size);
    size_t end = zone == NULL ? size : (size_t)(zone - text);
    for (size_t at = 0; at < end; at++) {
        if (!is_hex(text[at]) && text[at] != ':' && text[at] != '.') {
            return false;
        }
    }
    bool has_colon = memchr(text, ':', end) != NULL;
    return has_colon && (zone == NULL || is_name(zone + 1, size - end - 1));
}

static err_t parse_port(const char *text, struct address *out)
{
    size_t size = strlen(text);
    uint32_t value = 0;
    if (size == 0 || size > 5) {
        return ERR(INVALID, "url: the port is a number between 1 and 65535");
    }
    for (size_t at = 0; at < size; at++) {
        if (!is_digit(text[at])) {
            return ERR(INVALID, "url: the port is a number between 1 and 65535");
        }
        value = value * 10 + (uint32_t)(text[at] - '0');
    }
    if (value == 0 || value > UINT16_MAX) {
        return ERR(INVALID, "url: the port is a number between 1 and 65535");
    }
    memcpy(out->port, text, size + 1);
    return NULL;
}

err_t address_parse(const char *text, struct address *out)
{
    struct address address = {0};
    const char *host = text;
    if (strncmp(text, SCHEME, sizeof SCHEME - 1) == 0) {
        host = text + sizeof SCHEME - 1;
    } else if (strstr(text, "://") != NULL) {
        return ERR(INVALID, "url: must begin with flare:// or be HOST:PORT");
    }
    const char *colon = strrchr(host, ':');
    if (colon == NULL) {
        return ERR(INVALID, "url: must have a port, as in 127.0.0.1:8089");
    }
    size_t size = (size_t)(colon - host);
    bool is_bracketed = size >= 2 && host[0] == '[' && host[size - 1] == ']';
    if (is_bracketed) {
        host++;
        size -= 2;
    }
    if (is_bracketed ? !is_ipv6(host, size) : !is_name(host, size)) {
        return ERR(INVALID,
                   "url: the host is a name, an IPv4 address or an IPv6 address in brackets");
    }
    if (size > ADDRESS_HOST_MAX) {
        return ERR(INVALID, "url: the host has more than %d characters", ADDRESS_HOST_MAX);
    }
    TRY(parse_port(colon + 1, &address));
    memcpy(address.host, host, size);
    *out = address;
    return NULL;
}
