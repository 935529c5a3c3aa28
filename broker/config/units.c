#include "broker/config/units.h"

#include <inttypes.h>
#include <stdio.h>
#include <strings.h>

const struct unit units_none[] = {{.suffix = NULL}};

const struct unit units_size[] = {
    {"t", TIB, false},  {"g", GIB, false},  {"m", MIB, false},  {"k", KIB, false},
    {"tib", TIB, true}, {"gib", GIB, true}, {"mib", MIB, true}, {"kib", KIB, true},
    {"b", 1, true},     {.suffix = NULL},
};

const struct unit units_duration[] = {
    {"d", DAY, false}, {"h", HOUR, false}, {"m", MINUTE, false}, {"s", SECOND, false},
    {"ms", 1, false},  {"w", WEEK, true},  {.suffix = NULL},
};

static bool find_factor(const struct unit *units, struct span suffix, uint64_t *out)
{
    if (suffix.size == 0) {
        *out = 1;
        return true;
    }
    for (; units->suffix != NULL; units++) {
        if (strlen(units->suffix) == suffix.size &&
            strncasecmp(units->suffix, (const char *)suffix.data, suffix.size) == 0) {
            *out = units->factor;
            return true;
        }
    }
    return false;
}

bool units_parse(const struct unit *units, struct span text, uint64_t *out)
{
    uint64_t value = 0;
    size_t size = 0;
    for (; size < text.size && text.data[size] >= '0' && text.data[size] <= '9'; size++) {
        uint64_t digit = (uint64_t)(text.data[size] - '0');
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, digit, &value)) {
            return false;
        }
    }
    uint64_t factor = 0;
    if (size == 0 || !find_factor(units, span_of(text.data + size, text.size - size), &factor)) {
        return false;
    }
    return !__builtin_mul_overflow(value, factor, out);
}

void units_print(const struct unit *units, uint64_t value, char out[UNITS_TEXT_SIZE])
{
    while (units->suffix != NULL &&
           (value == 0 || value % units->factor != 0 || units->is_read_only)) {
        units++;
    }
    bool has_unit = units->suffix != NULL;
    (void)snprintf(out, UNITS_TEXT_SIZE, "%" PRIu64 "%s", has_unit ? value / units->factor : value,
                   has_unit ? units->suffix : "");
}
