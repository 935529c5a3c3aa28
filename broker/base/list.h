/* Intrusive doubly linked list: the link is in the element, queueing allocates nothing. An unlinked
 * link is all zero, so zeroed memory is valid and `list_linked` tells. */
#ifndef BASE_LIST_H
#define BASE_LIST_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define container_of(pointer, type, member) ((type *)((uintptr_t)(pointer)-offsetof(type, member)))

struct list_link {
    struct list_link *next;
    struct list_link *prev;
};

struct list {
    struct list_link head;
};

static inline void list_init(struct list *list)
{
    list->head.next = list->head.prev = &list->head;
}

static inline bool list_empty(const struct list *list)
{
    return list->head.next == &list->head;
}

static inline bool list_linked(const struct list_link *link)
{
    return link->next != NULL;
}

static inline struct list_link *list_first(const struct list *list)
{
    return list_empty(list) ? NULL : list->head.next;
}

/* The element after `link`, or NULL at the end. */
static inline struct list_link *list_next(const struct list *list, const struct list_link *link)
{
    return link->next == &list->head ? NULL : link->next;
}

static inline void list_insert_after(struct list_link *place, struct list_link *link)
{
    link->next = place->next;
    link->prev = place;
    place->next->prev = link;
    place->next = link;
}

static inline void list_append(struct list *list, struct list_link *link)
{
    list_insert_after(list->head.prev, link);
}

static inline void list_prepend(struct list *list, struct list_link *link)
{
    list_insert_after(&list->head, link);
}

static inline void list_remove(struct list_link *link)
{
    assert(link->prev != NULL); /* it is in a list */
    link->prev->next = link->next;
    link->next->prev = link->prev;
    link->next = link->prev = NULL;
}

static inline struct list_link *list_pop(struct list *list)
{
    struct list_link *link = list_first(list);
    if (link != NULL) {
        list_remove(link);
    }
    return link;
}

/* Moves every element of `from` to the end of `to`. */
static inline void list_splice(struct list *to, struct list *from)
{
    if (list_empty(from)) {
        return;
    }
    struct list_link *first = from->head.next;
    struct list_link *last = from->head.prev;
    first->prev = to->head.prev;
    to->head.prev->next = first;
    last->next = &to->head;
    to->head.prev = last;
    list_init(from);
}

/* Stable merge sort; `before(a, b)`: a must come before b. */
void list_sort(struct list *list,
               bool (*before)(const struct list_link *a, const struct list_link *b));

#endif
