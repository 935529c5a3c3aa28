#include "broker/base/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "tests/lib/tmpdir.h"

/* Want of room is told from a disk that fails, however the kernel calls it. */
static void test_codes(void **state)
{
    (void)state;
    static const struct {
        int cause;
        enum err_code code;
    } cases[] = {{ENOSPC, ERR_NO_SPACE},  {EDQUOT, ERR_NO_SPACE}, {EFBIG, ERR_NO_SPACE},
                 {ENOENT, ERR_NOT_FOUND}, {EEXIST, ERR_EXISTS},   {ENOMEM, ERR_MEMORY},
                 {EIO, ERR_IO},           {EACCES, ERR_IO}};
    for (size_t index = 0; index < sizeof cases / sizeof *cases; index++) {
        assert_int_equal(file_code(cases[index].cause), cases[index].code);
        errno = cases[index].cause;
        err_t err = file_err("open", "here");
        assert_int_equal(err_code(err), cases[index].code);
        assert_ptr_equal(strstr(err_message(err), "open here: "), err_message(err));
        err_free(err);
    }
}

/* The directory of a path is flushed, whether the path itself is there or not. */
static void test_flush_directory(void **state)
{
    (void)state;
    struct tmpdir tmpdir;
    char path[TMPDIR_PATH_SIZE];
    tmpdir_init(&tmpdir);
    assert_null(file_flush_directory(tmpdir.path));
    assert_null(file_flush_directory(tmpdir_file(&tmpdir, "missing", path)));
    assert_null(file_flush_directory("missing"));
    err_t err = file_flush_directory(tmpdir_file(&tmpdir, "missing/file", path));
    assert_int_equal(err_code(err), ERR_NOT_FOUND);
    err_free(err);
    tmpdir_deinit(&tmpdir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_codes),
        cmocka_unit_test(test_flush_directory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
