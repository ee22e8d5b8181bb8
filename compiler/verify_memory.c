/* verify_memory.c - the proof that no two live tensors overlap.
 *
 * What lives from phase to phase (weights, gradients, optimizer state, kept activations) must
 * have a place of its own, inside the allocation and apart from the scratch. Inside a phase
 * the calls are executed one by one, loops turn by turn, on a map of which tensor is where:
 * writing a tensor wipes out what it overlaps, and reading one that is not whole in its
 * place is an error. What a loop keeps in fewer places than turns is one phase's alone, and what a
 * link takes of it is there in the end. An element-wise call may write exactly over an operand; any
 * other overlap of a result with an operand is an error.
 */
#include <stdlib.h>
#include <string.h>

#include "verify.h"

typedef struct {
    int64_t from, to;
    int buffer, member;
} Region;

typedef struct {
    const Program *p;
    int device;
    const Device *d;
    FILE *to;
    VEC(Region) map; /* scratch tensors that are whole */
    int **written;   /* [buffers][members]: kept tensors that this phase has written */
    bool *writes;    /* [buffers]: this phase writes it */
    int **place;     /* [buffers][rings], kept in fewer places than turns: who is there; or NULL */
    int *toucher;    /* [buffers], of those: the phase that has them to itself, from 1; 0: none */
    int number;      /* of the phase */
    const char *phase;
    int errors;
} Memory;

static int by_place(const void *a, const void *b)
{
    const Region *x = a, *y = b;
    return x->from < y->from ? -1 : x->from > y->from;
}

/* GPUs: what kernels and libraries are given lies behind all buffers and within the memory. */
static bool verify_kernels(const Program *p, const Device *d, int64_t buffers, FILE *to)
{
    if (p->transfer == TRANSFER_LINKS)
        return true;
    int64_t squares = (int64_t)sizeof(double) * p->graph->weights.n;
    bool ok = d->squares >= buffers && d->squares + squares <= d->kernel_scratch &&
              d->kernel_scratch + GPU_KERNEL_SCRATCH <= d->workspace &&
              d->workspace + GPU_LIBRARY_WORKSPACE <= d->bytes;
    if (!ok || d->squares % GPU_ALIGN || d->kernel_scratch % GPU_ALIGN || d->workspace % GPU_ALIGN)
        fprintf(to, "memory: what the kernels of %s need does not lie behind its buffers\n",
                d->name);
    return ok;
}

/* Everything but scratch, in order of place; of the device, or what is on the host. */
static bool verify_places(const Program *p, int device, bool host, FILE *to)
{
    const Device *d = &p->devices.at[device];
    Region *r = ARENA_ARRAY(p->graph->arena, Region, d->buffers.n + 1);
    int n = 0;
    int64_t limit = d->bytes - d->class_bytes[BUFFER_KERNELS];
    int64_t scratch = host ? d->class_bytes[BUFFER_HOST] : limit - d->class_bytes[BUFFER_SCRATCH];
    bool ok = host || verify_kernels(p, d, limit, to);
    for (int b = 0; b < d->buffers.n; b++) {
        const Buffer *x = &d->buffers.at[b];
        if ((x->class == BUFFER_HOST) != host)
            continue;
        int64_t end = x->offset + buffer_bytes(x);
        bool inside = x->class == BUFFER_SCRATCH ? x->offset >= scratch && end <= limit
                                                 : x->offset >= 0 && end <= scratch;
        if (!inside || x->slots < 1 || x->ring < 1 || x->stride < x->size) {
            fprintf(to, "memory: %s of %s is outside of its area\n", x->name, d->name);
            ok = false;
        }
        if (x->class != BUFFER_SCRATCH)
            r[n++] = (Region){x->offset, end, b, 0};
    }
    qsort(r, (size_t)n, sizeof *r, by_place);
    for (int i = 1; i < n; i++)
        if (r[i].from < r[i - 1].to) {
            fprintf(to, "memory: %s and %s of %s overlap\n", d->buffers.at[r[i - 1].buffer].name,
                    d->buffers.at[r[i].buffer].name, d->name);
            ok = false;
        }
    return ok;
}

static void complain(Memory *m, int call, int buffer, const char *what)
{
    if (m->errors++ < 10)
        fprintf(m->to, "memory: %s, phase %s, call %d: %s %s\n", m->d->name, m->phase, call,
                m->d->buffers.at[buffer].name, what);
}

