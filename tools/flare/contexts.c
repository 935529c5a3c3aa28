#define _GNU_SOURCE /* mkostemp */
#include "tools/flare/contexts.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/flare/settings.h"

enum { DIRECTORY_MODE = 0700 };

/* Empty when nothing says where: then there are no contexts. */
static err_t find_path(char out[CONTEXTS_PATH_MAX])
{
    const char *base = getenv("XDG_CONFIG_HOME");
    const char *home = getenv("HOME");
    int size = 0;
    out[0] = '\0';
    if (base != NULL && base[0] == '/') { /* a relative one is to be ignored, says its standard */
        size = snprintf(out, CONTEXTS_PATH_MAX, "%s/flare/contexts.json", base);
    } else if (home != NULL && home[0] != '\0') {
        size = snprintf(out, CONTEXTS_PATH_MAX, "%s/.config/flare/contexts.json", home);
    }
    return size < CONTEXTS_PATH_MAX ? NULL : ERR(INVALID, "the path of the contexts is too long");
}

static err_t check_field(const char *path, const char *name, const char *field, const json_t *value)
{
    enum setting setting = 0;
    char place[CONTEXTS_PATH_MAX + CONTEXTS_NAME_MAX + 64];
    while (setting < SETTING_COUNT && strcmp(settings_name(setting), field) != 0) {
        setting++;
    }
    if (setting == SETTING_COUNT || !json_is_string(value)) {
        return ERR(FORMAT, "%s: '%s' of context %s is not a setting", path, field, name);
    }
    (void)snprintf(place, sizeof place, "%s: %s of context %s", path, field, name);
    return settings_check(setting, place, json_string_value(value));
}

static err_t check_context(const char *path, const char *name, json_t *fields)
{
    const char *field = NULL;
    json_t *value = NULL;
    if (!contexts_name_valid(name) || !json_is_object(fields)) {
        return ERR(FORMAT, "%s: '%s' is not a context", path, name);
    }
    json_object_foreach(fields, field, value)
    {
        TRY(check_field(path, name, field, value));
    }
    return NULL;
}

/* Nothing but what contexts_save writes, with the gaps filled in. */
static err_t check_document(const char *path, json_t *document)
{
    const char *name = NULL;
    json_t *value = NULL;
    json_object_foreach(document, name, value)
    {
        bool known = (strcmp(name, "current") == 0 && json_is_string(value)) ||
                     (strcmp(name, "contexts") == 0 && json_is_object(value));
        if (!known) {
            return ERR(FORMAT, "%s: '%s' does not belong there", path, name);
        }
    }
    if (json_object_get(document, "contexts") == NULL) {
        (void)json_object_set_new(document, "contexts", json_object());
    }
    json_object_foreach(json_object_get(document, "contexts"), name, value)
    {
        TRY(check_context(path, name, value));
    }
    const char *current = json_string_value(json_object_get(document, "current"));
    if (current != NULL &&
        json_object_get(json_object_get(document, "contexts"), current) == NULL) {
        return ERR(FORMAT, "%s: the current context '%s' is not there", path, current);
    }
    return NULL;
}

static err_t read_document(const char *path, json_t **out)
{
    json_error_t where;
    FILE *file = path[0] == '\0' ? NULL : fopen(path, "re");
    if (file == NULL) {
        if (path[0] != '\0' && errno != ENOENT && errno != ENOTDIR) {
            return ERR(IO, "open %s: %s", path, strerror(errno));
        }
        *out = json_pack("{s:{}}", "contexts");
        return *out == NULL ? ERR(MEMORY, "no memory for contexts") : NULL;
    }
    json_t *document = json_loadf(file, JSON_REJECT_DUPLICATES, &where);
    (void)fclose(file);
    if (!json_is_object(document)) {
        json_decref(document);
        return ERR(FORMAT, "%s:%d: not a file of contexts: %s", path, where.line, where.text);
    }
    *out = document;
    return NULL;
}

