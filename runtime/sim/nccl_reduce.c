/* nccl_reduce.c - reductions: n arrays of elements in, one out.
 *
 * Element i of the result is from[0][i], combined with from[1][i], from[2][i], ... in this
 * order. Floats of 16 and 32 bits are combined in float, doubles in double, integers in their
 * own type, where sums wrap around. The average is the sum divided by n. Of a number and a NaN
 * the number is the larger and the smaller.
 */
#include "half_numbers.h"
#include "nccl_world.h"

enum { BLOCK = 1024 };

/* A NaN gives way to a number. */
#define KEPT(sum, better, more) ((sum)better(more) || (more) != (more))

/* `modular` is what sums and products are made in: for integers, where they may wrap around. */
#define COMBINE(type, wide, modular)                                                               \
    static void combine_##type(ncclRedOp_t op, wide *sum, const wide *more, size_t n)              \
    {                                                                                              \
        switch (op) {                                                                              \
        case ncclProd:                                                                             \
            for (size_t i = 0; i < n; i++)                                                         \
                sum[i] = (wide)((modular)sum[i] * (modular)more[i]);                               \
            break;                                                                                 \
        case ncclMax:                                                                              \
            for (size_t i = 0; i < n; i++)                                                         \
                sum[i] = KEPT(sum[i], >, more[i]) ? sum[i] : more[i];                              \
            break;                                                                                 \
        case ncclMin:                                                                              \
            for (size_t i = 0; i < n; i++)                                                         \
                sum[i] = KEPT(sum[i], <, more[i]) ? sum[i] : more[i];                              \
            break;                                                                                 \
        default:                                                                                   \
            for (size_t i = 0; i < n; i++)                                                         \
                sum[i] = (wide)((modular)sum[i] + (modular)more[i]);                               \
        }                                                                                          \
    }

#define REDUCE(name, type, wide, modular, LOAD, STORE)                                             \
    COMBINE(name, wide, modular)                                                                   \
    static void reduce_##name(ncclRedOp_t op, int n, const void *const *from, size_t count,        \
                              void *out)                                                           \
    {                                                                                              \
        wide sum[BLOCK], more[BLOCK];                                                              \
        type *to = out;                                                                            \
        for (size_t at = 0; at < count; at += BLOCK) {                                             \
            size_t length = count - at < BLOCK ? count - at : BLOCK;                               \
            for (int r = 0; r < n; r++) {                                                          \
                const type *source = (const type *)from[r] + at;                                   \
                wide *into = r == 0 ? sum : more;                                                  \
                for (size_t i = 0; i < length; i++)                                                \
                    into[i] = LOAD(source[i]);                                                     \
                if (r > 0)                                                                         \
                    combine_##name(op, sum, more, length);                                         \
            }                                                                                      \
            for (size_t i = 0; i < length; i++)                                                    \
                to[at + i] = (type)STORE(op == ncclAvg ? (wide)(sum[i] / (wide)n) : sum[i]);       \
        }                                                                                          \
    }

#define AS_IT_IS(x) (x)

REDUCE(int8, int8_t, int8_t, uint32_t, AS_IT_IS, AS_IT_IS)
REDUCE(uint8, uint8_t, uint8_t, uint32_t, AS_IT_IS, AS_IT_IS)
REDUCE(int32, int32_t, int32_t, uint32_t, AS_IT_IS, AS_IT_IS)
REDUCE(uint32, uint32_t, uint32_t, uint32_t, AS_IT_IS, AS_IT_IS)
REDUCE(int64, int64_t, int64_t, uint64_t, AS_IT_IS, AS_IT_IS)
REDUCE(uint64, uint64_t, uint64_t, uint64_t, AS_IT_IS, AS_IT_IS)
REDUCE(half, uint16_t, float, float, float_of_half, half_of_float)
REDUCE(bfloat, uint16_t, float, float, float_of_bfloat, bfloat_of_float)
REDUCE(float, float, float, float, AS_IT_IS, AS_IT_IS)
REDUCE(double, double, double, double, AS_IT_IS, AS_IT_IS)

void nccl_reduce(ncclDataType_t type, ncclRedOp_t op, int n, const void *const *from, size_t count,
                 void *to)
{
    switch (type) {
    case ncclInt8:
        reduce_int8(op, n, from, count, to);
        break;
    case ncclUint8:
        reduce_uint8(op, n, from, count, to);
        break;
    case ncclInt32:
        reduce_int32(op, n, from, count, to);
        break;
    case ncclUint32:
        reduce_uint32(op, n, from, count, to);
        break;
    case ncclInt64:
        reduce_int64(op, n, from, count, to);
        break;
    case ncclUint64:
        reduce_uint64(op, n, from, count, to);
        break;
    case ncclFloat16:
        reduce_half(op, n, from, count, to);
        break;
    case ncclBfloat16:
        reduce_bfloat(op, n, from, count, to);
        break;
    case ncclFloat32:
        reduce_float(op, n, from, count, to);
        break;
    case ncclFloat64:
        reduce_double(op, n, from, count, to);
        break;
    default: /* 8-bit floats are refused at the call */
        break;
    }
}
