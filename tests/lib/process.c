#define _GNU_SOURCE
#include "tests/lib/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static _Noreturn void process_fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    abort();
}

static uint64_t now_ms(void)
{
    struct timespec now;
    if (clock_gettime(CLOCK_MONOTONIC, &now) != 0) {
        process_fail("clock_gettime");
    }
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Waits until `fd` can be read or `deadline_ms` has passed. */
static bool wait_readable(int fd, uint64_t deadline_ms)
{
    for (;;) {
        uint64_t now = now_ms();
        uint64_t left = now < deadline_ms ? deadline_ms - now : 0;
        struct pollfd events = {.fd = fd, .events = POLLIN};
        int count = poll(&events, 1, left > 60000 ? 60000 : (int)left);
        if (count > 0) {
            return true;
        }
        if (count < 0 && errno != EINTR) {
            process_fail("poll");
        }
        if (left == 0) {
            return false;
        }
    }
}

static _Noreturn void child_run(const struct process_options *options, int input, int output,
                                pid_t parent)
{
    /* Whoever dies first, the other is not left behind; the parent may have died before the call.
     */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent) {
        _exit(127);
    }
    if (dup2(input, STDIN_FILENO) < 0 || dup2(output, STDOUT_FILENO) < 0) {
        _exit(127);
    }
    if (options->error_path != NULL) {
        int error = open(options->error_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (error < 0 || dup2(error, STDERR_FILENO) < 0) {
            _exit(127);
        }
    }
    for (size_t i = 0; options->environment != NULL && options->environment[i] != NULL; i++) {
        char *entry = strdup(options->environment[i]);
        if (entry == NULL || putenv(entry) != 0) {
            _exit(127);
        }
    }
    (void)signal(SIGPIPE, SIG_DFL);
    union {
        const char *const *constant;
        char *const *variable; /* execvp changes nothing, but its type is older than const */
    } arguments = {.constant = options->arguments};
    execvp(arguments.constant[0], arguments.variable);
    fprintf(stderr, "exec %s: %s\n", options->arguments[0], strerror(errno));
    _exit(127);
}

void process_start(struct process *process, const struct process_options *options)
{
    memset(process, 0, sizeof *process);
    int input[2];
    int output[2];
    if (pipe2(input, O_CLOEXEC) != 0 || pipe2(output, O_CLOEXEC) != 0) {
        process_fail("pipe");
    }
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid < 0) {
        process_fail("fork");
    }
    if (pid == 0) {
        child_run(options, input[0], output[1], parent);
    }
    close(input[0]);
    close(output[1]);
    process->pid = pid;
    process->input = input[1];
    process->output = output[0];
    process->pidfd = pidfd_open(pid, 0);
    if (process->pidfd < 0) {
        process_fail("pidfd_open");
    }
    /* A child that is gone is an answer of process_write, not the end of the test program. */
    (void)signal(SIGPIPE, SIG_IGN);
}

/* Hands out the first `size` bytes of the text as a line and drops them with the newline after
 * them. */
static void take_line(struct process *process, size_t size, char *line, size_t line_size)
{
    size_t copied = size < line_size ? size : line_size - 1;
    memcpy(line, process->text, copied);
    line[copied] = '\0';
    size_t taken = size < process->size ? size + 1 : size;
    memmove(process->text, process->text + taken, process->size - taken);
    process->size -= taken;
}

bool process_read_line(struct process *process, char *line, size_t size, uint64_t timeout_ms)
{
    uint64_t deadline_ms = now_ms() + timeout_ms;
    for (;;) {
        char *end = memchr(process->text, '\n', process->size);
        if (end != NULL || process->size == sizeof process->text) {
            size_t line_size = end != NULL ? (size_t)(end - process->text) : process->size;
            take_line(process, line_size, line, size);
            return true;
        }
        if (process->output < 0 || !wait_readable(process->output, deadline_ms)) {
            return false;
        }
        ssize_t count = read(process->output, process->text + process->size,
                             sizeof process->text - process->size);
        if (count < 0 && errno != EINTR) {
            process_fail("read");
        }
        if (count == 0) { /* the end: what came without a newline is the last line */
            close(process->output);
            process->output = -1;
            if (process->size == 0) {
                return false;
            }
            take_line(process, process->size, line, size);
            return true;
        }
        process->size += count > 0 ? (size_t)count : 0;
    }
}

bool process_wait_line(struct process *process, const char *text, char *line, size_t size,
                       uint64_t timeout_ms)
{
    uint64_t deadline_ms = now_ms() + timeout_ms;
    for (;;) {
        uint64_t now = now_ms();
        uint64_t left = now < deadline_ms ? deadline_ms - now : 0;
        if (!process_read_line(process, line, size, left)) {
            return false;
        }
        if (strstr(line, text) != NULL) {
            return true;
        }
    }
}

bool process_write(struct process *process, const void *data, size_t size)
{
    const char *bytes = data;
    while (size > 0) {
        ssize_t count = write(process->input, bytes, size);
        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count < 0) {
            return false;
        }
        bytes += count;
        size -= (size_t)count;
    }
    return true;
}

void process_close_input(struct process *process)
{
    if (process->input >= 0) {
        close(process->input);
        process->input = -1;
    }
}

void process_signal(struct process *process, int number)
{
    if (process->pid > 0 && kill(process->pid, number) != 0) {
        process_fail("kill");
    }
}

int process_wait(struct process *process, uint64_t timeout_ms)
{
    if (process->pid == 0) {
        return process->status;
    }
    if (!wait_readable(process->pidfd, now_ms() + timeout_ms)) {
        return -1;
    }
    int status = 0;
    while (waitpid(process->pid, &status, 0) < 0) {
        if (errno != EINTR) {
            process_fail("waitpid");
        }
    }
    process->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    process->pid = 0;
    close(process->pidfd);
    return process->status;
}

void process_stop(struct process *process)
{
    if (process->pid > 0) {
        process_signal(process, SIGKILL);
        (void)process_wait(process, UINT32_MAX);
    }
    /* A zeroed struct was never started: its zeros are not descriptors. */
    if (process->input > STDERR_FILENO) {
        close(process->input);
    }
    if (process->output > STDERR_FILENO) {
        close(process->output);
    }
    process->input = -1;
    process->output = -1;
}
