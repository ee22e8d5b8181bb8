/* calls_weights.c - the weights that calls own: their names, shapes and first values.
 *
 * Defaults are those of PyTorch's layers. kaiming_uniform and xavier_uniform become a limit
 * as soon as the shape is known: fan_in and fan_out are as torch.nn.init counts them. */
#include "calls.h"

#include <math.h>
#include <string.h>

Shape shape_of(int rank, int64_t a, int64_t b, int64_t c, int64_t d)
{
    return (Shape){.rank = rank, .dim = {a, b, c, d}};
}

bool call_name_layer(Call *c, Naming naming)
{
    if (naming == NAME_PLAIN && !c->expr->call.as)
        return true;
    c->layer = layer_claim(c->e, c->expr, c->hint, c->name, naming);
    return c->layer != NULL;
}

ValueId call_weight(Call *c, const char *name, Shape shape, Weight init)
{
    Elab *e = c->e;
    if (!elab_check_shape(e, c->at, &shape))
        return NONE;
    Weight w = {.name = layer_weight_name(e, c->layer, name),
                .shape = shape,
                .init = init.init,
                .init_value = init.init_value,
                .frozen = e->frozen,
                .device = NONE,
                .frame = e->frame,
                .at = c->at};
    WeightId id = graph_add_weight(e->graph, w);
    ValueId v = e->graph->weights.at[id].value;
    layer_add_param(e, c->layer, name, v, c->at);
    return v;
}

/* ---- initial values ---- */

static bool fans(Shape shape, bool transposed, double *in, double *out)
{
    if (shape.rank < 2)
        return false;
    double rest = 1;
    for (int i = 2; i < shape.rank; i++)
        rest *= (double)shape.dim[i];
    *in = (double)shape.dim[transposed ? 0 : 1] * rest;
    *out = (double)shape.dim[transposed ? 1 : 0] * rest;
    return true;
}

bool initial_apply(Elab *e, Term init, Shape shape, bool transposed, Weight *w)
{
    double value = init.init.value, in = 1, out = 1;
    switch (init.init.rule) {
    case RULE_NORMAL:
        w->init = INIT_NORMAL;
        break;
    case RULE_UNIFORM:
        w->init = INIT_UNIFORM;
        break;
    case RULE_CONSTANT:
        w->init = INIT_CONSTANT;
        break;
    case RULE_KAIMING:
    case RULE_XAVIER:
        w->init = INIT_UNIFORM;
        if (!fans(shape, transposed, &in, &out)) {
            elab_error(e, init.at, "%s needs a weight of at least two dimensions, not %s",
                       init.init.rule == RULE_KAIMING ? "kaiming_uniform" : "xavier_uniform",
                       shape_show(e->arena, DT_F32, &shape));
            return false;
        }
        value = init.init.rule == RULE_KAIMING ? sqrt(6 / in) : value * sqrt(6 / (in + out));
        break;
    }
    w->init_value = value;
    return true;
}

static const struct {
    const char *name, *signature;
    InitRule rule;
} initial_rows[] = {{"normal", "std: real", RULE_NORMAL},
                    {"uniform", "limit: real", RULE_UNIFORM},
                    {"constant", "v: real", RULE_CONSTANT},
                    {"zeros", "", RULE_CONSTANT},
                    {"ones", "", RULE_CONSTANT},
                    {"kaiming_uniform", "", RULE_KAIMING},
                    {"xavier_uniform", "gain: real = 1", RULE_XAVIER}};

enum { NINITIAL = sizeof initial_rows / sizeof *initial_rows };

static int initial_find(const char *name)
{
    for (int i = 0; i < NINITIAL; i++)
        if (!strcmp(initial_rows[i].name, name))
            return i;
    return -1;
}

bool initial_is_call(const char *name)
{
    return initial_find(name) >= 0;
}

Term initial_call(Elab *e, const Expr *x)
{
    int row = initial_find(x->call.callee.text);
    Signature sig;
    Term arg[MATCH_MAX_PARAMS];
    signature_parse(e->arena, &sig, initial_rows[row].name, initial_rows[row].signature);
    if (!match_args(e, &sig, x, arg, NULL, NULL))
        return term_error(x->at);
    Term t = {.kind = TERM_INIT, .at = x->at};
    t.init.rule = initial_rows[row].rule;
    t.init.value = sig.n ? arg[0].real : !strcmp(sig.name, "ones");
    if (t.init.rule != RULE_CONSTANT && t.init.value < 0) {
        elab_error(e, arg[0].at, "%s of %s must not be negative", sig.param[0].name, sig.name);
        return term_error(x->at);
    }
    return t;
}

/* ---- the main weight ---- */

static ValueId tied_weight(Call *c, Shape shape)
{
    Elab *e = c->e;
    Term tied = call_arg(c, "weight");
    Value v = e->graph->values.at[tied.tensor];
    if (call_has(c, "init")) {
        elab_error(e, call_arg(c, "init").at,
                   "init has no use: the weight is that of another layer");
        return NONE;
    }
    if (!shape_equal(&v.shape, &shape)) {
        elab_error(e, tied.at, "%s needs a weight %s here, but %s is %s", c->name,
                   shape_show(e->arena, DT_F32, &shape), v.name,
                   shape_show(e->arena, DT_F32, &v.shape));
        elab_note(e, v.at, "%s is made here", v.name);
        if (v.shape.rank == 2 && shape.rank == 2 && v.shape.dim[0] == shape.dim[1] &&
            v.shape.dim[1] == shape.dim[0] && !strcmp(c->name, "linear"))
            elab_help(e, "transposed = %s uses it the other way round",
                      call_bool(c, "transposed") ? "false" : "true");
        return NONE;
    }
    layer_add_param(e, c->layer, "weight", tied.tensor, c->at);
    return tied.tensor;
}

ValueId call_main_weight(Call *c, Shape shape, bool transposed, Weight init)
{
    if (call_has(c, "weight"))
        return tied_weight(c, shape);
    if (call_has(c, "init") && !initial_apply(c->e, call_arg(c, "init"), shape, transposed, &init))
        return NONE;
    return call_weight(c, "weight", shape, init);
}
