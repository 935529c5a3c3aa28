#include "tools/flare/transport.h"

#include <curl/curl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* Copies without the brackets of an IPv6 address; false when it does not fit. */
static bool copy_host(const char *host, size_t length, char *out, size_t size)
{
    bool bracketed = length >= 2 && host[0] == '[' && host[length - 1] == ']';
    length -= bracketed ? 2 : 0;
    return (size_t)snprintf(out, size, "%.*s", (int)length, host + bracketed) < size;
}

err_t transport_split_url(const char *url, char *host, size_t host_size, char *port,
                          size_t port_size)
{
    CURLU *parsed = curl_url();
    char *name = NULL;
    char *number = NULL;
    bool good = parsed != NULL && curl_url_set(parsed, CURLUPART_URL, url, 0) == CURLUE_OK &&
                curl_url_get(parsed, CURLUPART_HOST, &name, 0) == CURLUE_OK &&
                curl_url_get(parsed, CURLUPART_PORT, &number, CURLU_DEFAULT_PORT) == CURLUE_OK &&
                copy_host(name, strlen(name), host, host_size) &&
                (size_t)snprintf(port, port_size, "%s", number) < port_size;
    curl_free(name);
    curl_free(number);
    curl_url_cleanup(parsed);
    return good ? NULL : ERR(INVALID, "'%s' is not a URL with a host", url);
}

err_t transport_split_address(const char *address, char *host, size_t host_size, char *port,
                              size_t port_size)
{
    const char *colon = strrchr(address, ':');
    bool good = colon != NULL && copy_host(address, (size_t)(colon - address), host, host_size) &&
                (size_t)snprintf(port, port_size, "%s", colon + 1) < port_size;
    return good ? NULL : ERR(INVALID, "'%s' is not an address such as 127.0.0.1:8089", address);
}

err_t transport_join(const char *url, const char *address, char out[TRANSPORT_ADDRESS_SIZE])
{
    char host[256];
    char port[8];
    char listening[256];
    TRY(transport_split_address(address, listening, sizeof listening, port, sizeof port));
    char of_url[8];
    TRY(transport_split_url(url, host, sizeof host, of_url, sizeof of_url));
    const char *format = strchr(host, ':') != NULL ? "[%s]:%s" : "%s:%s";
    (void)snprintf(out, TRANSPORT_ADDRESS_SIZE, format, host, port);
    return NULL;
}

/* The broker says where it listens, which may be any address of its machine: only the port counts.
 */
static err_t ask_broker(struct cli *cli, char out[TRANSPORT_ADDRESS_SIZE])
{
    struct request request;
    json_t *status = NULL;
    request_init(&request, "GET", "/v1/status");
    TRY(client_call(cli->client, &request, &status));
    const char *address = json_string_value(json_object_get(status, "wire"));
    out[0] = '\0';
    err_t err =
        address == NULL || address[0] == '\0' ? NULL : transport_join(cli->url, address, out);
    json_decref(status);
    return err;
}

/* The scheme is in lower or upper case. */
static bool is_secure(const char *url)
{
    return strncasecmp(url, "https://", 8) == 0;
}

err_t transport_find(struct cli *cli, char out[TRANSPORT_ADDRESS_SIZE])
{
    const struct setting_value *values = cli->settings.values;
    const char *wire = values[SETTING_WIRE].text;
    out[0] = '\0';
    bool is_off = wire != NULL && strcmp(wire, SETTINGS_WIRE_OFF) == 0;
    if (cli->print || is_off || strcmp(values[SETTING_TRANSPORT].text, "http") == 0) {
        return NULL;
    }
    if (wire == NULL) {
        return is_secure(cli->url) ? NULL : ask_broker(cli, out);
    }
    (void)snprintf(out, TRANSPORT_ADDRESS_SIZE, "%s", wire);
    return NULL;
}
