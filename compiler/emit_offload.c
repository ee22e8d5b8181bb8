/* emit_offload.c - the copies of what is offloaded: a function for each chunk and direction.
 *
 * In:  Device.offloads.
 * Out: copy_out(s, m) and copy_in(s, m). On a GPU copies are asynchronous, each direction on a
 *      stream of its own; on the host they are done where they stand. */
#include "emit.h"

const char *emit_copy_function(Emit *e, bool in, int chunk)
{
    const char *verb = in ? "copy_in" : "copy_out";
    return e->d->chunks.n == 1 ? verb : arena_printf(e->arena, "%s_%d", verb, chunk);
}

/* Tensors of a loop one behind the other at once, but not what lies between them. */
static void print_copy(Emit *e, const Offload *o, bool in)
{
    const Buffer *b = &e->d->buffers.at[o->buffer];
    const bool apart = b->ring > 1 && b->size < b->stride;
    const char *i = apart ? "i" : "0";
    const char *to = emit_buffer_member(e, in ? o->back : o->host, "m", i);
    const char *from = emit_buffer_member(e, in ? o->host : o->buffer, "m", i);
    e->used_m = e->used_m || e->d->buffers.at[o->buffer].slots > 1 ||
                e->d->buffers.at[o->host].slots > 1 || e->d->buffers.at[o->back].slots > 1;
    if (apart) {
        emit_line(e, "for (int i = 0; i < %d; i++)", b->ring);
        e->indent++;
    }
    emit_call(e, e->gpu ? "cudaMemcpyAsync" : "memcpy");
    emit_arg(e, "%s", to);
    emit_arg(e, "%s", from);
    emit_arg(e, "%lld", (long long)(apart ? b->size : b->stride * (b->ring - 1) + b->size));
    if (e->gpu) {
        emit_arg(e, in ? "cudaMemcpyHostToDevice" : "cudaMemcpyDeviceToHost");
        emit_arg(e, in ? "s->copy_in" : "s->copy_out");
    }
    emit_end(e, e->gpu ? "CUDA(" : "", e->gpu ? ");" : ";");
    e->indent -= apart;
}

static void print_function(Emit *e, bool in, int chunk)
{
    Text *before = e->out, body = {.arena = e->arena};
    text_add(&body, "");
    e->out = &body;
    e->indent = 1;
    e->used_m = false;
    for (int i = 0; i < e->d->offloads.n; i++)
        if (e->d->offloads.at[i].chunk == chunk)
            print_copy(e, &e->d->offloads.at[i], in);
    e->out = before;
    e->indent = 0;
    emit_open(e, "static int %s(Stage *s, int m)", emit_copy_function(e, in, chunk));
    if (!e->used_m)
        emit_line(e, "(void)m;");
    text_add(e->out, body.at);
    emit_line(e, "return MDL_OK;");
    emit_close(e);
    emit_blank(e);
}

void emit_copies(Emit *e)
{
    int last = NONE;
    for (int i = 0; i < e->d->offloads.n; i++) {
        const int chunk = e->d->offloads.at[i].chunk;
        if (chunk == last)
            continue;
        last = chunk;
        emit_line(
            e, "/* What %s keeps of a micro-batch: to the host, and back for the backward pass. */",
            e->d->chunks.n == 1 ? "the stage" : arena_printf(e->arena, "chunk %d", chunk));
        print_function(e, false, chunk);
        print_function(e, true, chunk);
    }
}