static Region region_of(const Memory *m, int buffer, int member)
{
    const Buffer *b = &m->d->buffers.at[buffer];
    int64_t at = buffer_address(b, 0, member);
    return (Region){at, at + b->size, buffer, member};
}

static bool inside_buffer(Memory *m, int call, int buffer, int member)
{
    if (member >= 0 && member < m->d->buffers.at[buffer].count)
        return true;
    complain(m, call, buffer, "has no such member");
    return false;
}

/* Kept tensors of which the last turns' alone have places: one phase has them to itself, since the
 * others' turns would have to know which those are. */
static int *shared_place(Memory *m, int call, int buffer, int member)
{
    if (!m->place[buffer])
        return NULL;
    if (m->toucher[buffer] == 0)
        m->toucher[buffer] = m->number;
    if (m->toucher[buffer] != m->number)
        complain(m, call, buffer, "has fewer places than turns, and is not of one phase alone");
    return &m->place[buffer][member % m->d->buffers.at[buffer].ring];
}

static void read_tensor(Memory *m, int call, int buffer, int member)
{
    const Buffer *b = &m->d->buffers.at[buffer];
    if (!inside_buffer(m, call, buffer, member))
        return;
    if (b->class == BUFFER_KEPT && m->writes[buffer] && !m->written[buffer][member])
        complain(m, call, buffer, "is read before it is written");
    const int *place = shared_place(m, call, buffer, member);
    if (place && *place != member)
        complain(m, call, buffer, "is read, but another turn's is in its place");
    if (b->class != BUFFER_SCRATCH)
        return;
    Region x = region_of(m, buffer, member);
    for (int i = 0; i < m->map.n; i++)
        if (m->map.at[i].buffer == buffer && m->map.at[i].member == member &&
            m->map.at[i].from == x.from)
            return;
    complain(m, call, buffer, "is read, but not whole in its place");
}

static void write_tensor(Memory *m, int call, int buffer, int member)
{
    const Buffer *b = &m->d->buffers.at[buffer];
    if (!inside_buffer(m, call, buffer, member))
        return;
    if (b->class == BUFFER_KEPT)
        m->written[buffer][member] = 1;
    int *place = shared_place(m, call, buffer, member);
    if (place)
        *place = member;
    if (b->class != BUFFER_SCRATCH)
        return;
    Region x = region_of(m, buffer, member);
    int n = 0;
    for (int i = 0; i < m->map.n; i++)
        if (m->map.at[i].to <= x.from || m->map.at[i].from >= x.to)
            m->map.at[n++] = m->map.at[i];
    m->map.n = n;
    VEC_PUSH(m->p->graph->arena, &m->map, x);
}

/* A result may only share its place with an operand that the call reads element by element. */
static void check_aliasing(Memory *m, const Call *c, int call, int turn)
{
    const OpKind kind = c->kind == CALL_OP ? m->p->graph->ops.at[c->op].kind : OP_NONE;
    const bool each = kind == OP_FUSED || kind == OP_CROSS_ENTROPY_DX;
    for (int o = 0; o < c->nout; o++) {
        int bo, mo;
        ref_resolve(m->d, &c->out[o], turn, &bo, &mo);
        if (bo == NONE)
            continue;
        Region x = region_of(m, bo, mo);
        for (int i = 0; i < c->nin + o; i++) {
            const Ref *r = i < c->nin ? &c->in[i] : &c->out[i - c->nin];
            int bi, mi;
            ref_resolve(m->d, r, turn, &bi, &mi);
            if (bi == NONE)
                continue;
            Region y = region_of(m, bi, mi);
            bool apart = y.to <= x.from || y.from >= x.to;
            bool same = y.from == x.from && y.to == x.to && i < c->nin;
            if (!apart && !(each && same))
                complain(m, call, bo, "overlaps another tensor of the same call");
        }
    }
}

static void execute(Memory *m, const Call *c, int call, int turn)
{
    check_aliasing(m, c, call, turn);
    for (int i = 0; i < c->nin; i++) {
        int b, member;
        ref_resolve(m->d, &c->in[i], turn, &b, &member);
        if (b != NONE)
            read_tensor(m, call, b, member);
    }
    for (int i = 0; i < c->nout; i++) {
        int b, member;
        ref_resolve(m->d, &c->out[i], turn, &b, &member);
        if (b != NONE)
            write_tensor(m, call, b, member);
    }
}

