/* weights.c - the weights of the whole model: their names, places and files.
 *
 * In: every stage's runs of weights. Out: one list of all, and by index the owners, which
 * is the order of sums over weights and of exported files. Names in files are the
 * weights' own; a checkpoint holds the optimizer's state besides, as optimizer.K:NAME.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "trainer.h"

static size_t name_room(const MdlWeight *run)
{
    return strlen(run->prefix) + strlen(run->suffix) + 24;
}

static int run_bad(const MdlWeight *run, const char *what, Problem *p)
{
    return problem_set(p, EXIT_RUN, "weight '%s': %s; the model's description is wrong",
                       run->prefix, what);
}

/* Whether turns of `count` elements lie within a stage's memory. */
static bool place_fits(int64_t offset, int64_t stride, int64_t turns, int64_t count, int64_t memory)
{
    int64_t size, last;
    return offset >= 0 && !__builtin_mul_overflow(count, (int64_t)sizeof(real), &size) &&
           !__builtin_mul_overflow(stride, turns - 1, &last) &&
           !__builtin_add_overflow(last, offset, &last) && last >= 0 &&
           !__builtin_add_overflow(last > offset ? last : offset, size, &last) && last <= memory;
}

static int run_add(Weights *list, char **names, const MdlModel *model, int stage,
                   const MdlWeight *run, Problem *p)
{
    int64_t count, memory = model->stages[stage]->bytes;
    if (!size_product(&count, run->dim, run->rank) || count == 0)
        return run_bad(run, "the shape is no size", p);
    if (!place_fits(run->weight, run->weight_stride, run->count, count, memory))
        return run_bad(run, "it lies outside the stage's memory", p);
    if (run->grad >= 0 && !place_fits(run->grad, run->grad_stride, run->count, count, memory))
        return run_bad(run, "its gradient lies outside the stage's memory", p);
    for (int k = 0; k < 2; k++)
        if (run->state[k] >= 0 &&
            !place_fits(run->state[k], run->state_stride, run->count, count, memory))
            return run_bad(run, "its state lies outside the stage's memory", p);
    for (int64_t turn = 0; turn < run->count; turn++) {
        Weight *w = &list->all[list->n++];
        *w = (Weight){*names, stage, run, turn, run->index + turn * run->index_step, count};
        int n = run->first < 0 ? snprintf(*names, name_room(run), "%s", run->prefix)
                               : snprintf(*names, name_room(run), "%s%" PRId64 "%s", run->prefix,
                                          run->first + turn * run->step, run->suffix);
        *names += n + 1;
        if (w->index < 0 || w->index >= model->nweights)
            return run_bad(run, "its index is not one of the model's", p);
        if (!run->owner)
            continue;
        if (list->owner[w->index])
            return run_bad(run, "two weights have the same index", p);
        list->owner[w->index] = w;
    }
    return MDL_OK;
}

static int runs_list(Weights *list, const MdlModel *model, Problem *p)
{
    char *names = list->names;
    for (int i = 0; i < model->nstages; i++)
        for (int k = 0; k < model->stages[i]->nweights; k++)
            TRY(run_add(list, &names, model, i, &model->stages[i]->weights[k], p));
    for (int64_t i = 0; i < model->nweights; i++)
        if (!list->owner[i])
            return problem_set(p, EXIT_RUN,
                               "weight %lld has no owner; the model's description "
                               "is wrong",
                               (long long)i);
    return MDL_OK;
}

int weights_list(Weights *list, const MdlModel *model, Problem *p)
{
    size_t n = 0, room = 0;
    *list = (Weights){0};
    for (int i = 0; i < model->nstages; i++)
        for (int k = 0; k < model->stages[i]->nweights; k++) {
            const MdlWeight *run = &model->stages[i]->weights[k];
            n += (size_t)run->count;
            room += (size_t)run->count * name_room(run);
        }
    list->all = calloc(n + 1, sizeof *list->all);
    list->owner = calloc((size_t)model->nweights + 1, sizeof(Weight *));
    list->names = malloc(room + 1);
    if (!list->all || !list->owner || !list->names)
        return problem_no_memory(p, "the list of weights");
    return runs_list(list, model, p);
}

