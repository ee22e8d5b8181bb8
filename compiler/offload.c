/* offload.c - which kept tensors are in the host's memory between their forward and backward pass.
 *
 * In:  phases and buffers of each device; the order of the runs.
 * Out: Device.offloads; the backward passes of such chunks read the tensors that come back.
 *
 * A chunk's forward pass writes `buffer`. Its copy to the host begins when the pass has ended, and
 * the next micro-batch's pass goes on meanwhile; so the buffer has two slots. The copy back into
 * `back`, with two slots as well, begins while the backward pass of the micro-batch before runs.
 *
 *     compute   F0  F1  F2  F3  ...      B0  B1  B2          buffer   2 slots
 *     out           O0  O1  O2 ...                           host     as many as in flight
 *     in                           I0  I1  I2 ...            back     2 slots
 *
 * Four slots take the place of as many as micro-batches are in flight, so a chunk that has no
 * more than that keeps its tensors, and so does one on a device without a link to the host. What
 * other chunks read, and messages, stay on the device; so do tensors of a loop that share
 * places.
 */
#include <string.h>

#include "program.h"
#include "schedule.h"
#include "schedule_file.h"

/* Who touches a buffer. */
typedef struct {
    int chunk;                     /* NONE: nobody; MANY: several */
    bool written, evaluated, read; /* by F; written by E; by the backward pass */
} Use;

enum { MANY = -2 };

static void note_use(Use *use, int chunk, RunKind kind, bool write)
{
    use->chunk = use->chunk == NONE || use->chunk == chunk ? chunk : MANY;
    use->written = use->written || (kind == RUN_F && write);
    use->evaluated = use->evaluated || (kind == RUN_E && write);
    use->read = use->read || run_goes_back(kind);
}

static Use *find_uses(Arena *a, const Program *p, int device)
{
    const Device *d = &p->devices.at[device];
    Use *uses = ARENA_ARRAY(a, Use, d->buffers.n + 1);
    for (int b = 0; b < d->buffers.n; b++)
        uses[b].chunk = NONE;
    for (int k = 0; k < d->chunks.n * RUN_KINDS; k++) {
        const int chunk = d->chunks.at[k / RUN_KINDS];
        const RunKind kind = (RunKind)(k % RUN_KINDS);
        const Run *run = &p->chunks.at[chunk].run[kind];
        for (int n = 0; n < run->calls.n; n++) {
            const Call *c = &run->calls.at[n];
            for (int i = 0; i < c->nin + c->nout; i++) {
                const Ref *r = i < c->nin ? &c->in[i] : &c->out[i - c->nin];
                const int both[2] = {r->buffer, r->entry};
                for (int s = 0; s < 2; s++)
                    if (both[s] != NONE)
                        note_use(&uses[both[s]], chunk, kind, i >= c->nin);
            }
        }
    }
    for (int l = 0; l < p->links.n; l++) {
        if (p->links.at[l].from == device)
            uses[p->links.at[l].source.buffer].chunk = MANY;
        if (p->links.at[l].to == device)
            uses[p->links.at[l].target.buffer].chunk = MANY;
    }
    return uses;
}

static bool can_leave(const Buffer *b, const Use *use)
{
    return b->class == BUFFER_KEPT && b->link == NONE && b->ring == b->count && use->chunk >= 0 &&
           use->written && use->read && !use->evaluated;
}

static void turn_to(Ref *refs, int n, int from, int to)
{
    for (int i = 0; i < n; i++) {
        refs[i].buffer = refs[i].buffer == from ? to : refs[i].buffer;
        refs[i].entry = refs[i].entry == from ? to : refs[i].entry;
    }
}

static int add_twin(Arena *a, Device *d, int buffer, BufferClass class, const char *what)
{
    Buffer twin = d->buffers.at[buffer];
    twin.class = class;
    twin.name = arena_printf(a, "%s__%s", twin.name, what);
    VEC_PUSH(a, &d->buffers, twin);
    return d->buffers.n - 1;
}

static void send_away(Program *p, Device *d, int chunk, int buffer)
{
    Arena *a = p->graph->arena;
    Offload o = {.chunk = chunk, .buffer = buffer};
    o.host = add_twin(a, d, buffer, BUFFER_HOST, "host");
    o.back = add_twin(a, d, buffer, BUFFER_KEPT, "back");
    for (int k = 0; k < RUN_KINDS; k++) {
        const Run *run = &p->chunks.at[chunk].run[k];
        for (int n = 0; n < run->calls.n && run_goes_back((RunKind)k); n++) {
            turn_to(run->calls.at[n].in, run->calls.at[n].nin, buffer, o.back);
            turn_to(run->calls.at[n].out, run->calls.at[n].nout, buffer, o.back);
        }
    }
    VEC_PUSH(a, &d->offloads, o);
}

/* An order that is searched for keeps about as much as 1F1B. */
static Pace find_pace(Arena *a, const Program *p)
{
    const Parallel *s = &p->model->settings.parallel;
    const SlotList *runs =
        s->file
            ? schedule_file_runs(s->file, p)
            : schedule(p, s->schedule == SCHEDULE_SEARCHED ? SCHEDULE_1F1B : s->schedule, false);
    return schedule_pace(a, p, runs);
}

bool offload_pays(int held, int waiting)
{
    return held > OFFLOAD_SLOTS + waiting;
}

void offload(Program *p, Diag *d)
{
    const Settings *s = &p->model->settings;
    if (s->parallel.offload == OFFLOAD_NONE)
        return;
    if (s->devices.host_link <= 0) {
        diag_warning(d, s->parallel.offload_at,
                     "offload = activations moves nothing: these devices have no link to the host");
        diag_help(d, "a link is given by `devices`: of the catalogue, or host_link = 32 GB/s");
        return;
    }
    Arena *scratch = arena_new();
    const Pace pace = find_pace(scratch, p);
    for (int i = 0; i < p->devices.n; i++) {
        Device *dev = &p->devices.at[i];
        const Use *uses = find_uses(scratch, p, i);
        const int n = dev->buffers.n;
        for (int k = 0; k < dev->chunks.n; k++) {
            const int chunk = dev->chunks.at[k];
            if (!offload_pays(pace.held[chunk], pace.waiting[chunk]))
                continue;
            for (int b = 0; b < n; b++)
                if (uses[b].chunk == chunk && can_leave(&dev->buffers.at[b], &uses[b]))
                    send_away(p, dev, chunk, b);
        }
    }
    arena_free(scratch);
}