/* In place: what is there comes from an earlier phase. */
static bool reads_buffer(const Call *c, int buffer)
{
    for (int i = 0; i < c->nin; i++)
        if (c->in[i].buffer == buffer)
            return true;
    return false;
}

static void execute_run(Memory *m, const Run *run)
{
    m->map.n = 0;
    for (int b = 0; b < m->d->buffers.n; b++)
        m->writes[b] = false;
    for (int n = 0; n < run->calls.n; n++)
        for (int k = 0; k < run->calls.at[n].nout; k++) {
            int b = run->calls.at[n].out[k].buffer;
            if (b == NONE)
                continue;
            int count = m->d->buffers.at[b].count;
            if (!m->written[b])
                m->written[b] = ARENA_ARRAY(m->p->graph->arena, int, count);
            if (m->writes[b] || reads_buffer(&run->calls.at[n], b))
                continue;
            m->writes[b] = true;
            memset(m->written[b], 0, sizeof(int) * (size_t)count);
        }
    for (int s = 0; s < run->steps.n; s++) {
        const Step *step = &run->steps.at[s];
        for (int t = 0; t < step->turns; t++) {
            int turn = step->down ? step->turns - 1 - t : t;
            for (int n = step->first; n < step->first + step->ncalls; n++)
                execute(m, &run->calls.at[n], n, turn);
        }
    }
}

/* What a link takes away is still there when its phase has ended; what one brings stays. */
static void check_links(Memory *m)
{
    m->phase = "of links";
    for (int l = 0; l < m->p->links.n; l++) {
        const Link *k = &m->p->links.at[l];
        const int from = k->source.buffer, to = k->target.buffer;
        if (k->from == m->device && m->place[from] &&
            m->place[from][k->source.at % m->d->buffers.at[from].ring] != k->source.at)
            complain(m, l, from, "is sent, but another turn's is in its place");
        if (k->to == m->device && m->place[to])
            complain(m, l, to, "is received, and has fewer places than tensors");
    }
}

bool verify_phases(const Program *p, int device, FILE *to)
{
    Arena *a = p->graph->arena;
    const Device *d = &p->devices.at[device];
    Memory m = {.p = p,
                .device = device,
                .d = d,
                .to = to,
                .written = ARENA_ARRAY(a, int *, d->buffers.n + 1),
                .writes = ARENA_ARRAY(a, bool, d->buffers.n + 1),
                .place = ARENA_ARRAY(a, int *, d->buffers.n + 1),
                .toucher = ARENA_ARRAY(a, int, d->buffers.n + 1)};
    for (int b = 0; b < d->buffers.n; b++) {
        const Buffer *x = &d->buffers.at[b];
        if (x->class != BUFFER_KEPT || x->ring == x->count)
            continue;
        m.place[b] = ARENA_ARRAY(a, int, x->ring);
        for (int i = 0; i < x->ring; i++)
            m.place[b][i] = NONE;
    }
    for (int c = 0; c < d->chunks.n; c++)
        for (int k = 0; k < RUN_KINDS; k++) {
            m.phase = arena_printf(a, "%d%s", d->chunks.at[c], run_name((RunKind)k));
            m.number++;
            execute_run(&m, &p->chunks.at[d->chunks.at[c]].run[k]);
        }
    check_links(&m);
    return m.errors == 0;
}

bool verify_memory(const Program *p, FILE *to)
{
    if (!verify_shape(p, "memory", to))
        return false;
    bool ok = true;
    int64_t limit = p->model->settings.devices.memory;
    for (int d = 0; d < p->devices.n; d++) {
        const Device *dev = &p->devices.at[d];
        ok = verify_places(p, d, false, to) && ok;
        ok = verify_places(p, d, true, to) && ok;
        ok = verify_phases(p, d, to) && ok;
        if (limit > 0 && dev->bytes > limit) {
            fprintf(to, "memory: %s needs %lld bytes of %lld\n", dev->name, (long long)dev->bytes,
                    (long long)limit);
            ok = false;
        }
    }
    return ok;
}
