#include "tests/lib/tmpdir.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* Each directory is new, holds what is written to it, and takes everything in it away when it goes.
 */
static void test_life(void **state)
{
    (void)state;
    struct tmpdir first;
    struct tmpdir second;
    tmpdir_init(&first);
    tmpdir_init(&second);
    assert_string_not_equal(first.path, second.path);

    char path[TMPDIR_PATH_SIZE];
    tmpdir_write(&first, "file", "12345", 5);
    struct stat status;
    assert_int_equal(stat(tmpdir_file(&first, "file", path), &status), 0);
    assert_int_equal(status.st_size, 5);
    assert_int_equal(mkdir(tmpdir_file(&first, "folder", path), 0700), 0);
    tmpdir_write(&first, "folder/file", NULL, 0);

    char gone[TMPDIR_PATH_SIZE];
    (void)snprintf(gone, sizeof gone, "%s", first.path);
    tmpdir_deinit(&first);
    assert_int_not_equal(access(gone, F_OK), 0);
    tmpdir_deinit(&first);
    tmpdir_deinit(&second);
}

/* A link in it is removed, not what it points to. */
static void test_links_are_not_followed(void **state)
{
    (void)state;
    struct tmpdir kept;
    struct tmpdir removed;
    tmpdir_init(&kept);
    tmpdir_init(&removed);
    char target[TMPDIR_PATH_SIZE];
    char link[TMPDIR_PATH_SIZE];
    tmpdir_write(&kept, "file", "x", 1);
    assert_int_equal(symlink(kept.path, tmpdir_file(&removed, "link", link)), 0);
    tmpdir_deinit(&removed);
    assert_int_equal(access(tmpdir_file(&kept, "file", target), F_OK), 0);
    tmpdir_deinit(&kept);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_life),
        cmocka_unit_test(test_links_are_not_followed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
