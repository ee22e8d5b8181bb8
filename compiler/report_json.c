/* report_json.c - a plan for programs to read. Keys are stable; later versions may add some.
 *
 *     model, source             name; file as given
 *     schedule                  "1f1b"; "from FILE" where one says what runs
 *     batch, microbatch, microbatches
 *     stages[]                  one per device:
 *       stage, device, layers   number; "gpu[0]"; "wte ... h.2"
 *       chunks[]                numbers into `chunks`
 *       parameters, copies      elements owned; elements of tied weights owned elsewhere
 *       forward_flops, backward_flops, sent_bytes, received_bytes     of one step
 *       memory                  bytes: weights, gradients, optimizer, kept, scratch, total,
 *                               limit (null: none); host: not of the device, what is kept
 *                               there
 *       in_flight               most micro-batches between their F and their B
 *       busy_seconds, idle      estimated; share of the step
 *       gpu                     where stages are for GPUs, of one step: kernels (launches),
 *                               products (calls of cuBLAS and cuBLASLt), copies (of samples,
 *                               losses, contiguous tensors), moved_bytes (each pass of a kernel
 *                               over a tensor once), least_bytes (every operand of every call
 *                               once), gemms[] of {op, by ("cuBLAS", "cuBLASLt", "kernel"), m,
 *                               n, k, batch, calls, flops (of all calls)}
 *       buffers[]               name, class, gradient, count, ring, slots, bytes (of all),
 *                               offset, shape (of one; null: of no value)
 *     chunks[]                  chunk, stage, layers[] of {first, last, count}, and for each
 *                               phase it has (F E B I W) {flops, seconds} of a micro-batch
 *     links[]                   name, kind ("activation", "gradient", "weight_gradient",
 *                               "weight"), from, to (stages), shape, bytes (of a message),
 *                               messages (of a step), seconds (of a message)
 *     messages[]                where stages are for GPUs: {from, to, count, bytes} of one step,
 *                               for each direction
 *     transfer                  where stages are for GPUs: "peer" or "nccl"
 *     order[][]                 the runs of each stage, "0F0": chunk, phase, micro-batch
 *     step_seconds              estimated: from the beginning of a step to that of the next
 *     length_seconds            estimated: from the first run of a step to the last, on all devices
 *     recompute                 where layers may run again: setting ("full", "auto"), layers
 *                               (there are), whole (of them run again), cheap (run again but
 *                               for products and attention)
 *     samples_per_second        estimated; null where a step takes no time
 *     bubble                    from_estimated_times, from_unit_times: idle time of the devices
 *                               over devices times step time; formula: such as (p-1)/(m+p-1)
 *                               where that is the bubble of the unit times, else null
 *     rates                     compute (FLOP/s), bandwidth, link (bytes/s), latency (s): each
 *                               {value, default}; default: the devices item says no other;
 *                               device: of the catalogue, whose the defaults are; null: a core
 *     profile                   only with measured times: the file that they come from
 *     proved[]                  what the verifier has shown
 */
#include <jansson.h>
#include <stdlib.h>

#include "plan.h"
#include "profile.h"

static json_t *text(const Plan *plan, const char *s)
{
    return json_string(svg_escape_plain(plan->arena, s));
}

static json_t *buffers(const Plan *plan, const Device *d)
{
    json_t *list = json_array();
    for (int i = 0; i < d->buffers.n; i++) {
        const Buffer *b = &d->buffers.at[i];
        json_t *shape =
            b->value == NONE ? json_null() : text(plan, plan_shape(plan->arena, plan->p, b->value));
        json_array_append_new(
            list, json_pack("{s:o, s:s, s:b, s:i, s:i, s:i, s:I, s:I, s:o}", "name",
                            text(plan, b->name), "class", buffer_class_name(b->class), "gradient",
                            b->gradient || b->class == BUFFER_GRAD, "count", b->count, "ring",
                            b->ring, "slots", b->slots, "bytes", (json_int_t)buffer_bytes(b),
                            "offset", (json_int_t)b->offset, "shape", shape));
    }
    return list;
}

