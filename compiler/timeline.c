/* timeline.c - walks the actions of one training step in time.
 *
 * In:  the ordered actions of every device, with their waits; what runs and messages cost.
 * Out: start and end of every action; busy time; how the kept memory rises and falls.
 *
 * A list-driven simulation. A device has a head on each stream. A head that waits
 * for nothing more is executed; SEND and RECV meet: both begin when both are heads
 * and ready, and end together. A device is looked at again only when one of its actions
 * ended elsewhere, and every wait is checked once, so the work is proportional to the lists.
 *
 *     stream 0   F0 ──────► F1 ──────►        F waits for the RECV of its input,
 *     stream 1   RECV0 ► RECV1 ► SEND0 ►      SEND for the F that makes its value
 *
 * With measured times the host's messages are those of its one thread: timeline_links.c.
 */
#include "timeline.h"

#include <stdlib.h>

#include "cost.h"
#include "schedule.h"

/* The next action of one stream. */
typedef struct {
    int at;       /* number in the list; the list's length: none left */
    int waits;    /* of its waits, those found done */
    double ready; /* not before this */
    bool posted;  /* a transfer that stands waiting for its other side, or a CLIP */
} Head;

typedef struct {
    Head head[STREAMS];
    double free[STREAMS]; /* when the stream's last action ended */
    bool queued;
} Walker;

typedef struct {
    const Program *p;
    TimelineKind kind;
    Timeline *t;
    Walker *walkers; /* [devices] */
    int *queue;      /* of devices to look at; a ring with a place for each */
    int queue_first, queued;
    int streams;               /* that have actions */
    int clippers, clip_posted; /* devices whose lists hold a CLIP; those that stand at it */
    double clip_at;
} Sim;

static const ActionList *list_of(const Sim *s, int device)
{
    return &s->p->devices.at[device].train;
}

static void wake(Sim *s, int device)
{
    if (s->walkers[device].queued)
        return;
    s->walkers[device].queued = true;
    s->queue[(s->queue_first + s->queued++) % s->p->devices.n] = device;
}

static void find_head(const Sim *s, int device, int stream, int from)
{
    const ActionList *list = list_of(s, device);
    Walker *w = &s->walkers[device];
    while (from < list->actions.n && (int)action_stream(&list->actions.at[from]) != stream)
        from++;
    w->head[stream] = (Head){.at = from, .ready = w->free[stream]};
}

/* -------------------------------------------------------------------------- durations */

double timeline_transfer_seconds(const Program *p, const Link *link)
{
    return cost_transfer_seconds(&p->model->settings.devices, p->devices.at[link->from].number,
                                 p->devices.at[link->to].number, (double)link->bytes);
}

double timeline_weight_bytes(const Device *d, ActionKind kind)
{
    double grads = (double)d->class_bytes[BUFFER_GRAD], bytes = 0;
    if (kind == ACT_UPDATE)
        bytes = 2 * ((double)d->class_bytes[BUFFER_WEIGHT] + grads +
                     (double)d->class_bytes[BUFFER_STATE]);
    else if (kind == ACT_CLIP)
        bytes = grads;
    for (int i = 0; kind == ACT_ROUND && i < d->weights.n; i++)
        if (d->weights.at[i].half != NONE)
            bytes += (double)buffer_bytes(&d->buffers.at[d->weights.at[i].buffer]) +
                     (double)buffer_bytes(&d->buffers.at[d->weights.at[i].half]);
    for (int i = 0; kind == ACT_REDUCE && i < d->weights.n; i++)
        for (int k = 1; k < d->weights.at[i].ngrads; k++)
            bytes += 3 * (double)buffer_bytes(&d->buffers.at[d->weights.at[i].grad[k]]);
    return bytes;
}

static double weight_seconds(const Program *p, const Device *d, ActionKind kind)
{
    const Devices *devices = &p->model->settings.devices;
    const double bytes = timeline_weight_bytes(d, kind);
    const double rate = devices->work[kind == ACT_ROUND    ? WORK_ROUND
                                      : kind == ACT_REDUCE ? WORK_REDUCE
                                      : kind == ACT_CLIP   ? WORK_CLIP
                                                           : WORK_UPDATE];
    return rate > 0 ? bytes / rate : cost_seconds(devices, (Cost){bytes / 4, bytes});
}

