/* A result that one thread waits for and another gives. */
#include <assert.h>
#include <stdlib.h>

#include "tests/interop/driver.h"

struct reply *reply_create(void)
{
    struct reply *reply = calloc(1, sizeof *reply);
    assert(reply != NULL);
    pthread_mutex_init(&reply->lock, NULL);
    pthread_cond_init(&reply->changed, NULL);
    return reply;
}

void reply_complete(struct reply *reply, json_t *result)
{
    pthread_mutex_lock(&reply->lock);
    assert(reply->result == NULL);
    reply->result = result;
    pthread_cond_signal(&reply->changed);
    pthread_mutex_unlock(&reply->lock);
}

json_t *reply_wait(struct reply *reply)
{
    pthread_mutex_lock(&reply->lock);
    while (reply->result == NULL) {
        pthread_cond_wait(&reply->changed, &reply->lock);
    }
    json_t *result = reply->result;
    pthread_mutex_unlock(&reply->lock);
    pthread_cond_destroy(&reply->changed);
    pthread_mutex_destroy(&reply->lock);
    free(reply);
    return result;
}
