#include "broker/base/mailbox.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "broker/base/clock.h"

struct letter {
    struct list_link link;
    uint32_t sender;
    uint32_t number;
};

static struct letter *letter_of(struct list_link *link)
{
    return container_of(link, struct letter, link);
}

static void wake_count(void *context)
{
    int *count = context;
    (*count)++;
}

static void open_mailbox(struct mailbox *mailbox, size_t count_max, int *wakes)
{
    err_t err = mailbox_init(mailbox, count_max, wakes == NULL ? NULL : wake_count, wakes);
    assert_null(err);
}

/* It takes exactly its bound; what is refused stays the sender's, and fits once something was
 * taken. */
static void test_bound(void **state)
{
    (void)state;
    struct mailbox mailbox;
    open_mailbox(&mailbox, 2, NULL);
    struct letter letters[3];
    memset(letters, 0, sizeof letters);
    assert_true(mailbox_send(&mailbox, &letters[0].link));
    assert_true(mailbox_send(&mailbox, &letters[1].link));
    assert_false(mailbox_send(&mailbox, &letters[2].link));
    assert_false(list_linked(&letters[2].link));
    assert_int_equal(mailbox_count(&mailbox), 2);

    struct list out;
    list_init(&out);
    assert_int_equal(mailbox_take(&mailbox, &out, 1), 1);
    assert_ptr_equal(list_pop(&out), &letters[0].link);
    assert_true(mailbox_send(&mailbox, &letters[2].link));
    assert_int_equal(mailbox_take(&mailbox, &out, 100), 2);
    assert_ptr_equal(list_pop(&out), &letters[1].link);
    assert_ptr_equal(list_pop(&out), &letters[2].link);
    assert_int_equal(mailbox_take(&mailbox, &out, 100), 0);
    mailbox_deinit(&mailbox);
}

/* Replies are taken beyond the bound, in order, also by a closed mailbox. */
static void test_send_all(void **state)
{
    (void)state;
    int wakes = 0;
    struct mailbox mailbox;
    open_mailbox(&mailbox, 1, &wakes);
    struct letter letters[3];
    memset(letters, 0, sizeof letters);
    struct list links;
    list_init(&links);
    mailbox_send_all(&mailbox, &links, 0);
    assert_int_equal(wakes, 0);
    list_append(&links, &letters[0].link);
    list_append(&links, &letters[1].link);
    mailbox_send_all(&mailbox, &links, 2);
    assert_true(list_empty(&links));
    assert_int_equal(mailbox_count(&mailbox), 2);
    assert_int_equal(wakes, 1);
    mailbox_close(&mailbox);
    list_append(&links, &letters[2].link);
    mailbox_send_all(&mailbox, &links, 1);

    struct list out;
    list_init(&out);
    assert_int_equal(mailbox_take(&mailbox, &out, 100), 3);
    for (int i = 0; i < 3; i++) {
        assert_ptr_equal(list_pop(&out), &letters[i].link);
    }
    mailbox_deinit(&mailbox);
}

/* The hook runs once for each change from empty to not empty, and once when the mailbox closes. */
static void test_wakes_once(void **state)
{
    (void)state;
    int wakes = 0;
    struct mailbox mailbox;
    open_mailbox(&mailbox, 10, &wakes);
    struct letter letters[3];
    memset(letters, 0, sizeof letters);
    struct list out;
    list_init(&out);
    assert_true(mailbox_send(&mailbox, &letters[0].link));
    assert_true(mailbox_send(&mailbox, &letters[1].link));
    assert_int_equal(wakes, 1);
    assert_int_equal(mailbox_take(&mailbox, &out, 10), 2);
    assert_true(mailbox_send(&mailbox, &letters[2].link));
    assert_int_equal(wakes, 2);
    mailbox_close(&mailbox);
    mailbox_close(&mailbox);
    assert_int_equal(wakes, 3);
    assert_int_equal(mailbox_take(&mailbox, &out, 10), 1);
    mailbox_deinit(&mailbox);
}

