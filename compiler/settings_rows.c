/* settings_rows.c - the keys of devices, parallel and train: one function reads one key,
 * checks it, and refuses what is understood but not available yet. */
#include "settings_read.h"

#include <string.h>

/* Of one device. */
enum { MOST_CHUNKS = 64 };

#define COUNT(a) ((int)(sizeof(a) / sizeof *(a)))
#define WORD(e, g, later, ...)                                                                     \
    read_word(e, g, (const char *const[]){__VA_ARGS__},                                            \
              COUNT(((const char *const[]){__VA_ARGS__})), later)

/* ---- devices ---- */

static void read_memory(Elab *e, const Given *g)
{
    double bytes;
    if (!read_quantity(e, g, UNIT_BYTES, &bytes))
        return;
    if (bytes >= 1 && bytes < 0x1p60)
        e->settings.devices.memory = (int64_t)bytes;
    else
        elab_error(e, g->value->at, "memory of devices is from 1 byte to 2^60 bytes");
}

static void read_compute(Elab *e, const Given *g)
{
    Devices *d = &e->settings.devices;
    if (read_quantity(e, g, UNIT_FLOPS, &d->compute))
        d->half = d->compute;
}

static void read_bandwidth(Elab *e, const Given *g)
{
    read_quantity(e, g, UNIT_BYTES_PER_S, &e->settings.devices.bandwidth);
}

static void read_link(Elab *e, const Given *g)
{
    read_quantity(e, g, UNIT_BYTES_PER_S, &e->settings.devices.link);
}

static void read_latency(Elab *e, const Given *g)
{
    read_quantity(e, g, UNIT_SECONDS, &e->settings.devices.latency);
}

static void read_per_node(Elab *e, const Given *g)
{
    int64_t n;
    if (read_int(e, g, 1, ELAB_MAX_DEVICES, &n))
        e->settings.devices.per_node = (int)n;
}

static void read_node_link(Elab *e, const Given *g)
{
    read_quantity(e, g, UNIT_BYTES_PER_S, &e->settings.devices.node_link);
}

static void read_host_link(Elab *e, const Given *g)
{
    read_quantity(e, g, UNIT_BYTES_PER_S, &e->settings.devices.host_link);
}

const SettingRow devices_rows[] = {
    {"memory", read_memory},       {"compute", read_compute},     {"bandwidth", read_bandwidth},
    {"link", read_link},           {"latency", read_latency},     {"per_node", read_per_node},
    {"node_link", read_node_link}, {"host_link", read_host_link},
};
const int devices_nrows = COUNT(devices_rows);

/* ---- parallel ---- */

static void read_pipeline_schedule(Elab *e, const Given *g)
{
    int k =
        WORD(e, g, 0, "1f1b", "gpipe", "interleaved", "zero_bubble", "zb_h2", "zb_v", "searched");
    e->settings.parallel.schedule_at = g->value->at;
    if (k >= 0)
        e->settings.parallel.schedule = (ScheduleKind)k;
}

static void read_microbatch(Elab *e, const Given *g)
{
    e->settings.parallel.microbatch_at = g->value->at;
    read_int(e, g, 1, INT32_MAX, &e->settings.parallel.microbatch);
}

static void read_chunks(Elab *e, const Given *g)
{
    int64_t n;
    e->settings.parallel.chunks_at = g->value->at;
    if (read_int(e, g, 1, MOST_CHUNKS, &n))
        e->settings.parallel.chunks = (int)n;
}

static void read_split(Elab *e, const Given *g)
{
    int k = WORD(e, g, 0, "time", "memory");
    if (k >= 0)
        e->settings.parallel.split = (SplitGoal)k;
}

static void read_transfer(Elab *e, const Given *g)
{
    int k = WORD(e, g, 0, "peer", "nccl");
    if (k >= 0)
        e->settings.parallel.nccl = k == 1;
}

/* Widths of kinds of parallelism that have only the width 1 so far. */
static void read_width(Elab *e, const Given *g)
{
    int64_t n;
    if (read_int(e, g, 1, ELAB_MAX_DEVICES, &n) && n > 1)
        elab_error(e, g->value->at, "%s = %lld is not available yet", g->key.text, (long long)n);
}

static void read_shard(Elab *e, const Given *g)
{
    WORD(e, g, 14, "none", "optimizer", "gradients", "full");
}

static void read_recompute(Elab *e, const Given *g)
{
    int k = WORD(e, g, 0, "none", "full", "auto");
    e->settings.parallel.recompute_at = g->value->at;
    if (k >= 0)
        e->settings.parallel.recompute = (RecomputeKind)k;
}

static void read_offload(Elab *e, const Given *g)
{
    int k = WORD(e, g, 4, "none", "activations", "optimizer");
    e->settings.parallel.offload_at = g->value->at;
    if (k >= 0)
        e->settings.parallel.offload = (OffloadKind)k;
}

const SettingRow parallel_rows[] = {
    {"schedule", read_pipeline_schedule},
    {"microbatch", read_microbatch},
    {"chunks", read_chunks},
    {"split", read_split},
    {"transfer", read_transfer},
    {"data", read_width},
    {"tensor", read_width},
    {"shard", read_shard},
    {"recompute", read_recompute},
    {"offload", read_offload},
};
const int parallel_nrows = COUNT(parallel_rows);

/* ---- train ---- */

