#include "broker/base/list.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

struct item {
    char name;
    struct list_link link;
};

enum { ITEM_COUNT = 5 };
static struct item items[ITEM_COUNT];

static int setup(void **state)
{
    (void)state;
    memset(items, 0, sizeof items);
    for (int i = 0; i < ITEM_COUNT; i++) {
        items[i].name = (char)('a' + i);
    }
    return 0;
}

/* The names in order, checked to be the same read backwards. */
static void expect(const struct list *list, const char *names)
{
    size_t index = 0;
    for (const struct list_link *link = list_first(list); link != NULL;
         link = list_next(list, link)) {
        assert_ptr_equal(link->next->prev, link);
        assert_ptr_equal(link->prev->next, link);
        assert_int_equal(
            ((const struct item *)((const char *)link - offsetof(struct item, link)))->name,
            names[index]);
        index++;
    }
    assert_int_equal(names[index], '\0');
    assert_int_equal(list_empty(list), index == 0);
}

/* Zeroed links are unlinked; linking and removing them shows. */
static void test_linked(void **state)
{
    (void)state;
    struct list list;
    list_init(&list);
    assert_false(list_linked(&items[0].link));
    list_append(&list, &items[0].link);
    assert_true(list_linked(&items[0].link));
    list_remove(&items[0].link);
    assert_false(list_linked(&items[0].link));
    expect(&list, "");
}

/* Append goes to the end, prepend to the front, insert after its place; remove takes from anywhere.
 */
static void test_order(void **state)
{
    (void)state;
    struct list list;
    list_init(&list);
    list_append(&list, &items[1].link);
    list_append(&list, &items[3].link);
    list_prepend(&list, &items[0].link);
    list_insert_after(&items[1].link, &items[2].link);
    list_append(&list, &items[4].link);
    expect(&list, "abcde");
    list_remove(&items[2].link);
    expect(&list, "abde");
    list_remove(&items[0].link);
    expect(&list, "bde");
    list_remove(&items[4].link);
    expect(&list, "bd");
}

/* Popping hands out the elements in order, unlinked, then NULL. */
static void test_pop(void **state)
{
    (void)state;
    struct list list;
    list_init(&list);
    list_append(&list, &items[0].link);
    list_append(&list, &items[1].link);
    for (int i = 0; i < 2; i++) {
        struct list_link *link = list_pop(&list);
        assert_ptr_equal(container_of(link, struct item, link), &items[i]);
        assert_false(list_linked(link));
    }
    assert_null(list_pop(&list));
    assert_null(list_first(&list));
}

/* A splice moves everything behind what is there, and leaves its source empty and usable. */
static void test_splice(void **state)
{
    (void)state;
    static struct list to; /* the items outlive the test, and so must what they point to */
    static struct list from;
    list_init(&to);
    list_init(&from);
    list_splice(&to, &from);
    expect(&to, "");
    list_append(&from, &items[0].link);
    list_append(&from, &items[1].link);
    list_splice(&to, &from);
    expect(&to, "ab");
    expect(&from, "");
    list_append(&from, &items[2].link);
    list_splice(&to, &from);
    expect(&to, "abc");
    list_append(&to, &items[3].link);
    list_splice(&to, &from);
    expect(&to, "abcd");
}

enum { SORTED_COUNT = 300 };

struct numbered {
    int number;
    int place;
    struct list_link link;
};

static bool numbered_before(const struct list_link *a, const struct list_link *b)
{
    return container_of(a, const struct numbered, link)->number <
           container_of(b, const struct numbered, link)->number;
}

/* Sorting orders by number, keeps the order of equals and loses nothing, whatever the length. */
static void sort_is_stable_and_complete(void **state)
{
    (void)state;
    static struct numbered elements[SORTED_COUNT];
    for (int count = 0; count <= SORTED_COUNT; count += count < 5 ? 1 : 59) {
        struct list list;
        list_init(&list);
        for (int i = 0; i < count; i++) {
            elements[i] = (struct numbered){.number = i * 7919 % 13, .place = i};
            list_append(&list, &elements[i].link);
        }
        list_sort(&list, numbered_before);
        int seen = 0;
        const struct numbered *last = NULL;
        for (const struct list_link *link = list_first(&list); link != NULL;
             link = list_next(&list, link), seen++) {
            const struct numbered *element = container_of(link, const struct numbered, link);
            assert_true(last == NULL || last->number < element->number ||
                        (last->number == element->number && last->place < element->place));
            assert_ptr_equal(link->next->prev, link);
            last = element;
        }
        assert_int_equal(seen, count);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_linked, setup),    cmocka_unit_test_setup(test_order, setup),
        cmocka_unit_test_setup(test_pop, setup),       cmocka_unit_test_setup(test_splice, setup),
        cmocka_unit_test(sort_is_stable_and_complete),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