/* On a link of its own in each direction. */
static double copy_seconds(const Program *p, const Device *d, int chunk)
{
    const Devices *s = &p->model->settings.devices;
    return s->latency +
           (s->host_link > 0 ? (double)offload_moves(d, chunk).bytes / s->host_link : 0);
}

double timeline_action_seconds(const Program *p, int device, const Action *a)
{
    if (action_copies(a))
        return copy_seconds(p, &p->devices.at[device], a->chunk);
    if (a->kind == ACT_RUN)
        return p->chunks.at[a->chunk].seconds[a->run];
    if (a->kind == ACT_ROUND || a->kind == ACT_REDUCE || a->kind == ACT_CLIP ||
        a->kind == ACT_UPDATE)
        return weight_seconds(p, &p->devices.at[device], a->kind);
    return 0;
}

static const double units[RUN_KINDS] = {[RUN_F] = 1, [RUN_B] = 2, [RUN_I] = 1, [RUN_W] = 1};

static double duration(const Sim *s, int device, const Action *a)
{
    if (s->kind != TIMELINE_SECONDS)
        return a->kind == ACT_RUN ? units[a->run] : 0;
    return timeline_action_seconds(s->p, device, a);
}

/* ------------------------------------------------------------------------- simulation */

/* Ends the head of a stream and finds the next. */
static void finish(Sim *s, int device, int stream, double start, double end)
{
    Walker *w = &s->walkers[device];
    s->t->devices[device].spans[w->head[stream].at] = (Span){start, end};
    w->free[stream] = end;
    if (end > s->t->step)
        s->t->step = end;
    find_head(s, device, stream, w->head[stream].at + 1);
}

/* The head has nothing more to wait for on its own device. */
static bool head_ready(const Sim *s, int device, int stream)
{
    const ActionList *list = list_of(s, device);
    const Span *spans = s->t->devices[device].spans;
    Head *h = &s->walkers[device].head[stream];
    const Action *a = &list->actions.at[h->at];
    for (; h->waits < a->nwaits; h->waits++) {
        Span on = spans[list->waits.at[a->first_wait + h->waits]];
        if (on.end < 0)
            return false;
        if (on.end > h->ready)
            h->ready = on.end;
    }
    return true;
}

/* A transfer whose other side stands ready as well takes place. */
static bool meet(Sim *s, int device, const Action *a)
{
    const Link *link = &s->p->links.at[a->link];
    int other = a->kind == ACT_SEND ? link->to : link->from;
    Head *mine = &s->walkers[device].head[1], *theirs = &s->walkers[other].head[1];
    mine->posted = true;
    if (other == device || !theirs->posted)
        return false;
    const Action *b = &list_of(s, other)->actions.at[theirs->at];
    if (b->kind == a->kind || b->link != a->link || b->m != a->m)
        return false;
    double start = mine->ready > theirs->ready ? mine->ready : theirs->ready;
    double seconds = s->kind != TIMELINE_SECONDS ? 0 : timeline_transfer_seconds(s->p, link);
    finish(s, device, 1, start, start + seconds);
    finish(s, other, 1, start, start + seconds);
    wake(s, other);
    return true;
}

/* All devices exchange their norms: none goes on before the last has come. */
static void clip(Sim *s, int device, double seconds)
{
    Head *h = &s->walkers[device].head[0];
    if (!h->posted) {
        h->posted = true;
        h->ready += seconds;
        s->t->devices[device].busy += seconds;
        s->t->devices[device].clipping = seconds;
        s->clip_posted++;
        if (h->ready > s->clip_at)
            s->clip_at = h->ready;
    }
    if (s->clip_posted < s->clippers)
        return;
    for (int d = 0; d < s->p->devices.n; d++) {
        Head *x = &s->walkers[d].head[0];
        if (!x->posted)
            continue;
        finish(s, d, 0, x->ready - s->t->devices[d].clipping, s->clip_at);
        wake(s, d);
    }
}

