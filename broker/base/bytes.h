/* Fixed-width integers in memory: big-endian for keys (key order is queue order), little-endian for
 * values. */
#ifndef BASE_BYTES_H
#define BASE_BYTES_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

#define BYTES_PAIR(bits)                                                                           \
    static inline void bytes_put_be##bits(uint8_t *to, uint##bits##_t value)                       \
    {                                                                                              \
        value = htobe##bits(value);                                                                \
        memcpy(to, &value, sizeof value);                                                          \
    }                                                                                              \
    static inline uint##bits##_t bytes_get_be##bits(const uint8_t *from)                           \
    {                                                                                              \
        uint##bits##_t value;                                                                      \
        memcpy(&value, from, sizeof value);                                                        \
        return be##bits##toh(value);                                                               \
    }                                                                                              \
    static inline void bytes_put_le##bits(uint8_t *to, uint##bits##_t value)                       \
    {                                                                                              \
        value = htole##bits(value);                                                                \
        memcpy(to, &value, sizeof value);                                                          \
    }                                                                                              \
    static inline uint##bits##_t bytes_get_le##bits(const uint8_t *from)                           \
    {                                                                                              \
        uint##bits##_t value;                                                                      \
        memcpy(&value, from, sizeof value);                                                        \
        return le##bits##toh(value);                                                               \
    }
BYTES_PAIR(16)
BYTES_PAIR(32)
BYTES_PAIR(64)
#undef BYTES_PAIR

#endif
