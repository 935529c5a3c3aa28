/* Another program, run by a test: its standard input and output are pipes, its standard error is
 * ours or a file. It is killed by process_stop, and by the kernel when the test program dies first.
 *
 * Waiting has a deadline and no sleep: a line, the end of the output or of the process wakes it. */
#ifndef LIB_PROCESS_H
#define LIB_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { PROCESS_LINE_SIZE = 8192 };

struct process {
    pid_t pid;  /* 0: not running, reaped */
    int input;  /* writing end of its standard input; -1: closed */
    int output; /* reading end of its standard output; -1: closed */
    int pidfd;
    int status;  /* exit status, or 128 + signal, once it is reaped */
    size_t size; /* bytes of `text` read and not yet handed out */
    char text[PROCESS_LINE_SIZE];
};

struct process_options {
    const char *const
        *arguments; /* the program (looked up in PATH without a slash) first; ends with NULL */
    const char *const *environment; /* "NAME=VALUE" added to ours; ends with NULL; may be NULL */
    const char *error_path;         /* file to append its standard error to; NULL: ours */
};

/* Ends the test program when the machine has no process or pipe left. A program that cannot be run
 * exits with 127. */
void process_start(struct process *process, const struct process_options *options);

/* The next line of its output, without the newline, into `line` (cut to fit); false when none has
 * come in time or the output has ended. */
bool process_read_line(struct process *process, char *line, size_t size, uint64_t timeout_ms);

/* Reads lines until one that contains `text`. */
bool process_wait_line(struct process *process, const char *text, char *line, size_t size,
                       uint64_t timeout_ms);

/* All of `data` to its input; false when it no longer reads. */
bool process_write(struct process *process, const void *data, size_t size);
void process_close_input(struct process *process);

void process_signal(struct process *process, int number);

/* Waits for its end and reaps it: exit status, 128 + signal, or -1 when it still runs. */
int process_wait(struct process *process, uint64_t timeout_ms);

/* Kills it if it runs, reaps it and closes its pipes. May be called twice, or on a zeroed struct.
 */
void process_stop(struct process *process);

#endif
