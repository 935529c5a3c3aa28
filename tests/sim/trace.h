/* The story of one run: lines for people (--trace), a hash that tells whether two runs were the
 * same, and the end of the run when a promise is found broken. */
#ifndef SIM_TRACE_H
#define SIM_TRACE_H

#include "broker/core/command.h"

struct trace {
    uint64_t seed;
    uint64_t commands_max; /* of the run, to repeat it */
    uint64_t commands;     /* judged so far */
    uint64_t hash;
    uint32_t volume; /* the one being judged */
    bool verbose;
};

/* Begins the story; a failed assertion tells its seed too from now on. */
void trace_begin(struct trace *trace);

/* Prints what was found, the last command and how to repeat the run, and ends the process. */
_Noreturn void trace_fail(const struct trace *trace, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* A line of the story that is not a command: a crash, a restart. */
void trace_note(struct trace *trace, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A command that took effect, with its reply. */
void trace_command(struct trace *trace, const struct command *command, const struct reply *reply);

const char *trace_command_name(enum command_type type);

#endif
