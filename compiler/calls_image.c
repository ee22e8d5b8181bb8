/* calls_image.c - conv2d and the pools: [c, h, w] → [c', h', w']. */
#include "calls.h"

#include <math.h>

/* Places of a window along one side; false where it does not fit once. */
static bool windows(Call *c, ValueId x, int64_t size, Attr a, int64_t *out)
{
    if (size + 2 * a.pad < a.kernel) {
        elab_error(c->e, call_arg(c, "kernel").at,
                   "a kernel of %lld does not fit into %lld (of %s, pad %lld)", (long long)a.kernel,
                   (long long)(size + 2 * a.pad), show_shape(c->e, x), (long long)a.pad);
        note_value(c->e, x);
        return false;
    }
    *out = (size + 2 * a.pad - a.kernel) / a.stride + 1;
    return true;
}

static bool window_attr(Call *c, Attr *a)
{
    if (!call_int(c, "kernel", 1, MAX_DIM, &a->kernel))
        return false;
    a->stride = a->kernel;
    return (!call_has(c, "stride") || call_int(c, "stride", 1, MAX_DIM, &a->stride)) &&
           call_int(c, "pad", 0, MAX_DIM, &a->pad);
}

static bool check_groups(Call *c, ValueId x, int64_t in, int64_t out, int64_t *groups)
{
    if (!call_int(c, "groups", 1, MAX_DIM, groups))
        return false;
    if (in % *groups == 0 && out % *groups == 0)
        return true;
    elab_error(c->e, call_arg(c, "groups").at,
               "%lld groups do not divide the %lld channels that %s", (long long)*groups,
               (long long)(in % *groups ? in : out), in % *groups ? "come in" : "go out");
    note_value(c->e, x);
    return false;
}

bool call_conv2d(Call *c)
{
    ValueId in[3] = {call_float(c, "x"), NONE, NONE};
    int64_t channels;
    Attr a = {0};
    if (in[0] == NONE || !call_rank(c, in[0], 3, true, "[channels, height, width]") ||
        !call_int(c, "channels", 1, MAX_DIM, &channels) || !window_attr(c, &a))
        return false;
    Shape x = value_shape(c, in[0]), y = shape_of(3, channels, 0, 0, 0);
    if (!check_groups(c, in[0], x.dim[0], channels, &a.groups) ||
        !windows(c, in[0], x.dim[1], a, &y.dim[1]) || !windows(c, in[0], x.dim[2], a, &y.dim[2]))
        return false;
    bool bias = call_bool(c, "bias");
    if (!call_name_layer(c, bias || !call_has(c, "weight") ? NAME_OWNER : NAME_SOFT))
        return false;
    int64_t group_in = x.dim[0] / a.groups;
    double fan_in = (double)group_in * (double)a.kernel * (double)a.kernel;
    Weight init = {.init = INIT_UNIFORM, .init_value = 1 / sqrt(fan_in)};
    in[1] = call_main_weight(c, shape_of(4, channels, group_in, a.kernel, a.kernel), false, init);
    if (bias && in[1] != NONE)
        in[2] = call_weight(c, "bias", shape_of(1, channels, 0, 0, 0), init);
    if (in[1] == NONE || (bias && in[2] == NONE))
        return false;
    Op op = elab_op(c->e, OP_CONV2D, c->at, c->layer);
    op.attr = a;
    return call_emit(c, op, in, 3, DT_F32, y);
}

static bool pool(Call *c)
{
    ValueId x = call_float(c, "x");
    Attr a = {0};
    if (x == NONE || !call_rank(c, x, 3, true, "[channels, height, width]") || !window_attr(c, &a))
        return false;
    if (a.pad > a.kernel / 2) {
        elab_error(c->e, call_arg(c, "pad").at, "pad of %s is at most half the kernel, %lld",
                   c->name, (long long)(a.kernel / 2));
        return false;
    }
    Shape s = value_shape(c, x), y = s;
    if (!windows(c, x, s.dim[1], a, &y.dim[1]) || !windows(c, x, s.dim[2], a, &y.dim[2]) ||
        !call_name_layer(c, NAME_PLAIN))
        return false;
    Op op = elab_op(c->e, c->kind, c->at, c->layer);
    op.attr = a;
    return call_emit(c, op, &x, 1, DT_F32, y);
}

bool call_maxpool2d(Call *c)
{
    return pool(c);
}

bool call_avgpool2d(Call *c)
{
    return pool(c);
}
