/* LMDB 0.9 on a 64-bit little-endian machine: the file is an array of pages, the first two of them
 * meta pages that commits write in turn. A page: number u64, pad u16, flags u16, lower u16, upper
 * u16 (of an overflow page: count u32), then offsets u16 of its nodes, which fill it from the end.
 * A node: size (leaf) or child (branch) in three u16, key size u16, key, value. Every offset and
 * count is checked before it is used. */
#define _GNU_SOURCE
#include "storage/verify.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/base/bytes.h"

enum { VERIFY_BRANCH = 1, VERIFY_LEAF = 2, VERIFY_OVERFLOW = 4, VERIFY_META = 8 };
enum { VERIFY_BIG_VALUE = 1, VERIFY_SUB_TABLE = 2 };
enum {
    VERIFY_HEADER_SIZE = 16,
    VERIFY_NODE_SIZE = 8,
    VERIFY_DB_SIZE = 48,
    VERIFY_META_SIZE = 136,
    VERIFY_KEY_MAX = 511,
    VERIFY_DEPTH_MAX = 32,
    VERIFY_PAGE_SIZE_MIN = 512,
    VERIFY_PAGE_SIZE_MAX = 32768,
    VERIFY_META_COUNT = 2,
    VERIFY_UNWRITTEN_MAX =
        1 << 20, /* pages that may be missing at the end: freed before they were written */
    VERIFY_PROGRESS_PAGES = 4096,
    VERIFY_TEXT_SIZE = 256
};
#define VERIFY_MAGIC 0xBEEFC0DEU
#define VERIFY_NO_PAGE UINT64_MAX

/* A table's description in a meta page or in the main table. */
struct verify_db {
    uint32_t pad; /* of the free list's: the page size */
    uint16_t flags;
    uint16_t depth;
    uint64_t branch_pages;
    uint64_t leaf_pages;
    uint64_t overflow_pages;
    uint64_t entries;
    uint64_t root;
};

struct verify_meta {
    struct verify_db free_list;
    struct verify_db main;
    uint64_t last_page;
    uint64_t commit;
};

struct verify {
    int fd;
    const char *path;
    const struct verify_sink *sink;
    struct verify_figures *figures;
    uint64_t file_size;
    uint64_t page_size;
    uint64_t page_count;
    uint8_t *seen; /* a bit for each page */
    uint8_t
        *buffers; /* a page for each level of a tree, and the main table's above another table's */
};

struct verify_tree;

struct verify_node {
    uint16_t flags;
    struct span key;
    struct span
        value;      /* of a leaf, unless it is big; else the 8 bytes that name the overflow pages */
    uint64_t size;  /* of the value */
    uint64_t child; /* of a branch */
};

/* One table while it is walked. */
struct verify_tree {
    struct verify *verify;
    const char *name;
    const struct verify_db *db;
    struct verify_db counted;
    unsigned buffer; /* number of its first buffer */
    bool is_free_list;
    bool is_main;
    bool has_key;
    uint8_t key[VERIFY_KEY_MAX]; /* the greatest so far */
    size_t key_size;
    bool is_bound; /* that key is a branch's: the next may be equal */
    bool damaged;
};