static void read_batch(Elab *e, const Given *g)
{
    e->settings.train.batch_at = g->value->at;
    read_int(e, g, 1, INT32_MAX, &e->settings.train.batch);
}

static void read_steps(Elab *e, const Given *g)
{
    read_int(e, g, 1, (int64_t)1 << 40, &e->settings.train.steps);
}

static bool not_negative(Elab *e, Term t, const char *what)
{
    if (t.real >= 0)
        return true;
    elab_error(e, t.at, "%s must not be negative", what);
    return false;
}

/* betas = (b1, b2), each in [0, 1). */
static bool read_betas(Elab *e, Term t, Train *train)
{
    double out[2];
    bool good = t.kind == TERM_LIST && t.list.n == 2;
    for (int i = 0; good && i < 2; i++) {
        good = term_is_number(t.list.of[i]);
        out[i] = good ? term_number(t.list.of[i]) : 0;
        good = good && out[i] >= 0 && out[i] < 1;
    }
    if (!good) {
        elab_error(e, t.at, "betas wants two numbers from 0 to below 1, such as (0.9, 0.999)");
        return false;
    }
    train->beta1 = out[0];
    train->beta2 = out[1];
    return true;
}

static void read_sgd(Elab *e, const Given *g, Train *t)
{
    Term arg[MATCH_MAX_PARAMS];
    if (!read_call(e, g,
                   "lr: real = 0.01, momentum: real = 0, nesterov: bool = false, "
                   "weight_decay: real = 0",
                   arg) ||
        !not_negative(e, arg[0], "lr") || !not_negative(e, arg[1], "momentum") ||
        !not_negative(e, arg[3], "weight_decay"))
        return;
    t->optimizer = OPTIMIZER_SGD;
    t->lr = arg[0].real;
    t->momentum = arg[1].real;
    t->nesterov = arg[2].truth;
    t->weight_decay = arg[3].real;
    if (t->nesterov && t->momentum == 0)
        elab_error(e, arg[2].at, "nesterov needs a momentum above 0");
}

static void read_adam(Elab *e, const Given *g, Train *t, bool decay)
{
    Term arg[MATCH_MAX_PARAMS];
    const char *signature = decay ? "lr: real = 1e-3, betas: pair = none, eps: real = 1e-8, "
                                    "weight_decay: real = 0.01"
                                  : "lr: real = 1e-3, betas: pair = none, eps: real = 1e-8";
    if (!read_call(e, g, signature, arg) || !not_negative(e, arg[0], "lr") ||
        (arg[1].kind != TERM_ABSENT && !read_betas(e, arg[1], t)) ||
        !not_negative(e, arg[2], "eps") || (decay && !not_negative(e, arg[3], "weight_decay")))
        return;
    t->optimizer = decay ? OPTIMIZER_ADAMW : OPTIMIZER_ADAM;
    t->lr = arg[0].real;
    t->eps = arg[2].real;
    t->weight_decay = decay ? arg[3].real : 0;
}

static void read_optimizer(Elab *e, const Given *g)
{
    int k = WORD(e, g, 0, "sgd", "adam", "adamw");
    if (k == OPTIMIZER_SGD)
        read_sgd(e, g, &e->settings.train);
    else if (k >= 0)
        read_adam(e, g, &e->settings.train, k == OPTIMIZER_ADAMW);
}

static void read_lr_schedule(Elab *e, const Given *g)
{
    Train *t = &e->settings.train;
    Term arg[MATCH_MAX_PARAMS];
    int k = WORD(e, g, 0, "constant", "cosine", "linear");
    if (k < 0 || !read_call(e, g, k ? "warmup: int = 0, min: real = 0" : "", arg))
        return;
    t->schedule = (LrKind)k;
    if (k == LR_CONSTANT)
        return;
    if (arg[0].integer < 0) {
        elab_error(e, arg[0].at, "warmup is a number of steps, at least 0");
        return;
    }
    if (!not_negative(e, arg[1], "min"))
        return;
    t->warmup = arg[0].integer;
    t->min = arg[1].real;
}

static void read_clip_norm(Elab *e, const Given *g)
{
    double norm;
    const char *word = word_of(g->value);
    if (word && !strcmp(word, "none")) {
        e->settings.train.clip_norm = 0;
        return;
    }
    if (!read_real(e, g, 0, &norm))
        return;
    if (norm > 0)
        e->settings.train.clip_norm = norm;
    else
        elab_error(e, g->value->at, "clip_norm of train is more than 0, or none");
}

static void read_precision(Elab *e, const Given *g)
{
    int k = WORD(e, g, 0, "f32", "bf16", "f16", "f64");
    if (k >= 0)
        e->settings.train.precision = (Precision)k;
}

static void read_seed(Elab *e, const Given *g)
{
    int64_t seed;
    if (read_int(e, g, 0, INT64_MAX, &seed))
        e->settings.train.seed = (uint64_t)seed;
}

const SettingRow train_rows[] = {
    {"batch", read_batch},         {"steps", read_steps},
    {"optimizer", read_optimizer}, {"schedule", read_lr_schedule},
    {"clip_norm", read_clip_norm}, {"precision", read_precision},
    {"seed", read_seed},
};
_Static_assert(COUNT(devices_rows) <= SETTING_MAX_ROWS &&
                   COUNT(parallel_rows) <= SETTING_MAX_ROWS &&
                   COUNT(train_rows) <= SETTING_MAX_ROWS,
               "read_block has room for every key");
const int train_nrows = COUNT(train_rows);
