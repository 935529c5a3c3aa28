/* Errors of the public libraries (libflare, libflare-broker) as values. Self-contained C11 and
 * C++17.
 *
 * A function that can fail returns an enum flare_code. When it is not FLARE_OK and the caller gave
 * it a struct flare_error, that holds the code once more and a message for people; on FLARE_OK it
 * is left alone. The struct is the caller's, holds no pointer, and may be copied, kept and dropped
 * without more ado. Everything here may be called from any thread. */
#ifndef FLARE_ERROR_H
#define FLARE_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define FLARE_API __attribute__((visibility("default")))
#else
#define FLARE_API
#endif

/* What went wrong. The numbers are those of the wire protocol and never change their meaning; a
 * newer broker may answer with one that is not listed here. The titles are those of the HTTP API's
 * problem documents. */
enum flare_code {
    FLARE_OK = 0,
    FLARE_ERR_INVALID = 1,            /* The request is not valid. */
    FLARE_ERR_NOT_FOUND = 2,          /* There is no such thing. */
    FLARE_ERR_EXISTS = 3,             /* It exists already with other settings. */
    FLARE_ERR_CONFLICT = 4,           /* The request conflicts with the present state. */
    FLARE_ERR_LEASE_LOST = 5,         /* The receipt no longer holds a lease. */
    FLARE_ERR_PRECONDITION = 6,       /* The precondition does not hold. */
    FLARE_ERR_TOO_LARGE = 7,          /* The body is larger than the limit. */
    FLARE_ERR_UNSUPPORTED_TYPE = 8,   /* The content type is not supported. */
    FLARE_ERR_IDEMPOTENCY_REUSED = 9, /* The idempotency key was used with another body. */
    FLARE_ERR_NOT_ATOMIC = 10,        /* The batch spans volumes and cannot be atomic. */
    FLARE_ERR_BUSY = 11,              /* The broker is busy. */
    FLARE_ERR_HEADERS_TOO_LARGE = 12, /* The request headers are larger than the limit. */
    FLARE_ERR_INTERNAL = 13,          /* The broker failed. */
    FLARE_ERR_UNAVAILABLE = 14,       /* The broker cannot serve this now. */
    FLARE_ERR_NO_SPACE = 15,          /* The storage is full. */
    FLARE_ERR_METHOD = 16,            /* The method is not allowed here. */
    FLARE_ERR_TIMEOUT = 17,           /* The request took too long to arrive. */
    FLARE_ERR_NOT_ACCEPTABLE = 18,    /* No representation fits the Accept header. */
    FLARE_ERR_QUOTA = 19,             /* The topic is over its quota. */
    FLARE_ERR_IO = 20,                /* Reading or writing storage failed. */
    FLARE_ERR_CORRUPT = 21,           /* Stored bytes fail their check. */
    FLARE_ERR_FORMAT = 22,            /* The data was written by another format version. */
    FLARE_ERR_LOCKED = 23,            /* Another process holds the data directory. */
    FLARE_ERR_MEMORY = 24,            /* Out of memory. */
    FLARE_ERR_MAP_FULL = 25,          /* The storage map is full. */
    FLARE_ERR_ABORTED = 26,           /* The batch was refused because another message of it was. */
    FLARE_ERR_MOVED = 27,             /* Another node owns this shard. */
    FLARE_ERR_UNKNOWN = 28,           /* The outcome is not known. */
    FLARE_ERR_FENCED = 29,            /* A newer owner holds this shard. */
    FLARE_ERR_NOT_IMPLEMENTED = 30,   /* This is not offered by this version. */
};

enum { FLARE_ERROR_MESSAGE_SIZE = 256 };

struct flare_error {
    enum flare_code code;
    char message[FLARE_ERROR_MESSAGE_SIZE]; /* terminated, cut to fit, for people */
};

/* The stable name of a code, as the HTTP API spells it: "lease_lost"; "none" for FLARE_OK,
 * "unknown" for one that is not listed. Never NULL, valid for ever. */
FLARE_API const char *flare_code_name(enum flare_code code);

/* 1 when the same request may succeed later without anybody changing anything; else 0. */
FLARE_API int flare_code_retryable(enum flare_code code);

#ifdef __cplusplus
}
#endif

#endif
