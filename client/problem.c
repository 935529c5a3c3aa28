#include "client/problem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum flare_code problem_set(struct flare_error *out, enum flare_code code, const char *format, ...)
{
    va_list arguments;
    if (out != NULL) {
        out->code = code;
        va_start(arguments, format);
        (void)vsnprintf(out->message, sizeof out->message, format, arguments);
        va_end(arguments);
    }
    return code;
}

enum flare_code problem_of_err(struct flare_error *out, err_t err)
{
    if (err == NULL) {
        return FLARE_OK;
    }
    enum flare_code code = (enum flare_code)err_code(err);
    (void)problem_set(out, code, "%s", err_message(err));
    err_free(err);
    return code;
}

enum flare_code problem_of_code(struct flare_error *out, uint32_t code)
{
    enum flare_code known = (enum flare_code)code;
    if (code != FLARE_ERR_UNKNOWN && strcmp(flare_code_name(known), "unknown") == 0) {
        return problem_set(out, known, "the broker refused with code %u", code);
    }
    return problem_set(out, known, "%s", err_title((enum err_code)code));
}

enum flare_code problem_copy(struct flare_error *out, const struct flare_error *from)
{
    if (out != NULL) {
        *out = *from;
    }
    return from->code;
}
