#include "broker/base/list.h"

enum { RUNS_MAX = 48 }; /* run n holds 2^n elements: more than memory has */

typedef bool (*link_before)(const struct list_link *a, const struct list_link *b);

/* Merges two chains (linked by next, ended by NULL); `a` goes first on a tie. */
static struct list_link *merge(struct list_link *a, struct list_link *b, link_before before)
{
    struct list_link *first = NULL;
    struct list_link **end = &first;
    while (a != NULL && b != NULL) {
        struct list_link **taken = before(b, a) ? &b : &a;
        *end = *taken;
        end = &(*end)->next;
        *taken = (*taken)->next;
    }
    *end = a != NULL ? a : b;
    return first;
}

void list_sort(struct list *list, link_before before)
{
    if (list->head.next == list->head.prev) {
        return; /* none or one, as it is most often */
    }
    struct list_link *runs[RUNS_MAX] = {NULL};
    struct list_link *link;
    while ((link = list_pop(list)) != NULL) {
        size_t run = 0;
        for (; runs[run] != NULL; run++) {
            link = merge(runs[run], link, before);
            runs[run] = NULL;
        }
        runs[run] = link;
    }
    struct list_link *sorted = NULL;
    for (size_t run = 0; run < RUNS_MAX; run++) {
        sorted = merge(runs[run], sorted, before);
    }
    while (sorted != NULL) {
        struct list_link *next = sorted->next;
        list_append(list, sorted);
        sorted = next;
    }
}
