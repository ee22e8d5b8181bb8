/* dataset.c - numbered samples from files, in the order of training.
 *
 * In: a DataRequest. Out: a DataSet whose arrays agree with the model's inputs and with
 * each other. A position p of the endless sequence is place p % n of epoch p / n, which
 * the epoch's permutation makes the number of a sample.
 */
#include <stdlib.h>
#include <string.h>

#include "data.h"

struct DataSet {
    const MdlModel *model;
    int64_t *count;     /* elements a sample, of every input */
    Array *arrays;      /* of every input; empty for tokens and synthetic data */
    TokenFiles *tokens; /* NULL: arrays or synthetic */
    bool synthetic, shuffle;
    uint64_t seed;
    int64_t samples, skip;
};

/* One file for all inputs: windows, or columns, which go to the inputs in order and then to
 * the targets. */
static int positional_open(DataSet *set, const DataRequest *r, Problem *p)
{
    const MdlModel *model = set->model;
    const DataFile *f = &r->files[0];
    int n = 0, status = MDL_OK;
    int *order = calloc((size_t)model->ninputs + 1, sizeof *order);
    if (!order)
        return problem_no_memory(p, f->path);
    for (int target = 0; target < 2; target++)
        for (int i = 0; i < model->ninputs; i++)
            if (model->inputs[i].target == (target == 1))
                order[n++] = i;
    if (strcmp(f->kind, "csv") == 0)
        status = csv_read(set->arrays, model->inputs, order, n, f->path, p);
    else if (kind_has_windows(f->kind))
        status = tokens_open(&set->tokens, f->path, f->kind, model, p);
    else
        status = problem_set(p, EXIT_USE,
                             "%s: a file of kind %s is for one input; give it as %s NAME=%s",
                             f->path, f->kind, r->option, f->path);
    free(order);
    return status;
}

/* One input's own file. Shapes agree when a sample has as many elements: [28,28] files
 * fit [1,28,28] inputs, and [N,1] files scalars. */
static int named_open(DataSet *set, const DataFile *f, const char *option, Problem *p)
{
    int i = 0;
    while (strcmp(set->model->inputs[i].name, f->input) != 0)
        i++;
    const MdlInput *input = &set->model->inputs[i];
    Array *a = &set->arrays[i];
    if (kind_has_windows(f->kind))
        return problem_set(p, EXIT_USE,
                           "%s: %s data is for all inputs; give it as %s %s, without '%s='",
                           f->path, f->kind, option, f->path, f->input);
    if (strcmp(f->kind, "csv") == 0)
        TRY(csv_read(set->arrays, set->model->inputs, &i, 1, f->path, p));
    else if (strcmp(f->kind, "idx") == 0)
        TRY(idx_read(a, f->path, p));
    else
        TRY(npy_read(a, f->path, p));

    if (a->rank == 0)
        return problem_set(p, EXIT_RUN, "%s: holds one number, not samples", f->path);
    int64_t per_sample;
    char have[TEXT_SHAPE], want[TEXT_SHAPE];
    if (!size_product(&per_sample, a->dim + 1, a->rank - 1) || per_sample != set->count[i])
        return problem_set(p, EXIT_RUN, "%s: samples have the shape %s; input '%s' needs %s",
                           f->path, text_shape(have, a->dim + 1, a->rank - 1), input->name,
                           text_shape(want, input->dim, input->rank));
    if (a->stride == 0)
        a->stride = per_sample;
    return MDL_OK;
}

/* Every input has its file, and all files hold as many samples. */
static int arrays_agree(DataSet *set, const DataRequest *r, Problem *p)
{
    const MdlModel *model = set->model;
    for (int i = 0; i < model->ninputs; i++) {
        const Array *a = &set->arrays[i];
        if (!a->path)
            return problem_set(p, EXIT_USE, "no %s data for input '%s': give it with %s %s=PATH",
                               r->which, model->inputs[i].name, r->option, model->inputs[i].name);
        if (a->dim[0] != set->arrays[0].dim[0])
            return problem_set(p, EXIT_RUN, "%s holds %lld samples and %s holds %lld",
                               set->arrays[0].path, (long long)set->arrays[0].dim[0], a->path,
                               (long long)a->dim[0]);
    }
    set->samples = model->ninputs > 0 ? set->arrays[0].dim[0] : 0;
    return MDL_OK;
}

static int files_open(DataSet *set, const DataRequest *r, Problem *p)
{
    if (r->nfiles > 0 && !r->files[0].input)
        TRY(positional_open(set, r, p));
    else
        for (int i = 0; i < r->nfiles; i++)
            TRY(named_open(set, &r->files[i], r->option, p));
    if (set->tokens)
        set->samples = tokens_windows(set->tokens);
    else
        TRY(arrays_agree(set, r, p));
    if (set->samples <= r->skip)
        return problem_set(p, EXIT_RUN, "the %s data holds %lld samples; skip = %lld leaves none",
                           r->which, (long long)set->samples, (long long)r->skip);
    set->samples -= r->skip;
    if (r->take > 0 && r->take < set->samples)
        set->samples = r->take;
    return MDL_OK;
}

static int dataset_fill(DataSet *set, const DataRequest *r, Problem *p)
{
    const MdlModel *model = set->model;
    set->count = calloc((size_t)model->ninputs + 1, sizeof *set->count);
    set->arrays = calloc((size_t)model->ninputs + 1, sizeof *set->arrays);
    if (!set->count || !set->arrays)
        return problem_no_memory(p, "the data set");
    for (int i = 0; i < model->ninputs; i++)
        if (!size_product(&set->count[i], model->inputs[i].dim, model->inputs[i].rank))
            return problem_set(p, EXIT_RUN, "input '%s' is too large", model->inputs[i].name);
    if (!set->synthetic)
        return files_open(set, r, p);
    set->samples = r->take > 0 ? r->take : r->synthetic_all;
    return MDL_OK;
}

int dataset_open(DataSet **out, const DataRequest *request, const MdlModel *model, uint64_t seed,
                 Problem *p)
{
    DataSet *set = calloc(1, sizeof *set);
    *out = NULL;
    if (!set)
        return problem_no_memory(p, "the data set");
    *set = (DataSet){.model = model,
                     .synthetic = request->synthetic,
                     .shuffle = request->shuffle,
                     .seed = seed,
                     .skip = request->skip};
    int status = dataset_fill(set, request, p);
    if (status == MDL_OK)
        *out = set;
    else
        dataset_close(set);
    return status;
}

void dataset_close(DataSet *set)
{
    if (!set)
        return;
    for (int i = 0; set->arrays && i < set->model->ninputs; i++)
        array_release(&set->arrays[i]);
    tokens_close(set->tokens);
    free(set->arrays);
    free(set->count);
    free(set);
}

int64_t dataset_samples(const DataSet *set)
{
    return set->samples;
}

int dataset_load(const DataSet *set, int input, int64_t position, void *out, Problem *p)
{
    int64_t epoch = position / set->samples, sample = position % set->samples;
    if (set->shuffle)
        sample = permutation(sample, set->samples, set->seed, (uint64_t)epoch);
    sample += set->skip;
    const MdlInput *shape = &set->model->inputs[input];
    if (set->tokens)
        return tokens_window(set->tokens, sample, shape, out, p);
    if (!set->synthetic)
        return array_sample(&set->arrays[input], sample, shape, set->count[input], out, p);
    synthetic_sample(shape, set->seed, sample, set->count[input], out);
    return MDL_OK;
}