static void verify_problem(struct verify *verify, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void verify_problem(struct verify *verify, const char *format, ...)
{
    char text[VERIFY_TEXT_SIZE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    verify->figures->problem_count++;
    verify->sink->problem(verify->sink->context, text);
}

/* ---- reading ---- */

/* Bytes behind the end are zero. */
static err_t verify_read(const struct verify *verify, uint64_t offset, uint8_t *out, size_t size)
{
    memset(out, 0, size);
    for (size_t at = 0; at < size;) {
        ssize_t got = pread(verify->fd, out + at, size - at, (off_t)(offset + at));
        if (got < 0 && errno != EINTR) {
            return ERR(IO, "read %s at %lu: %s", verify->path, offset + at, strerror(errno));
        }
        if (got == 0) {
            break;
        }
        at += got > 0 ? (size_t)got : 0;
    }
    return NULL;
}

static struct verify_db verify_decode_db(const uint8_t *from)
{
    return (struct verify_db){.pad = bytes_get_le32(from),
                              .flags = bytes_get_le16(from + 4),
                              .depth = bytes_get_le16(from + 6),
                              .branch_pages = bytes_get_le64(from + 8),
                              .leaf_pages = bytes_get_le64(from + 16),
                              .overflow_pages = bytes_get_le64(from + 24),
                              .entries = bytes_get_le64(from + 32),
                              .root = bytes_get_le64(from + 40)};
}

/* ---- pages ---- */

/* Takes `count` pages for one use; false when one is used already or is none. */
static bool verify_take(struct verify *verify, uint64_t first, uint64_t count, const char *user)
{
    if (first < VERIFY_META_COUNT || first >= verify->page_count ||
        count > verify->page_count - first) {
        verify_problem(verify, "%s: page %lu is outside the file", user, first);
        return false;
    }
    for (uint64_t page = first; page < first + count; page++) {
        uint8_t bit = (uint8_t)(1U << page % 8);
        if (verify->seen[page / 8] & bit) {
            verify_problem(verify, "%s: page %lu has another use too", user, page);
            return false;
        }
        verify->seen[page / 8] |= bit;
    }
    return true;
}

static void verify_used(struct verify *verify, uint64_t count)
{
    const struct verify_sink *sink = verify->sink;
    uint64_t before = verify->figures->used_count;
    verify->figures->used_count += count;
    if (sink->progress != NULL &&
        before / VERIFY_PROGRESS_PAGES != verify->figures->used_count / VERIFY_PROGRESS_PAGES) {
        /* A damaged count of pages may be less than there are. */
        uint64_t done = verify->figures->used_count;
        sink->progress(sink->context, done < verify->page_count ? done : verify->page_count,
                       verify->page_count);
    }
}

static size_t verify_node_count(const uint8_t *page)
{
    return (bytes_get_le16(page + 12) - VERIFY_HEADER_SIZE) / 2U;
}

/* The page is the one that was asked for, of the kind that belongs there, and its bounds are in it.
 */
static bool verify_check_header(struct verify_tree *tree, const uint8_t *page, uint64_t number,
                                uint16_t flags)
{
    struct verify *verify = tree->verify;
    uint16_t lower = bytes_get_le16(page + 12);
    uint16_t upper = bytes_get_le16(page + 14);
    if (bytes_get_le64(page) != number) {
        verify_problem(verify, "%s: page %lu says it is page %lu", tree->name, number,
                       bytes_get_le64(page));
        return false;
    }
    if (bytes_get_le16(page + 10) != flags) {
        verify_problem(verify, "%s: page %lu is of kind %#x, not %#x", tree->name, number,
                       bytes_get_le16(page + 10), flags);
        return false;
    }
    if (lower < VERIFY_HEADER_SIZE || lower % 2 != 0 || lower > upper ||
        upper > verify->page_size) {
        verify_problem(verify, "%s: page %lu has bounds %u and %u", tree->name, number, lower,
                       upper);
        return false;
    }
    /* Only in the free list may LMDB leave a branch with one child. */
    if (verify_node_count(page) < (flags == VERIFY_BRANCH && !tree->is_free_list ? 2 : 1)) {
        verify_problem(verify, "%s: page %lu has %zu nodes", tree->name, number,
                       verify_node_count(page));
        return false;
    }
    return true;
}

static bool verify_decode_node(const struct verify_tree *tree, const uint8_t *page, size_t index,
                               struct verify_node *out)
{
    uint64_t page_size = tree->verify->page_size;
    uint64_t at = bytes_get_le16(page + VERIFY_HEADER_SIZE + 2 * index);
    if (at < bytes_get_le16(page + 14) || at + VERIFY_NODE_SIZE > page_size) {
        return false;
    }
    const uint8_t *node = page + at;
    bool is_branch = bytes_get_le16(page + 10) == VERIFY_BRANCH;
    uint64_t low = bytes_get_le32(node);
    out->flags = is_branch ? 0 : bytes_get_le16(node + 4);
    out->child = low | (uint64_t)bytes_get_le16(node + 4) << 32;
    out->size = is_branch ? 0 : low;
    out->key = span_of(node + VERIFY_NODE_SIZE, bytes_get_le16(node + 6));
    uint64_t stored = (out->flags & VERIFY_BIG_VALUE) != 0 ? 8 : out->size;
    if (at + VERIFY_NODE_SIZE + out->key.size + stored > page_size) {
        return false;
    }
    out->value = span_of(out->key.data + out->key.size, stored);
    return true;
}

/* ---- nodes ---- */

static int verify_compare(const struct verify_tree *tree, struct span a, struct span b)
{
    if (!tree->is_free_list) {
        return span_compare(a, b);
    }
    uint64_t left = bytes_get_le64(a.data);
    uint64_t right = bytes_get_le64(b.data);
    return (left > right) - (left < right);
}

/* Keys come in order; the bound in a branch is above all before it and at or below all after it. */
static bool verify_check_key(struct verify_tree *tree, struct span key, uint64_t page,
                             bool is_bound)
{
    size_t size_max = tree->is_free_list || tree->is_main ? VERIFY_KEY_MAX : STORE_KEY_MAX;
    if (key.size == 0 || key.size > size_max || (tree->is_free_list && key.size != 8)) {
        verify_problem(tree->verify, "%s: page %lu has a key of %zu bytes", tree->name, page,
                       key.size);
        return false;
    }
    if (tree->has_key) {
        int order = verify_compare(tree, span_of(tree->key, tree->key_size), key);
        if (order > 0 || (order == 0 && (is_bound || !tree->is_bound))) {
            verify_problem(tree->verify, "%s: page %lu has keys out of order", tree->name, page);
            return false;
        }
    }
    memcpy(tree->key, key.data, key.size);
    tree->key_size = key.size;
    tree->has_key = true;
    tree->is_bound = is_bound;
    return true;
}

/* Only the first of the overflow pages has a header, which may count more pages than the value
 * needs. */
static err_t verify_check_big_value(struct verify_tree *tree, const struct verify_node *node)
{
    struct verify *verify = tree->verify;
    uint64_t first = bytes_get_le64(node->value.data);
    uint64_t count = (VERIFY_HEADER_SIZE + node->size + verify->page_size - 1) / verify->page_size;
    uint8_t header[VERIFY_HEADER_SIZE];
    tree->damaged |= !verify_take(verify, first, count, tree->name);
    if (tree->damaged) {
        return NULL;
    }
    TRY(verify_read(verify, first * verify->page_size, header, sizeof header));
    uint64_t said = bytes_get_le32(header + 12);
    if (bytes_get_le64(header) != first || bytes_get_le16(header + 10) != VERIFY_OVERFLOW ||
        said < count) {
        verify_problem(verify, "%s: page %lu does not begin a value of %lu pages", tree->name,
                       first, count);
        tree->damaged = true;
        return NULL;
    }
    tree->damaged |= said > count && !verify_take(verify, first + count, said - count, tree->name);
    tree->counted.overflow_pages += said;
    verify_used(verify, said);
    return NULL;
}

static err_t verify_check_table(struct verify_tree *tree, const struct verify_node *node);
static err_t verify_check_free(struct verify_tree *tree, const struct verify_node *node);

static err_t verify_check_leaf_node(struct verify_tree *tree, const struct verify_node *node,
                                    uint64_t page)
{
    uint16_t wanted = tree->is_main ? VERIFY_SUB_TABLE : node->flags & VERIFY_BIG_VALUE;
    if (node->flags != wanted) {
        verify_problem(tree->verify, "%s: page %lu has a node of kind %#x", tree->name, page,
                       node->flags);
        tree->damaged = true;
        return NULL;
    }
    tree->counted.entries++;
    if (node->flags == VERIFY_BIG_VALUE) {
        TRY(verify_check_big_value(tree, node));
    }
    if (tree->is_main) {
        TRY(verify_check_table(tree, node));
    }
    if (tree->is_free_list && !tree->damaged) {
        TRY(verify_check_free(tree, node));
    }
    return NULL;
}

/* ---- trees ---- */

/* Goes down the tree in the order of its keys; below a damaged page nothing can be known. */
static err_t verify_walk(struct verify_tree *tree, uint64_t number, unsigned level)
{
    struct verify *verify = tree->verify;
    bool is_leaf = level + 1 == tree->db->depth;
    uint8_t *page = verify->buffers + (tree->buffer + level) * verify->page_size;
    if (!verify_take(verify, number, 1, tree->name)) {
        tree->damaged = true;
        return NULL;
    }
    TRY(verify_read(verify, number * verify->page_size, page, verify->page_size));
    if (!verify_check_header(tree, page, number, is_leaf ? VERIFY_LEAF : VERIFY_BRANCH)) {
        tree->damaged = true;
        return NULL;
    }
    verify_used(verify, 1);
    *(is_leaf ? &tree->counted.leaf_pages : &tree->counted.branch_pages) += 1;
    for (size_t i = 0; i < verify_node_count(page); i++) {
        struct verify_node node;
        if (!verify_decode_node(tree, page, i, &node)) {
            verify_problem(verify, "%s: node %zu of page %lu is outside it", tree->name, i, number);
            tree->damaged = true;
            continue;
        }
        /* The first key of a branch stands for everything below the second. */
        if ((is_leaf || i > 0) && !verify_check_key(tree, node.key, number, !is_leaf)) {
            tree->damaged = true;
        }
        if (is_leaf) {
            TRY(verify_check_leaf_node(tree, &node, number));
        } else {
            TRY(verify_walk(tree, node.child, level + 1));
        }
    }
    return NULL;
}

static void verify_check_counts(struct verify_tree *tree)
{
    const struct {
        const char *what;
        uint64_t counted;
        uint64_t said;
    } counts[] = {
        {"branch pages", tree->counted.branch_pages, tree->db->branch_pages},
        {"leaf pages", tree->counted.leaf_pages, tree->db->leaf_pages},
        {"overflow pages", tree->counted.overflow_pages, tree->db->overflow_pages},
        {"entries", tree->counted.entries, tree->db->entries},
    };
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        if (!tree->damaged && counts[i].counted != counts[i].said) {
            verify_problem(tree->verify, "%s has %lu %s, not %lu", tree->name, counts[i].counted,
                           counts[i].what, counts[i].said);
        }
    }
}

static err_t verify_tree(struct verify_tree *tree)
{
    struct verify *verify = tree->verify;
    if (tree->db->root == VERIFY_NO_PAGE) {
        if (tree->db->entries != 0 || tree->db->depth != 0) {
            verify_problem(verify, "%s has %lu entries and no page", tree->name, tree->db->entries);
        }
        return NULL;
    }
    if (tree->db->depth == 0 || tree->db->depth > VERIFY_DEPTH_MAX) {
        verify_problem(verify, "%s has a depth of %u", tree->name, tree->db->depth);
        return NULL;
    }
    TRY(verify_walk(tree, tree->db->root, 0));
    verify_check_counts(tree);
    if (tree->damaged) {
        uint64_t said = tree->db->branch_pages + tree->db->leaf_pages;
        uint64_t read = tree->counted.branch_pages + tree->counted.leaf_pages;
        verify->figures->unread_count += said > read ? said - read : 0;
    }
    return NULL;
}

/* ---- what the two core tables hold ---- */

static const char *const verify_names[STORE_TABLE_COUNT] = {
#define TABLE(name, number, doc) [number] = #name,
#include "storage/tables.def"
};

static unsigned verify_table_number(struct span name)
{
    unsigned table = 0;
    while (table < STORE_TABLE_COUNT && !span_is(name, verify_names[table])) {
        table++;
    }
    return table;
}

static err_t verify_check_table(struct verify_tree *tree, const struct verify_node *node)
{
    unsigned table = verify_table_number(node->key);
    if (table == STORE_TABLE_COUNT || node->size != VERIFY_DB_SIZE) {
        verify_problem(tree->verify, "there is an unknown table %.*s",
                       (int)(node->key.size < 32 ? node->key.size : 32),
                       (const char *)node->key.data);
        return NULL;
    }
    struct verify_db db = verify_decode_db(node->value.data);
    if (db.flags != 0) {
        verify_problem(tree->verify, "%s has flags %#x", verify_names[table], db.flags);
        return NULL;
    }
    struct verify_tree sub = {.verify = tree->verify,
                              .name = verify_names[table],
                              .db = &db,
                              .buffer = tree->buffer + VERIFY_DEPTH_MAX};
    TRY(verify_tree(&sub));
    tree->verify->figures->entries[table] = sub.counted.entries;
    return NULL;
}

/* An entry of the free list: a count and as many page numbers, greatest first, all that one commit
 * freed. */
static err_t verify_read_free(struct verify_tree *tree, const struct verify_node *node,
                              uint8_t *out)
{
    if ((node->flags & VERIFY_BIG_VALUE) == 0) {
        memcpy(out, node->value.data, node->size);
        return NULL;
    }
    uint64_t first = bytes_get_le64(node->value.data);
    TRY(verify_read(tree->verify, first * tree->verify->page_size + VERIFY_HEADER_SIZE, out,
                    node->size));
    return NULL;
}

static err_t verify_check_free(struct verify_tree *tree, const struct verify_node *node)
{
    struct verify *verify = tree->verify;
    if (node->size < 8 || node->size % 8 != 0 || node->size > verify->file_size) {
        verify_problem(verify, "an entry of the free list has %lu bytes", node->size);
        return NULL;
    }
    uint8_t *pages = malloc(node->size);
    if (pages == NULL) {
        return ERR(MEMORY, "no memory for %lu bytes of the free list", node->size);
    }
    err_t err = verify_read_free(tree, node, pages);
    uint64_t count = bytes_get_le64(pages);
    if (err == NULL && count > node->size / 8 - 1) {
        verify_problem(verify, "an entry of the free list has %lu pages in %lu bytes", count,
                       node->size);
        count = 0;
    }
    for (uint64_t i = 1; err == NULL && i <= count; i++) {
        if (verify_take(verify, bytes_get_le64(pages + 8 * i), 1, "the free list")) {
            verify->figures->free_count++;
        }
    }
    free(pages);
    return err == NULL ? NULL : err_passed(err, __func__);
}

/* ---- the file ---- */

static bool verify_decode_meta(const uint8_t *page, struct verify_meta *out)
{
    const uint8_t *meta = page + VERIFY_HEADER_SIZE;
    if (bytes_get_le16(page + 10) != VERIFY_META || bytes_get_le32(meta) != VERIFY_MAGIC ||
        bytes_get_le32(meta + 4) != 1) {
        return false;
    }
    *out = (struct verify_meta){.free_list = verify_decode_db(meta + 24),
                                .main = verify_decode_db(meta + 24 + VERIFY_DB_SIZE),
                                .last_page = bytes_get_le64(meta + 24 + 2 * VERIFY_DB_SIZE),
                                .commit = bytes_get_le64(meta + 32 + 2 * VERIFY_DB_SIZE)};
    uint32_t size = out->free_list.pad;
    return size >= VERIFY_PAGE_SIZE_MIN && size <= VERIFY_PAGE_SIZE_MAX && (size & (size - 1)) == 0;
}

/* The page size stands in the meta page itself, so the second is looked for where the first one
 * says; if the first is gone, where the machine's page size says. */
static err_t verify_read_metas(struct verify *verify, struct verify_meta *out, bool *found)
{
    uint8_t page[VERIFY_HEADER_SIZE + VERIFY_META_SIZE];
    struct verify_meta metas[VERIFY_META_COUNT];
    bool valid[VERIFY_META_COUNT];
    uint64_t page_size = (uint64_t)sysconf(_SC_PAGESIZE);
    for (unsigned i = 0; i < VERIFY_META_COUNT; i++) {
        TRY(verify_read(verify, i * page_size, page, sizeof page));
        valid[i] = verify_decode_meta(page, &metas[i]);
        if (valid[i]) {
            page_size = metas[i].free_list.pad;
        } else {
            verify_problem(verify, "meta page %u is damaged, or this is no LMDB file", i);
        }
    }
    *found = valid[0] || valid[1];
    if (*found) {
        bool second = valid[1] && (!valid[0] || metas[1].commit > metas[0].commit);
        *out = metas[second ? 1 : 0];
    }
    return NULL;
}

static err_t verify_trees(struct verify *verify, const struct verify_meta *meta)
{
    struct verify_tree main = {
        .verify = verify, .name = "the table of tables", .db = &meta->main, .is_main = true};
    TRY(verify_tree(&main));
    struct verify_tree free_list = {
        .verify = verify, .name = "the free list", .db = &meta->free_list, .is_free_list = true};
    TRY(verify_tree(&free_list));
    if (main.counted.entries < STORE_TABLE_COUNT && !main.damaged) {
        verify_problem(verify, "there are %lu tables, not %d", main.counted.entries,
                       STORE_TABLE_COUNT);
    }
    return NULL;
}

static err_t verify_pages(struct verify *verify, const struct verify_meta *meta)
{
    struct verify_figures *figures = verify->figures;
    verify->page_size = figures->page_size = meta->free_list.pad;
    figures->commit = meta->commit;
    uint64_t in_file = verify->file_size / verify->page_size;
    if (meta->last_page >= in_file + VERIFY_UNWRITTEN_MAX || meta->last_page < 1) {
        verify_problem(verify, "the last page is said to be %lu, the file has %lu", meta->last_page,
                       in_file);
        return NULL;
    }
    verify->page_count = figures->page_count = meta->last_page + 1;
    figures->used_count = VERIFY_META_COUNT;
    verify->seen = calloc(1, verify->page_count / 8 + 1);
    verify->buffers = malloc(2 * VERIFY_DEPTH_MAX * verify->page_size);
    err_t err = NULL;
    if (verify->seen == NULL || verify->buffers == NULL) {
        err = ERR(MEMORY, "no memory to verify %lu pages", verify->page_count);
    } else {
        err = verify_trees(verify, meta);
    }
    free(verify->seen);
    free(verify->buffers);
    if (err != NULL) {
        return err_passed(err, __func__);
    }
    uint64_t known = figures->used_count + figures->free_count + figures->unread_count;
    figures->lost_count = known < figures->page_count ? figures->page_count - known : 0;
    return NULL;
}

err_t verify_file(const char *path, const struct verify_sink *sink, struct verify_figures *out)
{
    *out = (struct verify_figures){0};
    struct verify verify = {.path = path, .sink = sink, .figures = out};
    struct verify_meta meta;
    bool found;
    struct stat status;
    verify.fd = open(path, O_RDONLY | O_CLOEXEC);
    if (verify.fd < 0) {
        return errno == ENOENT ? ERR(NOT_FOUND, "there is no %s", path)
                               : ERR(IO, "open %s: %s", path, strerror(errno));
    }
    err_t err = NULL;
    if (fstat(verify.fd, &status) != 0) {
        err = ERR(IO, "stat %s: %s", path, strerror(errno));
        goto out;
    }
    verify.file_size = (uint64_t)status.st_size;
    TRY_OUT(verify_read_metas(&verify, &meta, &found));
    if (found) {
        TRY_OUT(verify_pages(&verify, &meta));
    }
out:
    close(verify.fd);
    return err;
}
