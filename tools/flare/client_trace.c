/* --trace over HTTP: the head of each message line by line, the size and beginning of its body. */
#include <stdio.h>
#include <string.h>

#include "tools/flare/client.h"
#include "tools/flare/trace.h"

static void trace_head(char direction, struct span head)
{
    while (head.size > 0) {
        const uint8_t *end = memchr(head.data, '\n', head.size);
        size_t size = end == NULL ? head.size : (size_t)(end - head.data);
        size_t visible = size > 0 && head.data[size - 1] == '\r' ? size - 1 : size;
        if (visible > 0) {
            trace_line(direction, span_of(head.data, visible));
        }
        size += end != NULL;
        head = span_of(head.data + size, head.size - size);
    }
}

static int client_on_trace(CURL *easy, curl_infotype kind, char *data, size_t size, void *user)
{
    struct span bytes = span_of(data, size);
    (void)easy;
    (void)user;
    switch (kind) {
    case CURLINFO_HEADER_OUT:
        trace_head(TRACE_SENT, bytes);
        break;
    case CURLINFO_HEADER_IN:
        trace_head(TRACE_RECEIVED, bytes);
        break;
    case CURLINFO_DATA_OUT:
        trace_line(TRACE_SENT, bytes);
        break;
    case CURLINFO_DATA_IN:
        trace_line(TRACE_RECEIVED, bytes);
        break;
    case CURLINFO_TEXT: /* how libcurl feels about its connection */
    case CURLINFO_SSL_DATA_IN:
    case CURLINFO_SSL_DATA_OUT:
    case CURLINFO_END:
        break;
    }
    return 0;
}

void client_trace(CURL *easy)
{
    (void)curl_easy_setopt(easy, CURLOPT_DEBUGFUNCTION, client_on_trace);
    (void)curl_easy_setopt(easy, CURLOPT_VERBOSE, 1L);
}