void weights_free(Weights *list)
{
    free(list->all);
    free(list->owner);
    free(list->names);
    *list = (Weights){0};
}

int weight_open(Span *span, const Trainer *t, const Weight *w, WeightPart part, unsigned use,
                Problem *p)
{
    const MdlWeight *run = w->run;
    int64_t offset = run->weight, stride = run->weight_stride;
    if (part == PART_GRADIENT) {
        offset = run->grad;
        stride = run->grad_stride;
    } else if (part != PART_WEIGHT) {
        offset = run->state[part];
        stride = run->state_stride;
    }
    return span_open(span, &t->devices[w->stage], offset + w->turn * stride,
                     w->count * (int64_t)sizeof(real), use, p);
}

/* "optimizer.K:NAME", to be freed; NULL when memory runs out. */
static char *state_name(const Weight *w, int k)
{
    size_t size = strlen(w->name) + sizeof "optimizer.0:";
    char *name = malloc(size);
    if (name)
        snprintf(name, size, "optimizer.%d:%s", k, w->name);
    return name;
}

static bool state_kept(const Weight *w, int k)
{
    return w->run->owner && !w->run->frozen && w->run->state[k] >= 0;
}

static int tensor_check(const TensorFile *file, const char *path, const Weight *w, const char *name,
                        Problem *p)
{
    const MdlWeight *run = w->run;
    const Tensor *found = tensors_find(file, name);
    char have[TEXT_SHAPE], want[TEXT_SHAPE];
    if (!found)
        return problem_set(p, EXIT_RUN, "%s: has no tensor '%s'", path, name);
    if (found->rank != run->rank ||
        memcmp(found->dim, run->dim, (size_t)run->rank * sizeof *run->dim) != 0)
        return problem_set(
            p, EXIT_RUN, "%s: tensor '%s' has the shape %s; the model needs %s", path, name,
            text_shape(have, found->dim, found->rank < MDL_RANK ? found->rank : MDL_RANK),
            text_shape(want, run->dim, run->rank));
    if (found->type == TENSOR_OTHER)
        return problem_set(p, EXIT_RUN, "%s: tensor '%s' is not of a floating type", path, name);
    return MDL_OK;
}

int weights_check(const Trainer *t, const TensorFile *file, bool state, Problem *p)
{
    const char *path = state ? t->options.resume : t->options.load;
    for (int64_t i = 0; i < t->model->nweights; i++) {
        const Weight *w = t->weights.owner[i];
        TRY(tensor_check(file, path, w, w->name, p));
        for (int k = 0; state && k < 2; k++) {
            if (!state_kept(w, k))
                continue;
            char *name = state_name(w, k);
            int status = name ? tensor_check(file, path, w, name, p) : problem_no_memory(p, path);
            free(name);
            TRY(status);
        }
    }
    int64_t extra = tensors_count(file) - t->model->nweights;
    if (!state && extra > 0 && !t->options.quiet)
        printf("%s: %lld tensors more than the model has weights; they are not used\n", path,
               (long long)extra);
    return MDL_OK;
}

static int tensor_fill(Trainer *t, const Weight *w, WeightPart part, const char *name, Problem *p)
{
    Span span;
    int status = weight_open(&span, t, w, part, SPAN_WRITE, p);
    if (status == MDL_OK)
        status = tensors_read(t->initial, tensors_find(t->initial, name), span.at, p);
    int closed = span_close(&span, status == MDL_OK ? SPAN_WRITE : 0, p);
    return status == MDL_OK ? closed : status;
}

static int weight_read(Trainer *t, const Weight *w, Problem *p)
{
    TRY(tensor_fill(t, w, PART_WEIGHT, w->name, p));
    for (int k = 0; t->resumed && k < 2; k++) {
        if (!state_kept(w, k))
            continue;
        char *name = state_name(w, k);
        if (!name)
            return problem_no_memory(p, "a name");
        int status = tensor_fill(t, w, (WeightPart)k, name, p);
        free(name);
        TRY(status);
    }
    return MDL_OK;
}

