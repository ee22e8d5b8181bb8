/* dot.c - a plan as a Graphviz graph: devices as clusters, their layers in order, and what
 * goes from one to another.
 *
 * Repeated layers are one node. Activations are solid lines, gradients dashed, the weights and
 * gradients of tied layers dotted; each is labelled with its name, shape and bytes. */
#include <string.h>

#include "plan.h"

typedef struct {
    const Plan *plan;
    int *from, *to; /* [links]: runs of their chunks; NONE */
} Ends;

/* An activation comes to the first layer that uses it, a gradient to the last. */
static int first_met(LinkKind kind, int known, int run)
{
    if (known == NONE || run == NONE)
        return known == NONE ? run : known;
    return (kind == LINK_GRADIENT) == (run > known) ? run : known;
}

/* Which layers make and first use what the links carry. */
static Ends find_ends(const Plan *plan)
{
    const Program *p = plan->p;
    const Graph *g = p->graph;
    Arena *a = plan->arena;
    int *head = ARENA_ARRAY(a, int, g->values.n + 1), *next = ARENA_ARRAY(a, int, p->links.n);
    Ends e = {plan, ARENA_ARRAY(a, int, p->links.n), ARENA_ARRAY(a, int, p->links.n)};
    for (int v = 0; v < g->values.n; v++)
        head[v] = NONE;
    for (int l = 0; l < p->links.n; l++) {
        ValueId v = p->links.at[l].value;
        e.from[l] = e.to[l] = next[l] = NONE;
        if (v == NONE || p->links.at[l].from_chunk == NONE)
            continue;
        next[l] = head[v];
        head[v] = l;
        OpId def = g->values.at[v].def;
        if (def != NONE && g->ops.at[def].forward != NONE)
            def = g->ops.at[def].forward;
        if (def != NONE && plan->layers.chunk_of[def] == p->links.at[l].from_chunk)
            e.from[l] = plan->layers.run_of[def];
    }
    for (OpId o = 0; o < g->ops.n; o++) {
        const Op *op = &g->ops.at[o];
        OpId forward = op->forward == NONE ? o : op->forward;
        for (int i = 0; i < op->nin; i++)
            for (int l = op->in[i] == NONE ? NONE : head[op->in[i]]; l != NONE; l = next[l])
                if (plan->layers.chunk_of[forward] == p->links.at[l].to_chunk)
                    e.to[l] = first_met(p->links.at[l].kind, e.to[l], plan->layers.run_of[forward]);
    }
    return e;
}

static void add_chunk(const Plan *plan, Text *out, int chunk)
{
    Arena *a = plan->arena;
    const LayerRuns *runs = &plan->layers.runs[chunk];
    if (runs->n == 0)
        text_printf(out, "        c%d_0 [label=\"chunk %d\"];\n", chunk, chunk);
    for (int r = 0; r < runs->n; r++) {
        const LayerRun *x = &runs->at[r];
        const char *label = x->count == 1 ? x->first
                                          : arena_printf(a, "%s \xE2\x80\xA6 %s  \xC3\x97%d",
                                                         x->first, x->last, x->count);
        text_printf(out, "        c%d_%d [label=%s%s];\n", chunk, r, dot_quote(a, label),
                    x->count > 1 ? ", peripheries=2" : "");
    }
    for (int r = 1; r < runs->n; r++)
        text_printf(out, "        c%d_%d -> c%d_%d [color=\"#868e96\"];\n", chunk, r - 1, chunk, r);
}

static void add_device(const Plan *plan, Text *out, int d)
{
    Arena *a = plan->arena;
    const Device *dev = &plan->p->devices.at[d];
    const char *label =
        arena_printf(a, "%s   %s parameters, %s", dev->name,
                     show_count(a, plan->stages[d].parameters), show_bytes(a, dev->bytes));
    text_printf(out, "    subgraph cluster_%d {\n", d);
    text_printf(out,
                "        label=%s; style=\"rounded,filled\"; color=\"#ced4da\"; "
                "fillcolor=\"#f8f9fa\";\n",
                dot_quote(a, label));
    for (int c = 0; c < dev->chunks.n; c++)
        add_chunk(plan, out, dev->chunks.at[c]);
    text_add(out, "    }\n");
}

static int first_chunk(const Plan *plan, int device)
{
    const Device *d = &plan->p->devices.at[device];
    return d->chunks.n ? d->chunks.at[0] : 0;
}

static void add_link(const Ends *e, Text *out, int l)
{
    const Plan *plan = e->plan;
    const Link *k = &plan->p->links.at[l];
    Arena *a = plan->arena;
    bool whole = k->from_chunk == NONE || k->to_chunk == NONE; /* of weights: device to device */
    int from = whole ? first_chunk(plan, k->from) : k->from_chunk;
    int to = whole ? first_chunk(plan, k->to) : k->to_chunk;
    int last = plan->layers.runs[from].n - 1;
    bool gradient = k->kind == LINK_GRADIENT || k->kind == LINK_WEIGHT_GRADIENT;
    int at = e->from[l] != NONE ? e->from[l] : gradient || last < 0 ? 0 : last;
    int end = e->to[l] == NONE ? 0 : e->to[l];
    text_printf(out, "    c%d_%d -> c%d_%d [label=%s", from, at, to, end,
                dot_quote(a, plan_link_name(a, k)));
    out->n--; /* the shape and the bytes belong to the same label: \n is Graphviz's own */
    text_printf(out, "\\n%s\\n%s\"", k->value == NONE ? "" : plan_shape(a, plan->p, k->value),
                show_bytes(a, k->bytes));
    const char *style = whole      ? "style=dotted, constraint=false, color=\"#868e96\""
                        : gradient ? "style=dashed, constraint=false, color=\"#c2570c\""
                                   : "color=\"#1f6fb2\"";
    text_printf(out, ", %s];\n", style);
}

void plan_dot(const Plan *plan, Text *out)
{
    const Program *p = plan->p;
    Arena *a = plan->arena;
    text_printf(out, "digraph %s {\n", dot_quote(a, p->model->name));
    text_add(out, "    rankdir=TB; compound=true; fontname=\"Helvetica\"; fontsize=12;\n"
                  "    node [shape=box, style=\"rounded,filled\", fillcolor=white, "
                  "fontname=\"Helvetica\", fontsize=11];\n"
                  "    edge [fontname=\"Helvetica\", fontsize=9];\n");
    for (int d = 0; d < p->devices.n; d++)
        add_device(plan, out, d);
    Ends e = find_ends(plan);
    for (int l = 0; l < p->links.n; l++)
        add_link(&e, out, l);
    text_add(out, "}\n");
}
