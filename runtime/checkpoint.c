/* checkpoint.c - stopping and going on as if nothing had happened.
 *
 * Out: FOLDER/step-00000100.safetensors with the weights, the optimizer's state and, as
 * notes, the step, the seed and the model's fingerprint. In: the newest of them. All
 * else that shapes a run (order of samples, learning rate, dropout) is a function of the
 * seed and the step, so nothing else needs to be kept. A checkpoint appears under its
 * name complete; a damaged one is found by its checksum and refused.
 */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "trainer.h"

static int folder_make(const char *folder, Problem *p)
{
    struct stat st;
    if (mkdir(folder, 0777) == 0)
        return MDL_OK;
    int why = errno;
    if (why != EEXIST || stat(folder, &st) != 0 || !S_ISDIR(st.st_mode))
        return problem_set(p, EXIT_USE, "--save %s: cannot be made a folder: %s", folder,
                           strerror(why));
    if (access(folder, W_OK | X_OK) != 0)
        return problem_set(p, EXIT_USE, "--save %s: cannot write there: %s", folder,
                           strerror(errno));
    return MDL_OK;
}

/* FOLDER/step-N.safetensors, to be freed; NULL when memory runs out. */
static char *checkpoint_path(const char *folder, int64_t step)
{
    size_t size = strlen(folder) + 64;
    char *path = malloc(size);
    if (path)
        snprintf(path, size, "%s/step-%08" PRId64 ".safetensors", folder, step);
    return path;
}

int checkpoint_write(Trainer *t, const char *folder, int64_t step, Problem *p)
{
    char step_text[32], seed_text[32], lr_text[32];
    snprintf(step_text, sizeof step_text, "%" PRId64, step);
    snprintf(seed_text, sizeof seed_text, "%" PRIu64, t->seed);
    snprintf(lr_text, sizeof lr_text, "%.17g", t->lr);
    TensorNote notes[5 + LOSS_SCALE_NOTES] = {{"format", "pt"},
                                              {"step", step_text},
                                              {"seed", seed_text},
                                              {"lr", lr_text},
                                              {"fingerprint", t->model->fingerprint}};
    LossScaleText scale;
    const int nnotes = 5 + loss_scale_notes(t, &scale, notes + 5);
    char *path = checkpoint_path(folder, step);
    if (!path)
        return problem_no_memory(p, folder);
    int status = weights_save(t, path, true, notes, nnotes, p);
    free(path);
    return status;
}

int weights_export(Trainer *t, const char *path, Problem *p)
{
    static const TensorNote notes[] = {{"format", "pt"}};
    return weights_save(t, path, false, notes, 1, p);
}

/* The step in a checkpoint's file name; -1: it is not one. */
static int64_t step_from_name(const char *name)
{
    if (strncmp(name, "step-", 5) != 0)
        return -1;
    const char *digits = name + 5;
    size_t n = strspn(digits, "0123456789");
    if (n < 8 || n > 18 || strcmp(digits + n, ".safetensors") != 0)
        return -1;
    return strtoll(digits, NULL, 10);
}

static int64_t newest_step(const char *folder, Problem *p)
{
    DIR *dir = opendir(folder);
    if (!dir) {
        problem_set(p, EXIT_USE, "--resume %s: %s", folder, strerror(errno));
        return -1;
    }
    int64_t newest = -1;
    for (const struct dirent *e; (e = readdir(dir)) != NULL;) {
        int64_t step = step_from_name(e->d_name);
        if (step > newest)
            newest = step;
    }
    closedir(dir);
    if (newest < 0)
        problem_set(p, EXIT_USE, "--resume %s: holds no checkpoint (step-N.safetensors)", folder);
    return newest;
}

int checkpoint_folder(const Trainer *t, int64_t done, Problem *p)
{
    const char *folder = t->options.save;
    if (!folder)
        return MDL_OK;
    TRY(folder_make(folder, p));
    Problem none = {0};
    int64_t newest = newest_step(folder, &none);
    if (newest > done && !t->options.quiet)
        printf("%s: holds a checkpoint of step %lld from before; --resume takes the newest, so an "
               "empty folder is safer\n",
               folder, (long long)newest);
    return MDL_OK;
}

static bool number_read(const char *text, uint64_t *value)
{
    char *end;
    if (!text || *text < '0' || *text > '9')
        return false;
    errno = 0;
    *value = strtoull(text, &end, 10);
    return errno == 0 && *end == '\0';
}

static int notes_check(const TensorFile *file, const char *path, const MdlModel *model,
                       int64_t step, uint64_t *seed, Problem *p)
{
    uint64_t noted;
    if (!number_read(tensors_metadata(file, "step"), &noted) || noted != (uint64_t)step ||
        !number_read(tensors_metadata(file, "seed"), seed))
        return problem_set(p, EXIT_RUN, "%s: is no checkpoint of step %lld", path, (long long)step);
    const char *fingerprint = tensors_metadata(file, "fingerprint");
    if (!fingerprint || strcmp(fingerprint, model->fingerprint) != 0)
        return problem_set(p, EXIT_RUN,
                           "%s: was written by another model, or with another batch, micro-batch "
                           "or optimizer; --load takes its weights alone",
                           path);
    return MDL_OK;
}

int checkpoint_open(TensorFile **file, const MdlModel *model, const char *folder, int64_t *step,
                    uint64_t *seed, Problem *p)
{
    *file = NULL;
    *step = newest_step(folder, p);
    if (*step < 0)
        return MDL_FAILED;
    char *path = checkpoint_path(folder, *step);
    if (!path)
        return problem_no_memory(p, folder);
    int status = tensors_open(file, path, true, p);
    if (status == MDL_OK)
        status = notes_check(*file, path, model, *step, seed, p);
    if (status != MDL_OK) {
        tensors_close(*file);
        *file = NULL;
    }
    free(path);
    return status;
}