static json_t *memory(const Plan *plan, const Device *d)
{
    int64_t limit = plan->p->model->settings.devices.memory;
    json_t *o = json_object();
    for (int c = 0; c < BUFFER_CLASSES; c++)
        json_object_set_new(o, buffer_class_name((BufferClass)c), json_integer(d->class_bytes[c]));
    json_object_set_new(o, "total", json_integer(d->bytes));
    json_object_set_new(o, "limit", limit ? json_integer(limit) : json_null());
    return o;
}

static json_t *gpu_work(const GpuWork *w)
{
    json_t *gemms = json_array();
    for (int i = 0; i < w->gemms.n; i++) {
        const GpuGemm *g = &w->gemms.at[i];
        json_array_append_new(
            gemms, json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:f}", "op", op_name(g->op), "by",
                             cost_gpu_gemm_by(g->by), "m", (json_int_t)g->m, "n", (json_int_t)g->n,
                             "k", (json_int_t)g->k, "batch", (json_int_t)g->batch, "calls",
                             (json_int_t)g->calls, "flops", cost_gpu_gemm_flops(g)));
    }
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:o}", "kernels", (json_int_t)w->kernels,
                     "products", (json_int_t)w->products, "copies", (json_int_t)w->copies,
                     "moved_bytes", (json_int_t)cost_gpu_bytes(w->moved), "least_bytes",
                     (json_int_t)cost_gpu_bytes(w->least), "gemms", gemms);
}

static json_t *stage(const Plan *plan, int i)
{
    const Device *d = &plan->p->devices.at[i];
    const StageFacts *s = &plan->stages[i];
    const DeviceTime *time = &plan->seconds->devices[i];
    double step = plan->seconds->period;
    json_t *chunks = json_array();
    for (int c = 0; c < d->chunks.n; c++)
        json_array_append_new(chunks, json_integer(d->chunks.at[c]));
    json_t *o =
        json_pack("{s:i, s:o, s:o, s:o, s:I, s:I, s:f, s:f, s:I, s:I, s:o, s:i, s:f, s:f, s:o}",
                  "stage", i, "device", text(plan, d->name), "layers", text(plan, s->layers),
                  "chunks", chunks, "parameters", (json_int_t)s->parameters, "copies",
                  (json_int_t)s->copies, "forward_flops", s->forward, "backward_flops", s->backward,
                  "sent_bytes", (json_int_t)s->sent, "received_bytes", (json_int_t)s->received,
                  "memory", memory(plan, d), "in_flight", d->in_flight, "busy_seconds", time->busy,
                  "idle", step > 0 ? 1 - time->busy / step : 0.0, "buffers", buffers(plan, d));
    if (plan->gpu)
        json_object_set_new(o, "gpu", gpu_work(&plan->gpu[i]));
    return o;
}

static json_t *chunk(const Plan *plan, int i)
{
    const Chunk *c = &plan->p->chunks.at[i];
    const LayerRuns *runs = &plan->layers.runs[i];
    json_t *layers = json_array();
    for (int r = 0; r < runs->n; r++)
        json_array_append_new(
            layers, json_pack("{s:o, s:o, s:i}", "first", text(plan, runs->at[r].first), "last",
                              text(plan, runs->at[r].last), "count", runs->at[r].count));
    json_t *o = json_pack("{s:i, s:i, s:o}", "chunk", i, "stage", c->device, "layers", layers);
    for (int k = 0; k < RUN_KINDS; k++)
        if (c->has[k])
            json_object_set_new(
                o, run_name((RunKind)k),
                json_pack("{s:f, s:f}", "flops", c->flops[k], "seconds", c->seconds[k]));
    return o;
}

static json_t *link_object(const Plan *plan, int i)
{
    const Link *l = &plan->p->links.at[i];
    json_t *shape =
        l->value == NONE ? json_null() : text(plan, plan_shape(plan->arena, plan->p, l->value));
    return json_pack("{s:o, s:s, s:i, s:i, s:o, s:I, s:i, s:f}", "name", text(plan, l->name),
                     "kind", plan_link_kind(l->kind), "from", l->from, "to", l->to, "shape", shape,
                     "bytes", (json_int_t)l->bytes, "messages", plan->messages[i], "seconds",
                     timeline_transfer_seconds(plan->p, l));
}

