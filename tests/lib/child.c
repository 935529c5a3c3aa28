#include "tests/lib/child.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

int child_run(int (*body)(const char *path), const char *path)
{
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        /* No leak check: the child holds what its parent had allocated. */
        _exit(body(path));
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int child_failed(int line, err_t err)
{
    fprintf(stderr, "child, line %d: %s\n", line, err == NULL ? "wrong" : err_describe(err));
    err_free(err);
    return 1;
}
