/* --curl: the request as a command that can be pasted into a shell. */
#include "tools/flare/client.h"

#include <stdio.h>
#include <string.h>

/* In single quotes, where the only character with a meaning is the quote itself. */
static void print_quoted(struct span text)
{
    (void)putchar('\'');
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] == '\'') {
            (void)fputs("'\\''", stdout);
        } else {
            (void)putchar(text.data[i]);
        }
    }
    (void)putchar('\'');
}

/* What a shell or a terminal cannot take as it is goes through printf(1) into curl's standard
 * input. */
static bool printable(struct span text)
{
    for (size_t i = 0; i < text.size; i++) {
        if ((text.data[i] < 0x20 && text.data[i] != '\n' && text.data[i] != '\t') ||
            text.data[i] == 0x7f) {
            return false;
        }
    }
    return true;
}

static void print_printf(struct span text)
{
    (void)fputs("printf '", stdout);
    for (size_t i = 0; i < text.size; i++) {
        (void)printf("\\%03o", (unsigned)text.data[i]);
    }
    (void)fputs("' | ", stdout);
}

void client_print_curl(const char *url, const struct request *request)
{
    bool piped = request->body.size > 0 && !printable(request->body);
    if (piped) {
        print_printf(request->body);
    }
    (void)fputs("curl -sS", stdout);
    if (strcmp(request->method, "GET") != 0) {
        (void)printf(" -X %s", request->method);
    }
    (void)putchar(' ');
    print_quoted(span_text(url));
    for (const struct curl_slist *header = request->headers; header != NULL;
         header = header->next) {
        (void)fputs(" -H ", stdout);
        print_quoted(span_text(header->data));
    }
    if (request->content_type != NULL) {
        (void)fputs(" -H ", stdout);
        (void)printf("'Content-Type: %s'", request->content_type);
        (void)fputs(" --data-binary ", stdout);
        print_quoted(piped ? span_text("@-") : request->body);
    }
    (void)putchar('\n');
}