/* What is sent in a cork is handed out together, and its receiver woken once. */
static void test_corked(void **state)
{
    (void)state;
    int wakes = 0;
    struct mailbox mailbox;
    open_mailbox(&mailbox, 10, &wakes);
    struct letter letters[3];
    memset(letters, 0, sizeof letters);
    struct list out;
    list_init(&out);
    mailbox_cork(&mailbox);
    mailbox_uncork(&mailbox);
    assert_int_equal(wakes, 0);
    mailbox_cork(&mailbox);
    assert_true(mailbox_send(&mailbox, &letters[0].link));
    assert_int_equal(mailbox_take(&mailbox, &out, 10), 0);
    assert_true(mailbox_send_over(&mailbox, &letters[1].link));
    struct list last;
    list_init(&last);
    list_append(&last, &letters[2].link);
    mailbox_send_all(&mailbox, &last, 1);
    assert_int_equal(wakes, 0);
    assert_int_equal(mailbox_count(&mailbox), 3);
    mailbox_uncork(&mailbox);
    assert_int_equal(wakes, 1);
    assert_int_equal(mailbox_take(&mailbox, &out, 10), 3);
    mailbox_deinit(&mailbox);

    open_mailbox(&mailbox, 10, NULL);
    letters[0].link = (struct list_link){0};
    mailbox_cork(&mailbox);
    assert_true(mailbox_send(&mailbox, &letters[0].link));
    assert_int_equal(mailbox_wait(&mailbox, &out, 10, 1), 0);
    mailbox_uncork(&mailbox);
    assert_int_equal(mailbox_wait(&mailbox, &out, 10, UINT64_MAX), 1);
    mailbox_deinit(&mailbox);
}

/* A closed mailbox refuses, hands out what is inside, and lets nobody wait. */
static void test_close(void **state)
{
    (void)state;
    struct mailbox mailbox;
    open_mailbox(&mailbox, 10, NULL);
    struct letter letters[2];
    memset(letters, 0, sizeof letters);
    assert_true(mailbox_send(&mailbox, &letters[0].link));
    mailbox_close(&mailbox);
    assert_false(mailbox_send(&mailbox, &letters[1].link));
    struct list out;
    list_init(&out);
    assert_int_equal(mailbox_wait(&mailbox, &out, 10, UINT64_MAX), 1);
    assert_int_equal(mailbox_wait(&mailbox, &out, 10, UINT64_MAX), 0);
    mailbox_deinit(&mailbox);
}

/* A wait for nothing ends, not before its time; one of no time ends at once. */
static void test_wait_ends(void **state)
{
    (void)state;
    struct mailbox mailbox;
    open_mailbox(&mailbox, 10, NULL);
    struct clock clock;
    clock_init_real(&clock);
    struct list out;
    list_init(&out);
    assert_int_equal(mailbox_wait(&mailbox, &out, 10, 0), 0);
    uint64_t start_us = clock_mono_us(&clock);
    assert_int_equal(mailbox_wait(&mailbox, &out, 10, 20), 0);
    assert_true(clock_mono_us(&clock) - start_us >= 20000);
    mailbox_deinit(&mailbox);
}

static void *wait_for_close(void *context)
{
    struct mailbox *mailbox = context;
    struct list out;
    list_init(&out);
    /* Longer than any clock can say: it must neither wrap around nor return early. */
    size_t count = mailbox_wait(mailbox, &out, 10, UINT64_MAX - 1);
    return count == 0 ? mailbox : NULL;
}

/* Closing wakes a receiver in another thread. */
static void test_close_wakes(void **state)
{
    (void)state;
    struct mailbox mailbox;
    open_mailbox(&mailbox, 10, NULL);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, wait_for_close, &mailbox), 0);
    mailbox_close(&mailbox);
    void *result = NULL;
    assert_int_equal(pthread_join(thread, &result), 0);
    assert_ptr_equal(result, &mailbox);
    mailbox_deinit(&mailbox);
}

