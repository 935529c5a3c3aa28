/* Error values that know their birthplace (STYLE 5).
 *
 * An err_t is NULL (success) or an error holding a code from err.def, a message, the file and line
 * where it was made, and the functions it has left since. Errors are made with ERR() where the
 * world fails, handed upward untouched with TRY(), and reported once at a boundary, which then
 * frees them with err_free(). When memory runs out the error itself is a static one, so making one
 * never fails. */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include <stddef.h>
#include <stdint.h>

enum err_code {
#define ERROR(name, number, status, retryable, text) ERR_##name = number,
#include "broker/base/err.def"
};

typedef struct err *err_t;

#define MUST_CHECK __attribute__((warn_unused_result))

/* Makes an error: ERR(IO, "open %s: %s", path, strerror(errno)). */
#define ERR(name, ...) err_make(ERR_##name, __FILE__, __LINE__, __func__, __VA_ARGS__)

/* Hands an error upward, adding this function to its trace. */
#define TRY(expression)                                                                            \
    do {                                                                                           \
        err_t try_err_ = (expression);                                                             \
        if (try_err_ != NULL) {                                                                    \
            return err_passed(try_err_, __func__);                                                 \
        }                                                                                          \
    } while (0)

/* The same for functions that must release something first: sets err and jumps to out. */
#define TRY_OUT(expression)                                                                        \
    do {                                                                                           \
        err = (expression);                                                                        \
        if (err != NULL) {                                                                         \
            err = err_passed(err, __func__);                                                       \
            goto out;                                                                              \
        }                                                                                          \
    } while (0)

err_t err_make(enum err_code code, const char *file, int line, const char *function,
               const char *format, ...)
    __attribute__((format(printf, 5, 6), returns_nonnull)) MUST_CHECK;
err_t err_passed(err_t err, const char *function) __attribute__((returns_nonnull)) MUST_CHECK;

/* Frees it; err_free(NULL) does nothing. */
void err_free(err_t err);

/* The code; ERR_NONE for NULL. */
enum err_code err_code(err_t err);

/* Message without place, valid as long as err. */
const char *err_message(err_t err);

/* "message (file:line, a <- b <- c)"; valid as long as err. */
const char *err_describe(err_t err);

/* Rows of err.def. `slug` is the stable code of the APIs: "lease_lost". */
const char *err_slug(enum err_code code);
int err_status(enum err_code code);    /* HTTP status */
int err_retryable(enum err_code code); /* 1 when the same request may succeed later */
const char *err_title(enum err_code code);

#endif
