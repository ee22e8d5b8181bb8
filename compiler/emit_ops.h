/* emit_ops.h - what emit_ops.c and emit_tensors.c share: a rule for every operation, and the
 * arguments that most of them have.
 *
 * Weights' gradients are summed over the micro-batches in place: the first one writes
 * (accumulate is `m > 0`). */
#ifndef MDLC_EMIT_OPS_H
#define MDLC_EMIT_OPS_H

#include "emit_map.h"

typedef void EmitRule(Emit *e, const Call *c, const Op *op);

#define OP(ID, name, sig) EmitRule spell_##name;
#define PART(ID, name) EmitRule spell_##name;
#define INNER(ID, name) EmitRule spell_##name;
#include "ops.def"

static inline const Value *value(const Emit *e, const Ref *r)
{
    return &e->p->graph->values.at[r->value];
}

static inline const Shape *shape(const Emit *e, const Ref *r)
{
    return &value(e, r)->shape;
}

static inline int64_t last(const Shape *s)
{
    return s->rank ? s->dim[s->rank - 1] : 1;
}

/* Rows of [rows, last dimension]. */
static inline void arg_rows(Emit *e, const Ref *r)
{
    int64_t n = last(shape(e, r));
    emit_arg_count(e, value(e, r)->batched, n ? shape_count(shape(e, r)) / n : 0);
}

static inline void arg_elements(Emit *e, const Ref *r)
{
    emit_arg_count(e, value(e, r)->batched, shape_count(shape(e, r)));
}

static inline void arg_int(Emit *e, int64_t n)
{
    emit_arg(e, "%lld", (long long)n);
}

static inline void arg_bool(Emit *e, bool b)
{
    emit_arg(e, "%s", b ? "true" : "false");
}

static inline bool is_grad(const Emit *e, const Ref *r)
{
    return r->buffer != NONE && e->d->buffers.at[r->buffer].class == BUFFER_GRAD;
}

static inline void arg_accumulate(Emit *e, const Ref *r)
{
    if (is_grad(e, r)) {
        e->used_m = true;
        emit_arg(e, "m > 0");
    } else {
        emit_arg(e, "false");
    }
}

static inline bool is_half(const Emit *e, const Ref *r)
{
    return dtype_is_half(value(e, r)->type);
}

/* name(s->team, refs…, or name_half(s->team, HALF_BF16, refs… where `like` has 16 bits */
static inline void begin(Emit *e, const Ref *like, const char *name, int n, const Ref *const *refs)
{
    const bool half = like && is_half(e, like);
    emit_kernel(e, half ? arena_printf(e->arena, "%s_half", name) : name);
    if (half)
        emit_arg(e, "%s", emit_half_kind(value(e, like)->type));
    for (int i = 0; i < n; i++)
        emit_arg_ref(e, refs[i]);
}
#define BEGIN(name, ...) BEGIN_LIKE(NULL, name, __VA_ARGS__)
#define BEGIN_LIKE(like, name, ...)                                                                \
    begin(e, like, name, (int)(sizeof((const Ref *[]){__VA_ARGS__}) / sizeof(Ref *)),              \
          (const Ref *const[]){__VA_ARGS__})
#define IN(i) (&c->in[i])
#define OUT(i) (&c->out[i])
#define END() emit_kernel_end(e)

/* Of a call that may have a tail: the kernel's name, the result it computes into, and its end;
 * kernels of 16 bits always take a tail. On GPUs the tail is a kernel after it. */
static inline const char *then(const Emit *e, const Op *op, const Ref *like, const char *name)
{
    const bool tail = has_tail(op) && !e->gpu && !is_half(e, like);
    return tail ? arena_printf(e->arena, "%s_then", name) : name;
}
#define OWN_RESULT (&c->out[has_tail(op) ? tail_result(op) : 0])
#define BEGIN_THEN(like, name, ...)                                                                \
    BEGIN_LIKE(like, then(e, op, like, name), OWN_RESULT, __VA_ARGS__)
static inline void end_then(Emit *e, const Call *c, const Op *op, const Ref *like)
{
    if (has_tail(op) && !e->gpu)
        emit_tail(e, c);
    else if (is_half(e, like) && !e->gpu)
        emit_arg(e, "NULL");
    emit_kernel_end(e);
    if (has_tail(op) && e->gpu) {
        Call map = map_call(e, c);
        emit_fused_call(e, &map);
    }
}

#endif