enum { SENDER_COUNT = 3, LETTER_COUNT = 2000, THREADED_BOUND = 64 };

struct sender {
    struct mailbox *mailbox;
    struct letter letters[LETTER_COUNT];
    uint32_t id;
};

static void *send_letters(void *context)
{
    struct sender *sender = context;
    for (uint32_t i = 0; i < LETTER_COUNT; i++) {
        sender->letters[i].sender = sender->id;
        sender->letters[i].number = i;
        while (!mailbox_send(sender->mailbox, &sender->letters[i].link)) {
            sched_yield();
        }
    }
    return NULL;
}

/* What has been let in may go over the bound, but not into a closed mailbox. */
static void test_send_over(void **state)
{
    (void)state;
    struct mailbox mailbox;
    struct letter letters[3];
    struct list out;
    memset(letters, 0, sizeof letters);
    list_init(&out);
    open_mailbox(&mailbox, 1, NULL);
    assert_true(mailbox_send(&mailbox, &letters[0].link));
    assert_false(mailbox_send(&mailbox, &letters[1].link));
    assert_true(mailbox_send_over(&mailbox, &letters[1].link));
    mailbox_close(&mailbox);
    assert_false(mailbox_send_over(&mailbox, &letters[2].link));
    assert_int_equal(mailbox_take(&mailbox, &out, 10), 2);
    assert_ptr_equal(list_pop(&out), &letters[0].link);
    assert_ptr_equal(list_pop(&out), &letters[1].link);
    mailbox_deinit(&mailbox);
}

/* A nudge ends one wait, the one under way or the next, with nothing. */
static void test_nudge(void **state)
{
    (void)state;
    struct mailbox mailbox;
    struct list out;
    int wakes = 0;
    list_init(&out);
    open_mailbox(&mailbox, 1, NULL);
    mailbox_nudge(&mailbox);
    assert_int_equal(mailbox_wait(&mailbox, &out, 1, UINT64_MAX), 0);
    assert_int_equal(mailbox_wait(&mailbox, &out, 1, 1), 0);
    mailbox_deinit(&mailbox);
    open_mailbox(&mailbox, 1, &wakes);
    mailbox_nudge(&mailbox);
    assert_int_equal(wakes, 1);
    mailbox_deinit(&mailbox);
}

/* From many threads every message arrives once, each sender's in the order it sent them. */
static void test_threads(void **state)
{
    (void)state;
    static struct sender senders[SENDER_COUNT];
    struct mailbox mailbox;
    open_mailbox(&mailbox, THREADED_BOUND, NULL);
    pthread_t threads[SENDER_COUNT];
    for (uint32_t i = 0; i < SENDER_COUNT; i++) {
        senders[i].mailbox = &mailbox;
        senders[i].id = i;
        assert_int_equal(pthread_create(&threads[i], NULL, send_letters, &senders[i]), 0);
    }
    uint32_t next[SENDER_COUNT] = {0};
    struct list out;
    list_init(&out);
    for (size_t left = SENDER_COUNT * LETTER_COUNT; left > 0;) {
        size_t count = mailbox_wait(&mailbox, &out, 50, UINT64_MAX);
        assert_in_range(count, 1, 50);
        left -= count;
        for (size_t i = 0; i < count; i++) {
            struct letter *letter = letter_of(list_pop(&out));
            assert_int_equal(letter->number, next[letter->sender]);
            next[letter->sender]++;
        }
        assert_true(list_empty(&out));
    }
    for (uint32_t i = 0; i < SENDER_COUNT; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(next[i], LETTER_COUNT);
    }
    mailbox_deinit(&mailbox);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bound),       cmocka_unit_test(test_send_all),
        cmocka_unit_test(test_wakes_once),  cmocka_unit_test(test_corked),
        cmocka_unit_test(test_close),       cmocka_unit_test(test_wait_ends),
        cmocka_unit_test(test_close_wakes), cmocka_unit_test(test_send_over),
        cmocka_unit_test(test_nudge),       cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