static int weight_start(Device *d, const Weight *w, Problem *p)
{
    Trainer *t = d->stage.trainer;
    Span span;
    int status = weight_open(&span, t, w, PART_WEIGHT, SPAN_WRITE, p);
    if (status == MDL_OK)
        weight_initialise(d->team, span.at, w->count, w->name, t->seed, w->run->init,
                          w->run->value);
    int closed = span_close(&span, status == MDL_OK ? SPAN_WRITE : 0, p);
    return status == MDL_OK ? closed : status;
}

int weights_fill(Device *d, Problem *p)
{
    Trainer *t = d->stage.trainer;
    for (int64_t i = 0; i < t->weights.n; i++) {
        const Weight *w = &t->weights.all[i];
        if (w->stage == d->stage.index)
            TRY(t->initial ? weight_read(t, w, p) : weight_start(d, w, p));
    }
    return MDL_OK;
}

/* What a file is written from: items, and for each the weight and the part that it is of. */
typedef struct {
    const Trainer *t;
    TensorItem *items;
    struct Source {
        const Weight *weight;
        WeightPart part;
    } * source;
    char **names; /* of state, owned; NULL: none is written */
    Span span;
} Saving;

static void saving_add(Saving *s, int64_t n, const Weight *w, WeightPart part, const char *name)
{
    s->items[n] = (TensorItem){name, w->run->rank, w->run->dim, NULL};
    s->source[n] = (struct Source){w, part};
}

/* The weights and, where `names` has room for them, the state; returns how many. */
static int64_t saving_list(Saving *s)
{
    const Trainer *t = s->t;
    int64_t n = 0;
    for (int64_t i = 0; i < t->model->nweights; i++, n++)
        saving_add(s, n, t->weights.owner[i], PART_WEIGHT, t->weights.owner[i]->name);
    for (int64_t i = 0; s->names && i < t->model->nweights; i++)
        for (int k = 0; k < 2; k++) {
            const Weight *w = t->weights.owner[i];
            if (!state_kept(w, k))
                continue;
            s->names[2 * i + k] = state_name(w, k);
            saving_add(s, n++, w, (WeightPart)k, s->names[2 * i + k]);
        }
    return n;
}

static int saving_lend(void *ctx, int64_t item, const real **data, Problem *p)
{
    Saving *s = ctx;
    TRY(weight_open(&s->span, s->t, s->source[item].weight, s->source[item].part, SPAN_READ, p));
    *data = s->span.at;
    return MDL_OK;
}

static void saving_take_back(void *ctx, int64_t item)
{
    (void)item;
    Saving *s = ctx;
    Problem none = {0};
    span_close(&s->span, SPAN_READ, &none); /* nothing was written, so nothing can be lost */
}

static int saving_write(Saving *s, const char *path, bool state, const TensorNote *notes,
                        int nnotes, Problem *p)
{
    const TensorLender lender = {s, saving_lend, saving_take_back};
    int64_t n = saving_list(s);
    for (int64_t i = 0; i < n; i++)
        if (!s->items[i].name)
            return problem_no_memory(p, path);
    return tensors_write(path, s->items, n, &lender, notes, nnotes, state, state, p);
}

int weights_save(const Trainer *t, const char *path, bool state, const TensorNote *notes,
                 int nnotes, Problem *p)
{
    size_t weights = (size_t)t->model->nweights;
    Saving s = {.t = t,
                .items = calloc(3 * weights + 1, sizeof *s.items),
                .source = calloc(3 * weights + 1, sizeof *s.source),
                .names = state ? calloc(2 * weights + 1, sizeof *s.names) : NULL};
    int status = MDL_OK;
    if (!s.items || !s.source || (state && !s.names))
        status = problem_no_memory(p, path);
    if (status == MDL_OK)
        status = saving_write(&s, path, state, notes, nnotes, p);
    for (size_t i = 0; s.names && i < 2 * weights; i++)
        free(s.names[i]);
    free(s.names);
    free(s.source);
    free(s.items);
    return status;
}
