/* A data directory on a disk without room. */
#define _GNU_SOURCE
#include "broker/datadir.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/tmpdir.h"

enum { PAGE = 4096, NOT_PERMITTED = 77, OPENED = 0, REFUSED = 1, BROKEN = 2 };

static struct tmpdir tmpdir;

static int setup(void **state)
{
    (void)state;
    tmpdir_init(&tmpdir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    tmpdir_deinit(&tmpdir);
    return 0;
}

static bool opens(void)
{
    char path[TMPDIR_PATH_SIZE];
    struct datadir datadir;
    const struct datadir_options options = {.path = tmpdir_file(&tmpdir, "data", path),
                                            .volumes = 2,
                                            .map_size = 1 << 26,
                                            .map_size_max = 1 << 26,
                                            .journal_size = 64 << 10};
    err_t err = datadir_open(&options, &datadir);
    if (err != NULL) {
        err_free(err);
        return false;
    }
    datadir_close(&datadir);
    return true;
}

/* Fills the disk up, but for so many bytes. */
static void fill(const char *path, off_t room)
{
    uint8_t page[PAGE];
    off_t size = 0;
    memset(page, 1, sizeof page);
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    while (write(fd, page, sizeof page) == (ssize_t)sizeof page) {
        size += PAGE;
    }
    if (ftruncate(fd, size > room ? size - room : 0) != 0) {
        _exit(BROKEN);
    }
    close(fd);
}

/* In a process of its own, whose small disk goes with it: a first start, or a later one, with so
 * much room; then one with enough. */
static int start_with(off_t room, bool first)
{
    char path[TMPDIR_PATH_SIZE];
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
            mount("tmpfs", tmpdir.path, "tmpfs", 0, "size=2m") != 0) {
            _exit(NOT_PERMITTED);
        }
        if (!first && !opens()) {
            _exit(BROKEN);
        }
        tmpdir_file(&tmpdir, "filler", path);
        fill(path, room);
        int result = opens() ? OPENED : REFUSED;
        unlink(path);
        _exit(opens() ? result : BROKEN);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* However little room there is at a first start, it is made or refused in an orderly way, and works
 * once there is room. */
static void first_start(void **state)
{
    enum { ROOM_MAX = 256 * 1024 };
    (void)state;
    int result = REFUSED;
    for (off_t room = 0; room <= ROOM_MAX && result != OPENED; room += PAGE) {
        result = start_with(room, true);
        if (result == NOT_PERMITTED) {
            skip();
        }
        assert_true(result == OPENED || result == REFUSED);
    }
    assert_int_equal(result, OPENED);
}

/* A later start needs no room at all. */
static void later_start(void **state)
{
    (void)state;
    int result = start_with(0, false);
    if (result == NOT_PERMITTED) {
        skip();
    }
    assert_int_equal(result, OPENED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(first_start, setup, teardown),
        cmocka_unit_test_setup_teardown(later_start, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