/* Executes what a device can; true when an action ended. */
static bool advance(Sim *s, int device, int stream)
{
    const ActionList *list = list_of(s, device);
    Head *h = &s->walkers[device].head[stream];
    if (h->at >= list->actions.n || !head_ready(s, device, stream))
        return false;
    const Action *a = &list->actions.at[h->at];
    if (stream == STREAM_TRANSFER)
        return meet(s, device, a);
    double seconds = duration(s, device, a);
    if (a->kind == ACT_CLIP) {
        int at = h->at;
        clip(s, device, seconds);
        return h->at != at;
    }
    if (stream == STREAM_COMPUTE)
        s->t->devices[device].busy += seconds;
    finish(s, device, stream, h->ready, h->ready + seconds);
    return true;
}

static void prepare(Sim *s, Arena *a)
{
    int n = s->p->devices.n;
    s->t->devices = ARENA_ARRAY(a, DeviceTime, n);
    s->walkers = ARENA_ARRAY(a, Walker, n);
    s->queue = ARENA_ARRAY(a, int, n);
    for (int d = 0; d < n; d++) {
        const ActionList *list = list_of(s, d);
        s->t->devices[d].spans = ARENA_ARRAY(a, Span, list->actions.n);
        for (int i = 0; i < list->actions.n; i++) {
            s->t->devices[d].spans[i] = (Span){-1, -1};
            s->clippers += list->actions.at[i].kind == ACT_CLIP;
        }
        for (int stream = 0; stream < s->streams; stream++)
            find_head(s, d, stream, 0);
        wake(s, d);
    }
}

static double whole_of(const ActionList *list, const Span *spans)
{
    double first = -1, last = 0, rounding = 0;
    for (int i = 0; i < list->actions.n; i++) {
        const ActionKind kind = list->actions.at[i].kind;
        if (kind == ACT_ROUND)
            rounding += spans[i].end - spans[i].start;
        if (kind == ACT_ROUND || kind == ACT_JOIN || spans[i].start < 0)
            continue;
        first = first < 0 || spans[i].start < first ? spans[i].start : first;
        last = spans[i].end > last ? spans[i].end : last;
    }
    return first < 0 ? rounding : last - first + rounding;
}

/* The streams of every device. */
static Timeline *walk_streams(Arena *a, const Program *p, TimelineKind kind)
{
    Sim s = {.p = p, .kind = kind, .t = ARENA_NEW(a, Timeline), .streams = program_streams(p)};
    Timeline *t = s.t;
    prepare(&s, a);
    while (s.queued > 0) {
        int d = s.queue[s.queue_first];
        s.queue_first = (s.queue_first + 1) % p->devices.n;
        s.queued--;
        s.walkers[d].queued = false;
        bool moved;
        do {
            moved = false;
            for (int stream = 0; stream < s.streams; stream++)
                moved = advance(&s, d, stream) || moved;
        } while (moved);
    }
    t->complete = true;
    for (int d = 0; d < p->devices.n; d++)
        for (int stream = 0; stream < s.streams; stream++)
            t->complete = t->complete && s.walkers[d].head[stream].at >= list_of(&s, d)->actions.n;
    return t;
}

static void sum_up(Timeline *t, const Program *p)
{
    double busy = 0;
    for (int d = 0; d < p->devices.n; d++) {
        t->period = t->devices[d].whole > t->period ? t->devices[d].whole : t->period;
        busy += t->devices[d].busy;
    }
    if (t->period > 0)
        t->bubble = 1 - busy / (t->period * p->devices.n);
    if (t->bubble < 1e-12)
        t->bubble = 0; /* rounding of a sum */
}

Timeline *timeline_make(Arena *a, const Program *p, TimelineKind kind)
{
    const bool links =
        kind == TIMELINE_SECONDS && p->model->profile && p->transfer == TRANSFER_LINKS;
    Timeline *t = links ? timeline_links(a, p) : walk_streams(a, p, kind);
    for (int d = 0; d < p->devices.n; d++)
        t->devices[d].whole = whole_of(&p->devices.at[d].train, t->devices[d].spans);
    sum_up(t, p);
    return t;
}

/* -------------------------------------------------------------------------- the shape */