static json_t *messages(const Plan *plan)
{
    json_t *list = json_array();
    for (int from = 0; from < plan->p->devices.n; from++)
        for (int to = 0; to < plan->p->devices.n; to++) {
            Traffic sum = plan_traffic(plan, from, to);
            if (sum.messages > 0)
                json_array_append_new(list, json_pack("{s:i, s:i, s:I, s:I}", "from", from, "to",
                                                      to, "count", (json_int_t)sum.messages,
                                                      "bytes", (json_int_t)sum.bytes));
        }
    return list;
}

static json_t *order(const Program *p, int device)
{
    json_t *list = json_array();
    const ActionList *actions = &p->devices.at[device].train;
    for (int i = 0; i < actions->actions.n; i++) {
        const Action *a = &actions->actions.at[i];
        if (a->kind == ACT_RUN)
            json_array_append_new(list, json_sprintf("%d%s%d", a->chunk, run_name(a->run), a->m));
    }
    return list;
}

static json_t *bubble(const Plan *plan)
{
    return json_pack("{s:f, s:f, s:o}", "from_estimated_times", plan->seconds->bubble,
                     "from_unit_times", plan->units->bubble, "formula",
                     plan->formula ? json_real(plan->units->bubble) : json_null());
}

static json_t *rate(Rate r)
{
    return json_pack("{s:f, s:b}", "value", r.value, "default", r.standard);
}

static json_t *rates(const Rates *r)
{
    return json_pack("{s:o, s:o, s:o, s:o, s:s?}", "compute", rate(r->compute), "bandwidth",
                     rate(r->bandwidth), "link", rate(r->link), "latency", rate(r->latency),
                     "device", r->device);
}

bool plan_json(const Plan *plan, Text *out)
{
    const Program *p = plan->p;
    const Settings *s = &p->model->settings;
    json_t *stages = json_array(), *chunks = json_array(), *links = json_array(),
           *orders = json_array();
    for (int i = 0; i < p->devices.n; i++) {
        json_array_append_new(stages, stage(plan, i));
        json_array_append_new(orders, order(p, i));
    }
    for (int i = 0; i < p->chunks.n; i++)
        json_array_append_new(chunks, chunk(plan, i));
    for (int i = 0; i < p->links.n; i++)
        json_array_append_new(links, link_object(plan, i));
    double step = plan->seconds->period;
    json_t *root = json_pack(
        "{s:o, s:o, s:s, s:I, s:I, s:i, s:o, s:o, s:o, s:o, s:f, s:f, s:o, s:o, s:o, s:[ssss]}",
        "model", text(plan, p->model->name), "source", text(plan, p->model->source), "schedule",
        svg_escape_plain(plan->arena, program_schedule_name(plan->arena, p)), "batch",
        (json_int_t)s->train.batch, "microbatch", (json_int_t)p->microbatch, "microbatches",
        p->microbatches, "stages", stages, "chunks", chunks, "links", links, "order", orders,
        "step_seconds", step, "length_seconds", plan->seconds->step, "samples_per_second",
        step > 0 ? json_real((double)s->train.batch / step) : json_null(), "bubble", bubble(plan),
        "rates", rates(&plan->rates), "proved", "coverage", "no deadlock", "no race", "memory");
    const Remade *again = &p->graph->remade;
    if (s->parallel.recompute != RECOMPUTE_NONE)
        json_object_set_new(root, "recompute",
                            json_pack("{s:s, s:i, s:i, s:i}", "setting",
                                      recompute_kind_name(s->parallel.recompute), "layers",
                                      again->layers, "whole", again->all, "cheap", again->cheap));
    if (p->model->profile)
        json_object_set_new(root, "profile", text(plan, p->model->profile->path));
    if (plan->gpu) {
        json_object_set_new(root, "messages", messages(plan));
        json_object_set_new(root, "transfer",
                            json_string(p->transfer == TRANSFER_NCCL ? "nccl" : "peer"));
    }
    char *dump = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    if (dump) {
        text_add(out, dump);
        text_add(out, "\n");
    }
    free(dump);
    json_decref(root);
    return dump != NULL;
}
