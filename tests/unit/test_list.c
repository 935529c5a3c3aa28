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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_linked, setup),
        cmocka_unit_test_setup(test_order, setup),
        cmocka_unit_test_setup(test_pop, setup),
        cmocka_unit_test_setup(test_splice, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