typedef struct {
    const Program *p;
    const SchedulePacer *pacer;
    double *done;  /* [chunks * 2 * micro-batches]: ends of F and the backward pass; -1: not yet */
    int *at;       /* [devices]: next action */
    double *first; /* [devices]: start of its first run; -1: not yet */
    double *free;  /* [devices]: end of its last */
} Walk;

/* The next action of a device; false where what it reads is not made yet. */
static bool shape_step(Walk *s, Timeline *t, int d)
{
    const Program *p = s->p;
    const Action *x = &p->devices.at[d].train.actions.at[s->at[d]];
    if (x->kind == ACT_RUN) {
        const double ready = schedule_may_begin(s->pacer, (Slot){x->run, x->chunk, x->m}, s->done);
        if (ready < 0)
            return false;
        const double start = ready > s->free[d] ? ready : s->free[d], end = start + units[x->run];
        if (x->run != RUN_W || !p->chunks.at[x->chunk].has[RUN_I])
            s->done[(2 * x->chunk + run_goes_back(x->run)) * p->microbatches + x->m] = end;
        if (t->devices[d].spans)
            t->devices[d].spans[s->at[d]] = (Span){start, end};
        t->devices[d].busy += units[x->run];
        s->first[d] = s->first[d] < 0 ? start : s->first[d];
        s->free[d] = end;
        t->step = end > t->step ? end : t->step;
    }
    s->at[d]++;
    return true;
}

Timeline *timeline_shape(Arena *a, const Program *p, bool spans)
{
    Arena *scratch = arena_new();
    const int D = p->devices.n, n = 2 * p->chunks.n * p->microbatches;
    Timeline *t = ARENA_NEW(a, Timeline);
    t->devices = ARENA_ARRAY(a, DeviceTime, D);
    Walk s = {.p = p,
              .pacer = schedule_pacer(scratch, p, true),
              .done = ARENA_ARRAY(scratch, double, n),
              .at = ARENA_ARRAY(scratch, int, D),
              .first = ARENA_ARRAY(scratch, double, D),
              .free = ARENA_ARRAY(scratch, double, D)};
    for (int i = 0; i < n; i++)
        s.done[i] = -1;
    for (int d = 0; d < D; d++) {
        s.first[d] = -1;
        const int actions = p->devices.at[d].train.actions.n;
        t->devices[d].spans = spans ? ARENA_ARRAY(a, Span, actions) : NULL;
        for (int i = 0; i < actions && spans; i++)
            t->devices[d].spans[i] = (Span){-1, -1};
    }
    for (bool moved = true; moved;) {
        moved = false;
        for (int d = 0; d < D; d++)
            while (s.at[d] < p->devices.at[d].train.actions.n && shape_step(&s, t, d))
                moved = true;
    }
    t->complete = true;
    for (int d = 0; d < D; d++) {
        t->complete = t->complete && s.at[d] == p->devices.at[d].train.actions.n;
        t->devices[d].whole = s.first[d] < 0 ? 0 : s.free[d] - s.first[d];
    }
    sum_up(t, p);
    arena_free(scratch);
    return t;
}

/* ------------------------------------------------------------------------ kept memory */

/* What one micro-batch's action of a sort (a run or a link) takes and gives back. */
typedef struct {
    int64_t takes, gives;
    int first; /* place in the list for the first micro-batch; NONE */
} Toucher;

typedef struct {
    int first, last; /* touchers of a buffer, by their place in the list; NONE */
} Life;

static void life_touch(Life *life, int buffer, int toucher, const Toucher *t)
{
    if (buffer == NONE || t[toucher].first == NONE)
        return;
    Life *x = &life[buffer];
    if (x->first == NONE || t[toucher].first < t[x->first].first)
        x->first = toucher;
    if (x->last == NONE || t[toucher].first > t[x->last].first)
        x->last = toucher;
}

static int toucher_of(const Program *p, const Action *a)
{
    if (a->kind == ACT_RUN)
        return a->chunk * RUN_KINDS + (int)a->run;
    if (action_copies(a))
        return p->chunks.n * RUN_KINDS + p->links.n + 2 * a->chunk + (a->kind == ACT_COPY_IN);
    return a->kind == ACT_SEND || a->kind == ACT_RECV ? p->chunks.n * RUN_KINDS + a->link : NONE;
}

