#include "broker/wire/writer.h"

#include <msgpack/pack.h>

static int writer_on_bytes(void *to, const char *data, size_t size)
{
    buf_append(to, data, size);
    return 0;
}

/* A packer holds nothing but where its bytes go, so each value has its own. */
static msgpack_packer writer_packer(struct buf *to)
{
    msgpack_packer packer;
    msgpack_packer_init(&packer, to, writer_on_bytes);
    return packer;
}

void writer_u64(struct buf *to, uint64_t value)
{
    msgpack_packer packer = writer_packer(to);
    msgpack_pack_uint64(&packer, value);
}

void writer_i64(struct buf *to, int64_t value)
{
    msgpack_packer packer = writer_packer(to);
    msgpack_pack_int64(&packer, value);
}

void writer_array(struct buf *to, uint32_t count)
{
    msgpack_packer packer = writer_packer(to);
    msgpack_pack_array(&packer, count);
}

void writer_map(struct buf *to, uint32_t count)
{
    msgpack_packer packer = writer_packer(to);
    msgpack_pack_map(&packer, count);
}

void writer_nil(struct buf *to)
{
    msgpack_packer packer = writer_packer(to);
    msgpack_pack_nil(&packer);
}

void writer_bool(struct buf *to, bool value)
{
    msgpack_packer packer = writer_packer(to);
    if (value) {
        msgpack_pack_true(&packer);
    } else {
        msgpack_pack_false(&packer);
    }
}

/* msgpack-c would cut a length to 32 bits. */
static bool writer_fits(struct buf *to, struct span value)
{
    if (value.size > UINT32_MAX) {
        to->failed = true;
        return false;
    }
    return true;
}

void writer_str(struct buf *to, struct span value)
{
    if (writer_fits(to, value)) {
        msgpack_packer packer = writer_packer(to);
        msgpack_pack_str(&packer, value.size);
        buf_append_span(to, value);
    }
}

void writer_text(struct buf *to, const char *value)
{
    writer_str(to, span_text(value));
}

void writer_bin(struct buf *to, struct span value)
{
    if (writer_fits(to, value)) {
        msgpack_packer packer = writer_packer(to);
        msgpack_pack_bin(&packer, value.size);
        buf_append_span(to, value);
    }
}
