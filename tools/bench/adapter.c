#include "tools/bench/adapter.h"

#include <string.h>

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
    return "flare libflare beanstalkd"
#ifdef PEERS_NATS
           " nats"
#endif
#ifdef PEERS_RABBITMQ
           " rabbitmq"
#endif
#ifdef PEERS_REDIS
           " redis"
#endif
        ;
}
