/* attention.c - scaled dot-product attention: what is called, for each format of tensors. */
#include "attention_shape.h"

void attention_forward(Team *team, real *o, real *lse, const real *q, const real *k, const real *v,
                       const Attention *a)
{
    attention_forward_of(team, TILE_REAL, o, lse, q, k, v, a);
}

void attention_backward(Team *team, real *dq, real *dk, real *dv, const real *dout, const real *q,
                        const real *k, const real *v, const real *o, const real *lse,
                        const Attention *a)
{
    attention_backward_of(team, TILE_REAL, dq, dk, dv, dout, q, k, v, o, lse, a);
}

#ifndef MDL_F64
#include "half.h"

static TileFormat format_of(HalfKind kind)
{
    return kind == HALF_BF16 ? TILE_BF16 : TILE_F16;
}

void attention_forward_half(Team *team, HalfKind kind, half16 *o, float *lse, const half16 *q,
                            const half16 *k, const half16 *v, const Attention *a)
{
    attention_forward_of(team, format_of(kind), o, lse, q, k, v, a);
}

void attention_backward_half(Team *team, HalfKind kind, half16 *dq, half16 *dk, half16 *dv,
                             const half16 *dout, const half16 *q, const half16 *k, const half16 *v,
                             const half16 *o, const float *lse, const Attention *a)
{
    attention_backward_of(team, format_of(kind), dq, dk, dv, dout, q, k, v, o, lse, a);
}
#endif
