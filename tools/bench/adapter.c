#include "tools/bench/adapter.h"

#include <stdio.h>
#include <string.h>

enum { NAMES_SIZE = 128 };

static const struct adapter *const adapters[] = {
    &adapter_flare,      &adapter_libflare,
#ifdef PEERS_REDIS
    &adapter_redis,
#endif
#ifdef PEERS_NATS
    &adapter_nats,
#endif
#ifdef PEERS_RABBITMQ
    &adapter_rabbitmq,
#endif
    &adapter_beanstalkd,
};

const struct adapter *adapter_find(const char *name)
{
    for (size_t i = 0; i < sizeof adapters / sizeof adapters[0]; i++) {
        if (strcmp(adapters[i]->name, name) == 0) {
            return adapters[i];
        }
    }
    return NULL;
}

const char *adapter_names(void)
{
    static char names[NAMES_SIZE];
    names[0] = '\0';
    for (size_t i = 0; i < sizeof adapters / sizeof adapters[0]; i++) {
        size_t size = strlen(names);
        (void)snprintf(names + size, sizeof names - size, "%s%s", i == 0 ? "" : " ",
                       adapters[i]->name);
    }
    return names;
}