err_t contexts_open(struct contexts *out)
{
    memset(out, 0, sizeof *out);
    TRY(find_path(out->path));
    TRY(read_document(out->path, &out->document));
    err_t err = check_document(out->path, out->document);
    if (err != NULL) {
        contexts_close(out);
        return err_passed(err, __func__);
    }
    return NULL;
}

void contexts_close(struct contexts *contexts)
{
    json_decref(contexts->document);
    contexts->document = NULL;
}

/* Makes every directory of the path but its last part; those that exist stay as they are. */
static err_t make_directories(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        bool made = mkdir(path, DIRECTORY_MODE) == 0 || errno == EEXIST;
        int reason = errno;
        if (!made) {
            err_t err = ERR(IO, "make %s: %s", path, strerror(reason));
            *slash = '/';
            return err;
        }
        *slash = '/';
    }
    return NULL;
}

/* Writes and flushes a new file, which only its owner may read; its name replaces the X's. */
static err_t write_new(char *path, const json_t *document)
{
    int descriptor = mkostemp(path, O_CLOEXEC); /* mode 0600 */
    FILE *file = descriptor < 0 ? NULL : fdopen(descriptor, "w");
    if (file == NULL) {
        return ERR(IO, "make %s: %s", path, strerror(errno));
    }
    bool written = json_dumpf(document, file, JSON_INDENT(2)) == 0 && fputc('\n', file) != EOF &&
                   fflush(file) == 0 && fsync(descriptor) == 0;
    int reason = errno;
    if (fclose(file) != 0 || !written) {
        (void)unlink(path);
        return ERR(IO, "write %s: %s", path, strerror(reason));
    }
    return NULL;
}

err_t contexts_save(const struct contexts *contexts)
{
    char target[CONTEXTS_PATH_MAX];
    char temporary[CONTEXTS_PATH_MAX + 8];
    if (contexts->path[0] == '\0') {
        return ERR(INVALID, "neither XDG_CONFIG_HOME nor HOME says where contexts are kept");
    }
    (void)snprintf(target, sizeof target, "%s", contexts->path);
    TRY(make_directories(target));
    /* A link, as people have who keep such files elsewhere, stays one. */
    char *linked = realpath(contexts->path, NULL);
    if (linked != NULL && strlen(linked) < sizeof target) {
        (void)snprintf(target, sizeof target, "%s", linked);
    }
    free(linked);
    (void)snprintf(temporary, sizeof temporary, "%s.XXXXXX", target);
    TRY(write_new(temporary, contexts->document));
    if (rename(temporary, target) != 0) {
        err_t err = ERR(IO, "rename %s to %s: %s", temporary, target, strerror(errno));
        (void)unlink(temporary);
        return err;
    }
    return NULL;
}

bool contexts_name_valid(const char *name)
{
    static const char allowed[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t size = strlen(name);
    return size > 0 && size <= CONTEXTS_NAME_MAX && name[0] != '-' && strspn(name, allowed) == size;
}

json_t *contexts_all(const struct contexts *contexts)
{
    return json_object_get(contexts->document, "contexts");
}

json_t *contexts_get(const struct contexts *contexts, const char *name)
{
    return json_object_get(contexts_all(contexts), name);
}

const char *contexts_current(const struct contexts *contexts)
{
    return json_string_value(json_object_get(contexts->document, "current"));
}

void contexts_use(struct contexts *contexts, const char *name)
{
    if (name == NULL) {
        (void)json_object_del(contexts->document, "current");
    } else {
        (void)json_object_set_new(contexts->document, "current", json_string(name));
    }
}

void contexts_put(struct contexts *contexts, const char *name, json_t *fields)
{
    assert(contexts_name_valid(name));
    (void)json_object_set_new(contexts_all(contexts), name, fields);
}

void contexts_remove(struct contexts *contexts, const char *name)
{
    const char *current = contexts_current(contexts);
    if (current != NULL && strcmp(current, name) == 0) {
        contexts_use(contexts, NULL);
    }
    (void)json_object_del(contexts_all(contexts), name);
}