/* Which action is the first to touch a buffer and which the last is the same for every
 * micro-batch, so the first micro-batch tells it for all. */
static Toucher *find_touchers(Arena *a, const Program *p, int device)
{
    const Device *d = &p->devices.at[device];
    const int copies = p->chunks.n * RUN_KINDS + p->links.n, n = copies + 2 * p->chunks.n;
    Toucher *t = ARENA_ARRAY(a, Toucher, n);
    Life *life = ARENA_ARRAY(a, Life, d->buffers.n);
    for (int i = 0; i < n; i++)
        t[i].first = NONE;
    for (int b = 0; b < d->buffers.n; b++)
        life[b] = (Life){NONE, NONE};
    for (int i = 0; i < d->train.actions.n; i++) {
        int k = toucher_of(p, &d->train.actions.at[i]);
        if (k != NONE && t[k].first == NONE)
            t[k].first = i;
    }
    for (int c = 0; c < d->chunks.n * RUN_KINDS; c++) {
        int chunk = d->chunks.at[c / RUN_KINDS], kind = c % RUN_KINDS;
        const Run *run = &p->chunks.at[chunk].run[kind];
        for (int i = 0; i < run->calls.n; i++) {
            const Call *call = &run->calls.at[i];
            for (int r = 0; r < call->nin + call->nout; r++) {
                const Ref *ref = r < call->nin ? &call->in[r] : &call->out[r - call->nin];
                life_touch(life, ref->buffer, chunk * RUN_KINDS + kind, t);
                life_touch(life, ref->entry, chunk * RUN_KINDS + kind, t);
            }
        }
    }
    for (int l = 0; l < p->links.n; l++) {
        const Link *link = &p->links.at[l];
        if (link->from == device)
            life_touch(life, link->source.buffer, p->chunks.n * RUN_KINDS + l, t);
        if (link->to == device)
            life_touch(life, link->target.buffer, p->chunks.n * RUN_KINDS + l, t);
    }
    for (int i = 0; i < d->offloads.n; i++) {
        const Offload *o = &d->offloads.at[i];
        life_touch(life, o->buffer, copies + 2 * o->chunk, t);
        life_touch(life, o->back, copies + 2 * o->chunk + 1, t);
    }
    for (int b = 0; b < d->buffers.n; b++) {
        const Buffer *x = &d->buffers.at[b];
        if (x->class != BUFFER_KEPT || life[b].first == NONE)
            continue;
        t[life[b].first].takes += x->stride * x->ring;
        t[life[b].last].gives += x->stride * x->ring;
    }
    return t;
}

/* At one moment what ends gives back before what begins takes. */
static int by_time(const void *a, const void *b)
{
    const KeptStep *x = a, *y = b;
    if (x->at < y->at || x->at > y->at)
        return x->at < y->at ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

KeptSteps timeline_kept(Arena *a, const Program *p, const Timeline *t, int device)
{
    const ActionList *list = &p->devices.at[device].train;
    const Toucher *touchers = find_touchers(a, p, device);
    KeptSteps changes = {0}, out = {0};
    for (int i = 0; i < list->actions.n; i++) {
        int k = toucher_of(p, &list->actions.at[i]);
        Span span = t->devices[device].spans[i];
        if (k == NONE || span.end < 0)
            continue;
        if (touchers[k].takes)
            VEC_PUSH(a, &changes, (KeptStep){span.start, touchers[k].takes});
        if (touchers[k].gives)
            VEC_PUSH(a, &changes, (KeptStep){span.end, -touchers[k].gives});
    }
    if (changes.n)
        qsort(changes.at, (size_t)changes.n, sizeof *changes.at, by_time);
    int64_t bytes = 0;
    VEC_PUSH(a, &out, (KeptStep){0, 0});
    for (int i = 0; i < changes.n; i++) {
        bytes += changes.at[i].bytes;
        if (out.at[out.n - 1].at < changes.at[i].at)
            VEC_PUSH(a, &out, (KeptStep){changes.at[i].at, bytes});
        else
            out.at[out.n - 1].bytes = bytes;
    }
    return out;
}
